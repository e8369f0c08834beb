//! What the stand-in says.

use super::AiContextLoaded;

/// How many words a chunk has.
const WORDS: usize = 2;

/// The answer to a session: its facts, put into sentences.
pub(super) fn answer(context: &AiContextLoaded) -> String {
    if context.facts.is_empty() {
        return format!(
            "Nothing is known of {} yet. It is known from its first delivery on. \
             (This answer comes from a script. No model was asked.)",
            context.repository
        );
    }
    format!(
        "Here is what {} events tell of {}. {} \
         (This answer comes from a script. No model was asked.)",
        context.version,
        context.repository,
        context.facts.join(" ")
    )
}

/// The answer in pieces that make it whole again, with the spaces that follow the words.
pub(super) fn chunks(text: &str) -> Vec<&str> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let mut rest = text;
    words
        .chunks(WORDS)
        .map(|words| {
            let bytes = words.iter().map(|word| word.len()).sum();
            let (chunk, left) = rest.split_at(bytes);
            rest = left;
            chunk
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_are_the_text() {
        for text in ["", "one", "one two three", "ä  ö ü "] {
            assert_eq!(chunks(text).concat(), text);
        }
        assert_eq!(chunks("one two three"), ["one two ", "three"]);
    }
}
