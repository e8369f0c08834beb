//! Patterns as the server has them.

/// Adds a text to a pattern, of which it then matches itself alone.
pub(crate) fn push_literal(pattern: &mut String, text: &str) {
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
}

/// A text as a pattern that only it matches.
pub(crate) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    push_literal(&mut pattern, text);
    pattern
}
