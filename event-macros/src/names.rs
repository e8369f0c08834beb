//! Names: event types, patterns of them, and what was probably meant.
//!
//! The rules are those of `event_core::is_event_type` and `event_core::is_pattern`. They are written
//! again because a macro cannot depend on the crate that it generates code for; a test compares them.

/// Whether `name` matches `^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`.
pub(crate) fn is_event_type(name: &str) -> bool {
    name.contains('.') && !name.contains('*') && is_pattern(name)
}

/// Whether `text` is an event type, or becomes one where each `*` stands for some characters.
pub(crate) fn is_pattern(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_*".contains(c);
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
        && text
            .split('.')
            .all(|segment| !segment.is_empty() && segment.chars().all(allowed))
        && (text.contains('*') || text.contains('.'))
}

/// Whether a pattern leaves the category open.
pub(crate) fn leaves_category_open(pattern: &str) -> bool {
    pattern.split('.').next().is_some_and(|s| s.contains('*'))
}

/// What to say of a text that is no event type.
pub(crate) fn refuse_event_type(text: &str) -> String {
    if text.contains('*') && is_pattern(text) {
        return format!("`{text}` is a pattern; write one event type in full, without `*`");
    }
    match corrected(text) {
        Some(corrected) if corrected.contains('.') => {
            format!("`{text}` is no event type; write `{corrected}`")
        }
        Some(word) => format!(
            "`{text}` is no event type: it has no category; put one in front, as in \
             `category.{word}`"
        ),
        None => format!(
            "{} is no event type; write lower-case words joined by dots, the category first, as \
             in `github.pr.opened`",
            quoted(text)
        ),
    }
}

/// What to say of a text that is no pattern of event types.
pub(crate) fn refuse_pattern(text: &str) -> String {
    match corrected(text) {
        Some(corrected) if corrected.contains(['.', '*']) => {
            format!("`{text}` is no event type or pattern; write `{corrected}`")
        }
        Some(word) => format!(
            "`{text}` is no event type or pattern; for all events of the category write `{word}.*`"
        ),
        None => format!(
            "{} is no event type or pattern; write a type such as `github.push`, with `*` for any \
             run of characters, such as `github.pr.*`",
            quoted(text)
        ),
    }
}

/// A text in a message.
pub(crate) fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    format!("`{text}`")
}

/// The name in the form that was probably meant: `Github.PullRequest` gives `github.pull_request`.
/// A category is one word, as it is mostly a name: `GitHub.Push` gives `github.push`. A single word
/// is given back, too, though it lacks its category.
fn corrected(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut after_lower = false;
    let has_category = text.contains(['/', ':', '.']);
    for c in text.chars() {
        match c {
            'A'..='Z' => {
                if after_lower && (!has_category || name.contains('.')) {
                    name.push('_');
                }
                name.push(c.to_ascii_lowercase());
            }
            '-' | ' ' => name.push('_'),
            '/' | ':' | '.' => {
                if !name.ends_with('.') {
                    name.push('.');
                }
            }
            other => name.push(other),
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    let name = name.trim_matches('.');
    (is_pattern(name) || is_pattern(&format!("{name}.x"))).then(|| name.to_owned())
}

/// An event type for a Rust type without one: `GithubPush` gives `github.push`.
pub(crate) fn event_type_of_struct(rust_type: &str) -> String {
    let words = snake_case(rust_type);
    match words.split_once('_') {
        Some((category, name)) => format!("{category}.{name}"),
        None => format!("category.{words}"),
    }
}

/// An event type for a variant without one: `Opened` of `ProjectEvent` gives `project.opened`.
pub(crate) fn event_type_of_variant(rust_type: &str, variant: &str) -> String {
    let category = match rust_type
        .trim_end_matches("Events")
        .trim_end_matches("Event")
    {
        "" => "category".to_owned(),
        some => snake_case(some),
    };
    format!("{category}.{}", snake_case(variant))
}

fn snake_case(name: &str) -> String {
    corrected(name).unwrap_or_else(|| "name".to_owned())
}

/// The word of `among` that was probably meant by `word`.
pub(crate) fn nearest<'a>(word: &str, among: &[&'a str]) -> Option<&'a str> {
    among
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be added, removed or changed to get from one word to the other
/// (Levenshtein's distance).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// Words for a message: `` `a`, `b` and `c` ``.
pub(crate) fn listed<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("`{}`", w.as_ref())).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_event_core() {
        let mut texts = vec![String::new()];
        for length in 0..6 {
            let shorter: Vec<_> = texts
                .iter()
                .filter(|t| t.len() == length)
                .cloned()
                .collect();
            for text in shorter {
                texts.extend("aZ0_.*-".chars().map(|c| format!("{text}{c}")));
            }
        }
        for text in texts {
            assert_eq!(
                is_event_type(&text),
                event_core::is_event_type(&text),
                "{text}"
            );
            assert_eq!(is_pattern(&text), event_core::is_pattern(&text), "{text}");
        }
    }

    #[test]
    fn the_obvious_name_is_suggested() {
        for (text, name) in [
            ("Github.Push", "github.push"),
            ("GitHub.Push", "github.push"),
            ("GitHub.PullRequest", "github.pull_request"),
            ("sdlc.phaseChanged", "sdlc.phase_changed"),
            ("github.pull-request", "github.pull_request"),
            ("github::push", "github.push"),
            (".github.push.", "github.push"),
            ("Push", "push"),
        ] {
            assert_eq!(corrected(text).as_deref(), Some(name));
        }
        assert_eq!(corrected("9.push"), None);
        assert_eq!(event_type_of_struct("GithubPrOpened"), "github.pr_opened");
        assert_eq!(event_type_of_struct("Pinged"), "category.pinged");
        assert_eq!(
            event_type_of_variant("ProjectEvent", "PhaseChanged"),
            "project.phase_changed"
        );
        assert_eq!(event_type_of_variant("Event", "Opened"), "category.opened");
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("realtme", &["key", "realtime"]), Some("realtime"));
        assert_eq!(nearest("ky", &["key", "realtime"]), Some("key"));
        assert_eq!(nearest("version", &["key", "realtime", "crate"]), None);
    }
}
