//! Patterns of event types, as in `#[on("github.pr.*")]`.

use std::fmt;
use std::str::FromStr;

use crate::event::{Category, is_event_type};

/// A full event type, or one with `*` for any run of characters, as in Redis globs: `github.pr.*`
/// matches `github.pr.opened` and `github.pr.review.requested`.
///
/// ```
/// use event_core::Pattern;
///
/// let pattern: Pattern = "github.pr.*".parse()?;
/// assert!(pattern.matches("github.pr.opened"));
/// assert!(!pattern.matches("github.push"));
/// # Ok::<(), event_core::InvalidPattern>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Whether it matches a full event type.
    pub fn matches(&self, event_type: &str) -> bool {
        matches(&self.0, event_type)
    }

    /// Whether it is one full event type, without `*`.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// The category that every match is of, or `None` where there is a `*` in the first segment
    /// (only realtime events can be matched so).
    pub fn category(&self) -> Option<Category> {
        let (first, _) = self.0.split_once('.')?;
        Category::new(first).ok()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_pattern(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPattern {
                pattern: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no pattern of event types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{pattern}` is no pattern of event types; write a type such as `github.push`, with `*` for any run of characters, such as `github.pr.*`"
)]
pub struct InvalidPattern {
    /// What was given.
    pub pattern: String,
}

/// Whether `text` is an event type, or becomes one where each `*` stands for some characters.
pub const fn is_pattern(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut stars = 0;
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'*' => stars += 1,
            b'.' => {
                if index == 0 || bytes[index - 1] == b'.' || index + 1 == bytes.len() {
                    return false;
                }
            }
            b'a'..=b'z' => {}
            b'0'..=b'9' | b'_' => {
                if index == 0 {
                    return false;
                }
            }
            _ => return false,
        }
        index += 1;
    }
    stars > 0 || is_event_type(text)
}

/// Whether `pattern` matches `text`, where `*` is any run of characters. The compiler can run it.
pub(crate) const fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the run that the last `*` stands for must grow by one.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((after_star, from)) = retry {
            p = after_star;
            t = from + 1;
            retry = Some((after_star, t));
        } else {
            return false;
        }
    }
    while p < pattern.len() && pattern[p] == b'*' {
        p += 1;
    }
    p == pattern.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_run() {
        for (pattern, text, expected) in [
            ("github.push", "github.push", true),
            ("github.push", "github.pushed", false),
            ("github.*", "github.pr.opened", true),
            ("github.*.opened", "github.pr.opened", true),
            ("github.*.opened", "github.pr.closed", false),
            ("*", "a.b", true),
            ("*.opened", "github.pr.opened", true),
            ("a.*b*c", "a.xxbyybzc", true),
            ("a.*b*c", "a.xxbyybz", false),
            ("a.b*", "a.b", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_are_types_with_stars() {
        for good in ["a.b", "a.*", "*", "a*.b", "*.opened", "a.b*"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", "a", "a.", ".*", "a..*", "A.*", "a.?", "a.[bc]", "a. *"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn a_star_in_the_first_segment_has_no_category() {
        let category = |text: &str| {
            text.parse::<Pattern>()
                .unwrap()
                .category()
                .map(|c| c.to_string())
        };
        assert_eq!(category("github.*"), Some("github".to_owned()));
        assert_eq!(category("git*.push"), None);
        assert_eq!(category("*"), None);
    }
}
