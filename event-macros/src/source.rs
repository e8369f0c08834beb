//! Source text, for messages.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;

/// Tokens as a reader would write them: `Result<Option<Analyzed>, Error>`.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    let mut text = String::new();
    append(tokens.to_token_stream(), &mut text);
    text.trim_end().to_owned()
}

fn append(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                append(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) => {
                let c = punct.as_char();
                if matches!(c, '+' | '=') {
                    text.push(' ');
                }
                text.push(c);
                if matches!(c, ',' | '+' | '=') {
                    text.push(' ');
                }
            }
            word => {
                if text.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    text.push(' ');
                }
                text.push_str(&word.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn types_are_written_as_people_write_them() {
        for source in [
            "Result<Option<Analyzed>, Error>",
            "(GithubPush, Vec<RepositoryAnalyzed>)",
            "Box<dyn Error + Send + Sync>",
            "std::io::Result<()>",
            "[\"a.b\", 2]",
        ] {
            let tokens: proc_macro2::TokenStream = source.parse().unwrap();
            assert_eq!(text(&tokens), source);
        }
    }
}
