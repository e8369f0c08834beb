//! Arguments: what stands between the parentheses of an attribute.
//!
//! They are split without regard to which of them are known, so that one mistake does not hide the
//! next one.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, LitStr, Meta, Token};

use crate::errors::Errors;
use crate::names::{listed, nearest};
use crate::source::text;

/// One argument of an attribute.
pub(crate) enum Argument {
    /// A string: `"github.push"`.
    Text(LitStr),
    /// A name with or without a value: `realtime`, `key = repository`, `tag("type")`.
    Named(Named),
    /// Anything else.
    Other(TokenStream),
}

/// An argument that has a name.
pub(crate) struct Named {
    /// The name, which may be a keyword such as `crate`.
    pub(crate) name: Ident,
    /// What follows it.
    pub(crate) value: Value,
}

/// What follows the name of an argument.
pub(crate) enum Value {
    /// Nothing: `realtime`.
    None,
    /// `= …`, with at least one token.
    Assigned(TokenStream),
    /// `(…)`.
    Listed(Group),
    /// `= ` and nothing, or something other than these.
    Malformed(TokenStream),
}

impl Argument {
    /// Splits at the commas.
    pub(crate) fn list(tokens: TokenStream, errors: &mut Errors) -> Vec<Argument> {
        pieces(tokens, errors)
            .into_iter()
            .filter_map(|piece| match syn::parse2(piece) {
                Ok(argument) => Some(argument),
                Err(error) => {
                    errors.add(error);
                    None
                }
            })
            .collect()
    }

    /// The arguments of `#[name(…)]`. `#[name]` has none, and `#[name = …]` is refused.
    pub(crate) fn of(attribute: &Attribute, errors: &mut Errors) -> Vec<Argument> {
        match &attribute.meta {
            Meta::Path(_) => Vec::new(),
            Meta::List(list) => Self::list(list.tokens.clone(), errors),
            Meta::NameValue(pair) => {
                let path = text(&pair.path);
                let value = text(&pair.value);
                errors.at(
                    attribute,
                    format!("write parentheses: `#[{path}({value})]`"),
                );
                Vec::new()
            }
        }
    }
}

impl Parse for Argument {
    // "github.push"
    // realtime
    // key = repository
    // retry(max = 8)
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let whole = input.fork();
        if input.peek(LitStr) {
            let text = input.parse()?;
            if input.is_empty() {
                return Ok(Argument::Text(text));
            }
        } else if input.peek(Ident::peek_any) {
            let name = input.call(Ident::parse_any)?;
            if input.is_empty() {
                let value = Value::None;
                return Ok(Argument::Named(Named { name, value }));
            }
            if input.peek(Token![=]) && !input.peek(Token![==]) {
                let equals: Token![=] = input.parse()?;
                let tokens: TokenStream = input.parse()?;
                let value = if tokens.is_empty() {
                    Value::Malformed(equals.into_token_stream())
                } else {
                    Value::Assigned(tokens)
                };
                return Ok(Argument::Named(Named { name, value }));
            }
            if input.peek(syn::token::Paren) {
                let tokens: TokenStream = input.parse()?;
                let value = match syn::parse2(tokens.clone()) {
                    Ok(list) => Value::Listed(list),
                    Err(_) => Value::Malformed(tokens),
                };
                return Ok(Argument::Named(Named { name, value }));
            }
        }
        input.parse::<TokenStream>()?;
        whole.parse().map(Argument::Other)
    }
}

impl Named {
    /// Reads an option without a value, such as `realtime`.
    pub(crate) fn flag(&self, errors: &mut Errors) {
        if !matches!(self.value, Value::None) {
            let name = &self.name;
            errors.at(
                self.tokens(),
                format!("`{name}` takes no value; write `{name}` alone, or leave it out"),
            );
        }
    }

