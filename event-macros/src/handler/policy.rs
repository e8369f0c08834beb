//! What handlers say of failures and delivery: `retry`, `timeout`, `on_exhausted`, `delivery` and
//! `replay`.
//! Only the form of each is checked here, not whether they fit together.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::{Lit, LitInt, LitStr};

use crate::arguments::{Argument, Named, Seen, Value};
use crate::errors::Errors;
use crate::names::quoted;
use crate::source::text;

/// The names of these options.
pub(super) const OPTIONS: [&str; 5] = ["retry", "timeout", "on_exhausted", "delivery", "replay"];

/// The parts of `retry`.
const PARTS: [&str; 3] = ["max", "base", "max_delay"];

/// What was said, of one handler or of all in an `impl` block.
#[derive(Clone, Default)]
pub(super) struct Policy {
    /// How it is called again.
    pub(super) retry: Option<Retry>,
    /// How long one call may take.
    pub(super) timeout: Option<Written<Duration>>,
    /// What becomes of an event after the last attempt.
    pub(super) on_exhausted: Option<Written<OnExhausted>>,
    /// How events are delivered.
    pub(super) delivery: Option<Written<Delivery>>,
    /// Whether events of the past may be given again.
    pub(super) replay: Option<Written<Replay>>,
}

/// A value, and how it was written, for messages.
#[derive(Clone)]
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) tokens: TokenStream,
}

/// The parts of `retry` that were written. The others are those of `event_core::Retry::default()`.
#[derive(Clone, Default)]
pub(super) struct Retry {
    pub(super) max: Option<Written<u32>>,
    pub(super) base: Option<Written<Duration>>,
    pub(super) max_delay: Option<Written<Duration>>,
    /// Whether something in the place of a duration was reported already.
    pub(super) duration_reported: bool,
}

/// What becomes of an event after the last attempt.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum OnExhausted {
    Park,
    Skip,
    Stop,
}

/// How events are delivered.
#[derive(Clone, Copy)]
pub(super) enum Delivery {
    Ordered,
    Parallel,
}

/// Whether events of the past may be given again.
#[derive(Clone, Copy)]
pub(super) enum Replay {
    Allow,
    Refuse,
}

impl Policy {
    // retry(max = 8, base = "100ms", max_delay = "30s")      (each part may be left out)
    // timeout = "5s"
    // on_exhausted = park
    // on_exhausted = skip
    // on_exhausted = stop
    // delivery = ordered
    // delivery = parallel
    // replay = allow
    // replay = refuse
    pub(super) fn option(&mut self, named: &Named, errors: &mut Errors) {
        match named.name.to_string().as_str() {
            "retry" => self.retry = Retry::parse(named, errors),
            "timeout" => self.timeout = duration(named, "5s", errors),
            "on_exhausted" => {
                let example = "park`, `on_exhausted = skip` or `on_exhausted = stop";
                self.on_exhausted = word(named, example, errors);
            }
            "delivery" => {
                let example = "parallel` or `delivery = ordered";
                self.delivery = word(named, example, errors);
            }
            _ => self.replay = word(named, "allow` or `replay = refuse", errors),
        }
    }

    /// What one handler says itself, and else what all of its block say.
    pub(super) fn or(&self, of_all: &Policy) -> Policy {
        fn either<T: Clone>(own: &Option<T>, of_all: &Option<T>) -> Option<T> {
            own.as_ref().or(of_all.as_ref()).cloned()
        }
        Policy {
            retry: either(&self.retry, &of_all.retry),
            timeout: either(&self.timeout, &of_all.timeout),
            on_exhausted: either(&self.on_exhausted, &of_all.on_exhausted),
            delivery: either(&self.delivery, &of_all.delivery),
            replay: either(&self.replay, &of_all.replay),
        }
    }
}

impl Retry {
    /// These are the values of `event_core::Retry::default()`. They are written again because a macro
    /// cannot depend on the crate that it generates code for; a test compares them.
    pub(super) const MAX: u32 = 8;
    pub(super) const BASE: Duration = Duration::from_millis(100);
    pub(super) const MAX_DELAY: Duration = Duration::from_secs(30);

    /// How often a handler is called at most.
    pub(super) fn max(&self) -> u32 {
        self.max.as_ref().map_or(Self::MAX, |max| max.value)
    }

    /// How long it waits first.
    pub(super) fn base(&self) -> Duration {
        self.base.as_ref().map_or(Self::BASE, |base| base.value)
    }

