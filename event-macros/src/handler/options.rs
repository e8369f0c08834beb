//! The options of `#[event_handler(…)]`.

use proc_macro2::{Ident, TokenStream};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{LitStr, Token, bracketed, token};

use super::policy::{self, Policy};
use crate::arguments::{Argument, Named, Seen};
use crate::core_path::CorePath;
use crate::errors::Errors;
use crate::source::text;

/// What was written between the parentheses.
pub(super) struct Options {
    /// The path of event-core.
    pub(super) core: CorePath,
    /// The group that the handlers run in.
    pub(super) group: Option<LitStr>,
    /// Where the group begins to read, and the whole option for messages.
    pub(super) start: Option<(Start, TokenStream)>,
    /// The word `realtime`.
    pub(super) realtime: Option<Ident>,
    /// Failures and delivery.
    pub(super) policy: Policy,
    /// The patterns of a function.
    pub(super) on: Vec<LitStr>,
    /// The emitted types of a function.
    pub(super) emits: Vec<LitStr>,
    /// Whether something in the place of `on` was reported already.
    pub(super) on_reported: bool,
    /// Whether something in the place of `emits` was reported already.
    pub(super) emits_reported: bool,
    /// Which options were written.
    pub(super) seen: Seen,
}

/// Where a group begins to read.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Beginning,
    Now,
}

/// What the attribute stands on.
pub(super) enum Target {
    Struct,
    Impl,
    Function,
}

impl Target {
    pub(super) fn options(&self) -> &'static [&'static str] {
        match self {
            Target::Struct => &["crate"],
            Target::Impl => &[
                "group",
                "realtime",
                "start",
                "retry",
                "timeout",
                "on_exhausted",
                "delivery",
                "replay",
                "crate",
            ],
            Target::Function => &[
                "on",
                "emits",
                "group",
                "realtime",
                "start",
                "retry",
                "timeout",
                "on_exhausted",
                "delivery",
                "replay",
                "crate",
            ],
        }
    }
}

impl Options {
    // On a struct:
    //   #[event_handler]
    //   #[event_handler(crate = my::event_core)]
    // On an impl block:
    //   #[event_handler(group = "repo-agent", start = now)]
    //   #[event_handler(start = beginning)]
    //   #[event_handler(realtime)]
    //   #[event_handler(retry(max = 3), timeout = "5s", on_exhausted = skip)]
    //   #[event_handler(delivery = parallel, replay = allow)]
    // On a function: the same, and
    //   #[event_handler(on = "github.push", emits = "repository.analyzed")]
    //   #[event_handler(on = ["github.push", "github.pr.*"])]
    pub(super) fn parse(tokens: TokenStream, target: &Target, errors: &mut Errors) -> Self {
        let mut options = Self {
            core: CorePath::default(),
            group: None,
            start: None,
            realtime: None,
            policy: Policy::default(),
            on: Vec::new(),
            emits: Vec::new(),
            on_reported: false,
            emits_reported: false,
            seen: Seen::default(),
        };
        for argument in Argument::list(tokens, errors) {
            match argument {
                Argument::Named(named) => options.option(&named, target, errors),
                Argument::Text(literal) => options.unnamed(&literal, target, errors),
                Argument::Other(tokens) => errors.at(
                    &tokens,
                    format!(
                        "`{}` is no option; write options as `name` or `name = value`",
                        text(&tokens)
                    ),
                ),
            }
        }
        options
    }

    fn option(&mut self, named: &Named, target: &Target, errors: &mut Errors) {
        let name = named.name.to_string();
        let known = target.options();
        match (name.as_str(), target) {
            ("on" | "emits", Target::Impl) => errors.at(
                &named.name,
                format!("`{name}` belongs to one handler; write `#[{name}(\"…\")]` above a method"),
            ),
            (option, Target::Struct)
                if Target::Function.options().contains(&option) && !known.contains(&option) =>
            {
                errors.at(
                    &named.name,
                    format!(
                        "`{name}` belongs to handlers; write it at `#[event_handler]` on the \
                         `impl` block"
                    ),
                );
            }
            (option, _) if !known.contains(&option) => named.unknown(known, errors),
            _ if !self.seen.first(named, errors) => {}
            (option, _) if policy::OPTIONS.contains(&option) => self.policy.option(named, errors),
            ("crate", _) => {
                if let Some(core) = named.value("path::to::event_core", errors) {
                    self.core = core;
                }
            }
            ("group", _) => self.group = named.value("\"name\"", errors),
            ("start", _) => {
                self.start = named
                    .value("now` or `start = beginning", errors)
                    .map(|start| (start, named.tokens()));
            }
            ("realtime", _) => {
                named.flag(errors);
                self.realtime = Some(named.name.clone());
            }
            ("on", _) => match named.value("\"github.push\"", errors) {
                Some(Texts(texts)) => self.on = texts,
                None => self.on_reported = true,
            },
            _ => match named.value("\"repository.analyzed\"", errors) {
                Some(Texts(texts)) => self.emits = texts,
                None => self.emits_reported = true,
            },
        }
    }

    /// `#[event_handler("github.push")]`.
    fn unnamed(&mut self, literal: &LitStr, target: &Target, errors: &mut Errors) {
        let pattern = literal.value();
        let message = match target {
            Target::Function => {
                self.on_reported = true;
                format!("write `on = \"{pattern}\"`")
            }
            Target::Impl => format!("write `#[on(\"{pattern}\")]` above a method"),
            Target::Struct => {
                format!("write `#[on(\"{pattern}\")]` above a method in the `impl` block")
            }
        };
        errors.at(literal, message);
    }
}

/// One string, or several in brackets.
struct Texts(Vec<LitStr>);

impl Parse for Texts {
    // "github.push"
    // ["github.push", "github.pr.*"]
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if !input.peek(token::Bracket) {
            return Ok(Self(vec![input.parse()?]));
        }
        let content;
        bracketed!(content in input);
        let texts = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
        Ok(Self(texts.into_iter().collect()))
    }
}

impl Parse for Start {
    // now
    // beginning
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let word: Ident = input.parse()?;
        match word.to_string().as_str() {
            "now" => Ok(Start::Now),
            "beginning" => Ok(Start::Beginning),
            _ => Err(syn::Error::new_spanned(
                word,
                "neither `now` nor `beginning`",
            )),
        }
    }
}