    /// Reads the value as `T`, or says what to write: `key = field`.
    pub(crate) fn value<T: Parse>(&self, example: &str, errors: &mut Errors) -> Option<T> {
        let name = &self.name;
        match &self.value {
            Value::None => errors.at(
                name,
                format!("`{name}` needs a value; write `{name} = {example}`"),
            ),
            Value::Listed(list) => {
                let inner = list.stream();
                let value = match syn::parse2::<T>(inner.clone()) {
                    Ok(_) => text(&inner),
                    Err(_) => meant::<T>(&inner, example),
                };
                errors.at(self.tokens(), format!("write `{name} = {value}`"));
            }
            Value::Malformed(_) => {
                errors.at(self.tokens(), format!("write `{name} = {example}`"));
            }
            Value::Assigned(tokens) => match syn::parse2(tokens.clone()) {
                Ok(value) => return Some(value),
                Err(_) => errors.at(
                    tokens,
                    format!(
                        "`{}` is no value for `{name}`; write `{name} = {}`",
                        text(tokens),
                        meant::<T>(tokens, example)
                    ),
                ),
            },
        }
        None
    }

    /// Reads a list in parentheses, or says what to write: `upcast(1 = function)`.
    pub(crate) fn list<T: Parse>(&self, example: &str, errors: &mut Errors) -> Vec<T> {
        let name = &self.name;
        let Value::Listed(list) = &self.value else {
            errors.at(self.tokens(), format!("write `{name}({example})`"));
            return Vec::new();
        };
        let mut items = Vec::new();
        if list.stream().is_empty() {
            errors.at(
                self.tokens(),
                format!("`{name}` is empty; write `{name}({example})`"),
            );
        }
        for piece in pieces(list.stream(), errors) {
            match syn::parse2(piece.clone()) {
                Ok(item) => items.push(item),
                Err(_) => errors.at(
                    &piece,
                    format!(
                        "`{}` does not belong in `{name}`; write `{name}({example})`",
                        text(&piece)
                    ),
                ),
            }
        }
        items
    }

    /// Reads one value after `=`, or a list in parentheses.
    pub(crate) fn one_or_list<T: Parse>(&self, example: &str, errors: &mut Errors) -> Vec<T> {
        match &self.value {
            Value::Listed(_) => self.list(example, errors),
            _ => self.value(example, errors).into_iter().collect(),
        }
    }

    /// All of it, for messages.
    pub(crate) fn tokens(&self) -> TokenStream {
        let name = &self.name;
        match &self.value {
            Value::None => quote!(#name),
            Value::Assigned(value) => quote!(#name = #value),
            Value::Listed(list) => quote!(#name #list),
            Value::Malformed(rest) => quote!(#name #rest),
        }
    }

    /// Refuses an option that is not among `known`.
    pub(crate) fn unknown(&self, known: &[&str], errors: &mut Errors) {
        let name = self.name.unraw().to_string();
        let there_are = match known {
            [one] => format!("the only one here is `{one}`"),
            many => format!("there are {}", listed(many)),
        };
        let meant = match nearest(&name, known) {
            Some(near) if known.len() > 1 => format!("; did you mean `{near}`?"),
            _ => String::new(),
        };
        errors.at(
            &self.name,
            format!("unknown option `{name}`: {there_are}{meant}"),
        );
    }
}

/// The value with the quotes that it lacks, or without those that it has too many; else `example`.
fn meant<T: Parse>(tokens: &TokenStream, example: &str) -> String {
    if let Ok(quoted) = syn::parse2::<LitStr>(tokens.clone()) {
        let value = quoted.value();
        let fits = syn::parse_str::<T>(&value).is_ok();
        return if fits { value } else { example.to_owned() };
    }
    let written = text(tokens);
    let wants_quotes = example.starts_with('"') && !written.is_empty();
    if wants_quotes
        && written
            .chars()
            .all(|c| c.is_alphanumeric() || "_.*-".contains(c))
    {
        return format!("\"{written}\"");
    }
    example.to_owned()
}

/// What stands between the commas.
fn pieces(tokens: TokenStream, errors: &mut Errors) -> Vec<TokenStream> {
    let mut pieces = Vec::new();
    let mut piece = TokenStream::new();
    for token in tokens {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                if piece.is_empty() {
                    errors.at(&comma, "there is nothing before this comma; remove it");
                }
                pieces.push(std::mem::take(&mut piece));
            }
            other => piece.extend([other]),
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Which options were written already.
#[derive(Default)]
pub(crate) struct Seen(Vec<Ident>);

impl Seen {
    /// Whether it is the first of its name; another one is refused.
    pub(crate) fn first(&mut self, named: &Named, errors: &mut Errors) -> bool {
        let name = &named.name;
        if self.0.contains(name) {
            errors.at(name, format!("`{name}` is given twice; remove one of them"));
            return false;
        }
        self.0.push(name.clone());
        true
    }
}