    /// How long it waits at most.
    pub(super) fn max_delay(&self) -> Duration {
        let written = self.max_delay.as_ref();
        written.map_or(Self::MAX_DELAY, |max_delay| max_delay.value)
    }

    fn parse(named: &Named, errors: &mut Errors) -> Option<Self> {
        let Value::Listed(list) = &named.value else {
            let max = match &named.value {
                Value::Assigned(tokens) => syn::parse2::<Count>(tokens.clone()).ok(),
                _ => None,
            };
            let max = max.map_or(Self::MAX, |Count(max)| max);
            errors.at(
                named.tokens(),
                format!("write `retry(max = {max})`, with any of `max`, `base` and `max_delay`"),
            );
            return None;
        };
        let mut retry = Self::default();
        let mut seen = Seen::default();
        let before = errors.count();
        let parts = Argument::list(list.stream(), errors);
        if parts.is_empty() && errors.count() == before {
            errors.at(
                named.tokens(),
                "`retry()` says nothing; write `retry(max = 8)`, with any of `max`, `base` and \
                 `max_delay`, or leave it out",
            );
        }
        for part in parts {
            match part {
                Argument::Named(part) if !PARTS.contains(&part.name.to_string().as_str()) => {
                    part.unknown(&PARTS, errors);
                }
                Argument::Named(part) => {
                    if seen.first(&part, errors) {
                        retry.part(&part, errors);
                    }
                }
                Argument::Text(text) => not_a_part(text.into_token_stream(), errors),
                Argument::Other(tokens) => not_a_part(tokens, errors),
            }
        }
        Some(retry)
    }

    fn part(&mut self, part: &Named, errors: &mut Errors) {
        match part.name.to_string().as_str() {
            "max" => {
                let count = part.value("8", errors);
                self.max = count.map(|Count(max)| Written::of(max, part));
            }
            "base" => {
                self.base = duration(part, "100ms", errors);
                self.duration_reported |= self.base.is_none();
            }
            _ => {
                self.max_delay = duration(part, "30s", errors);
                self.duration_reported |= self.max_delay.is_none();
            }
        }
    }
}

fn not_a_part(tokens: TokenStream, errors: &mut Errors) {
    let written = text(&tokens);
    let remedy = match syn::parse2::<Count>(tokens.clone()) {
        Ok(_) => format!("write `max = {written}`"),
        Err(_) => {
            "write parts as in `max = 8`, `base = \"100ms\"`, `max_delay = \"30s\"`".to_owned()
        }
    };
    errors.at(tokens, format!("`{written}` has no name; {remedy}"));
}

impl<T> Written<T> {
    fn of(value: T, named: &Named) -> Self {
        let tokens = match &named.value {
            Value::Assigned(tokens) => tokens.clone(),
            _ => named.tokens(),
        };
        Self { value, tokens }
    }
}

/// A number of calls.
struct Count(u32);

impl Parse for Count {
    // 8
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let number: LitInt = input.parse()?;
        if !number.suffix().is_empty() {
            return Err(syn::Error::new_spanned(number, "a number with a suffix"));
        }
        number.base10_parse().map(Self)
    }
}

impl Parse for OnExhausted {
    // park
    // skip
    // stop
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let word: Ident = input.parse()?;
        match word.to_string().as_str() {
            "park" => Ok(OnExhausted::Park),
            "skip" => Ok(OnExhausted::Skip),
            "stop" => Ok(OnExhausted::Stop),
            _ => Err(syn::Error::new_spanned(
                word,
                "none of `park`, `skip`, `stop`",
            )),
        }
    }
}

impl Parse for Delivery {
    // ordered
    // parallel
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let word: Ident = input.parse()?;
        match word.to_string().as_str() {
            "ordered" => Ok(Delivery::Ordered),
            "parallel" => Ok(Delivery::Parallel),
            _ => Err(syn::Error::new_spanned(
                word,
                "neither `ordered` nor `parallel`",
            )),
        }
    }
}

impl Parse for Replay {
    // allow
    // refuse
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let word: Ident = input.parse()?;
        match word.to_string().as_str() {
            "allow" => Ok(Replay::Allow),
            "refuse" => Ok(Replay::Refuse),
            _ => Err(syn::Error::new_spanned(
                word,
                "neither `allow` nor `refuse`",
            )),
        }
    }
}

fn word<T: Parse>(named: &Named, example: &str, errors: &mut Errors) -> Option<Written<T>> {
    let value = named.value(example, errors)?;
    Some(Written::of(value, named))
}

/// Reads `name = "5s"`.
fn duration(named: &Named, example: &str, errors: &mut Errors) -> Option<Written<Duration>> {
    let name = &named.name;
    match &named.value {
        // `5s`, `5` and `1.5` are numbers to the compiler.
        Value::Assigned(tokens)
            if matches!(syn::parse2(tokens.clone()), Ok(Lit::Int(_) | Lit::Float(_))) =>
        {
            let written = text(tokens);
            let meant = corrected(&written, example).unwrap_or_else(|| example.to_owned());
            errors.at(
                tokens,
                format!("`{written}` is no value for `{name}`; write `{name} = \"{meant}\"`"),
            );
            return None;
        }
        Value::Listed(list) => {
            let written = match syn::parse2::<LitStr>(list.stream()) {
                Ok(quoted) => quoted.value(),
                Err(_) => text(&list.stream()),
            };
            let meant = corrected(&written, example).unwrap_or_else(|| example.to_owned());
            errors.at(named.tokens(), format!("write `{name} = \"{meant}\"`"));
            return None;
        }
        _ => {}
    }
    let literal: LitStr = named.value(&format!("\"{example}\""), errors)?;
    let written = literal.value();
    if let Some(duration) = read(&written) {
        return Some(Written::of(duration, named));
    }
    let remedy = match corrected(&written, example) {
        Some(meant) => format!("write `{name} = \"{meant}\"`"),
        None => format!(
            "write a whole number and `ms`, `s`, `m` or `h`, as in `{name} = \"{example}\"`"
        ),
    };
    errors.at(
        literal,
        format!("{} is no duration; {remedy}", quoted(&written)),
    );
    None
}

/// The units of durations, the largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number and its unit.
fn read(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let milliseconds = number.parse::<u64>().ok()?.checked_mul(*size)?;
    Some(Duration::from_millis(milliseconds))
}

/// The duration that was probably meant: `5 sec` gives `5s`, `1.5m` gives `90s`. A number alone gets the
/// unit of the example.
fn corrected(text: &str, example: &str) -> Option<String> {
    let text: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '_')
        .collect();
    let text = text.to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = match unit {
        "" => example.trim_start_matches(|c: char| c.is_ascii_digit()),
        unit => unit,
    };
    let size = match unit {
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    let milliseconds = in_milliseconds(number, size)?;
    let (name, size) = UNITS
        .iter()
        .find(|(_, size)| milliseconds.is_multiple_of(*size))?;
    Some(format!("{}{name}", milliseconds / size))
}

/// A number with at most three places behind its point, times `size`; `None` where that is not whole,
/// or nothing.
fn in_milliseconds(number: &str, size: u64) -> Option<u64> {
    let (whole, places) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_u64.checked_pow(u32::try_from(places.len()).ok()?)?;
    let scaled: u64 = format!("{whole}{places}").parse().ok()?;
    let scaled = scaled.checked_mul(size)?;
    (scaled > 0 && scaled.is_multiple_of(scale)).then(|| scaled / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_event_core() {
        let (own, theirs) = (Retry::default(), event_core::Retry::default());
        assert_eq!(own.max(), theirs.max);
        assert_eq!(own.base(), theirs.base);
        assert_eq!(own.max_delay(), theirs.max_delay);
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("0ms", 0),
            ("100ms", 100),
            ("5s", 5_000),
            ("02m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(read(text), Some(Duration::from_millis(milliseconds)));
        }
        for text in [
            "",
            "s",
            "5",
            "5 s",
            "5S",
            "1.5s",
            "-1s",
            "+1s",
            "5s5",
            "1h30m",
            "18446744073709551615s",
            "99999999999999999999ms",
            "٣s",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_obvious_duration_is_suggested() {
        for (text, meant) in [
            ("5", "5s"),
            ("5 sec", "5s"),
            ("5S", "5s"),
            ("1.5m", "90s"),
            (".5s", "500ms"),
            ("1_000ms", "1s"),
            ("2 days", "48h"),
            ("90 minutes", "90m"),
        ] {
            assert_eq!(corrected(text, "5s").as_deref(), Some(meant), "{text}");
            assert!(read(meant).is_some(), "{meant}");
        }
        for text in [
            "",
            "s",
            "soon",
            "0",
            "-1s",
            "0.5ms",
            "1.2.3s",
            "18446744073709551615s",
        ] {
            assert_eq!(corrected(text, "5s"), None, "{text}");
        }
        assert_eq!(corrected("250", "100ms").as_deref(), Some("250ms"));
    }
}
