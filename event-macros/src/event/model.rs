//! What was written: a type, its event types and their options. Only the form of each option is
//! checked here, not whether they fit together.

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Data, DeriveInput, Expr, Fields, Generics, LitInt, LitStr, Member, Token};

use crate::arguments::{Argument, Named, Seen};
use crate::core_path::CorePath;
use crate::errors::Errors;
use crate::source::text;

/// A type that is to be an event.
pub(super) struct EventItem<'a> {
    /// The type's name.
    pub(super) ident: &'a Ident,
    /// Its generic parameters; there must be none.
    pub(super) generics: &'a Generics,
    /// Its attributes, among which are serde's.
    pub(super) attributes: &'a [Attribute],
    /// The path of event-core.
    pub(super) core: CorePath,
    /// Struct or enum.
    pub(super) shape: Shape<'a>,
    /// What an enum has no more.
    pub(super) past: Past,
}

/// Struct or enum.
pub(super) enum Shape<'a> {
    /// A struct, which is one event type.
    Struct(EventType<'a>),
    /// An enum, of which each variant is one.
    Enum(Vec<EventType<'a>>),
    /// A union, which cannot be an event.
    Union(&'a syn::Token![union]),
}

/// A struct or a variant.
pub(super) struct EventType<'a> {
    /// Its name in Rust.
    pub(super) ident: &'a Ident,
    /// Its fields.
    pub(super) fields: &'a Fields,
    /// Its attributes, among which are serde's.
    pub(super) attributes: &'a [Attribute],
    /// Its name as an event.
    pub(super) name: Name,
    /// The field that is its key.
    pub(super) key: Option<Key>,
    /// Whether it is sent and not kept.
    pub(super) realtime: bool,
    /// How its shape has changed.
    pub(super) changes: Changes,
}

/// How the shape of an event type has changed.
#[derive(Default)]
pub(super) struct Changes {
    /// The version that is written, as it was written down.
    pub(super) version: Option<LitInt>,
    /// Whether something in its place was reported already.
    pub(super) version_reported: bool,
    /// For each older version what makes the next one of it.
    pub(super) upcasts: Vec<Pair<LitInt>>,
    /// The option `upcast`, for messages.
    pub(super) upcast: Option<Ident>,
    /// Whether something in it was reported already.
    pub(super) upcast_reported: bool,
    /// What it was called before.
    pub(super) formerly: Vec<LitStr>,
    /// The option `formerly`, for messages.
    pub(super) formerly_option: Option<Ident>,
}

/// Types of events that an enum had, and has no more.
#[derive(Default)]
pub(super) struct Past {
    /// Those that are passed over.
    pub(super) retired: Vec<LitStr>,
    /// Those that are read as others.
    pub(super) split: Vec<Pair<LitStr>>,
}

/// `1 = function`, `"sdlc.project.created" = function`.
pub(super) struct Pair<K> {
    pub(super) key: K,
    pub(super) function: Expr,
}

impl<K: Parse> Parse for Pair<K> {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = input.parse()?;
        input.parse::<Token![=]>()?;
        let function = input.parse()?;
        Ok(Self { key, function })
    }
}

/// The name of an event type.
pub(super) enum Name {
    /// It was given.
    Given(LitStr),
    /// There is none.
    Missing,
    /// There is something in its place that was reported already.
    Reported,
}

/// `key = repository`, `key = 0`.
pub(super) struct Key {
    /// The field.
    pub(super) member: Member,
    /// The field as it was written, for messages.
    pub(super) tokens: TokenStream,
}

/// Where an `#[event(…)]` stands.
enum Place {
    Struct,
    Enum,
    Variant,
}

/// The arguments of all `#[event(…)]` of one place.
struct EventArguments {
    name: Name,
    key: Option<Key>,
    realtime: bool,
    changes: Changes,
    past: Past,
    core: Option<CorePath>,
}

impl<'a> EventItem<'a> {
    pub(super) fn parse(input: &'a DeriveInput, errors: &mut Errors) -> Self {
        let mut past = Past::default();
        let (core, shape) = match &input.data {
            Data::Struct(data) => {
                let mut arguments = EventArguments::parse(&input.attrs, &Place::Struct, errors);
                let core = arguments.core.take();
                let one = EventType::new(&input.ident, &data.fields, &input.attrs, arguments);
                (core, Shape::Struct(one))
            }
            Data::Enum(data) => {
                let mut on_enum = EventArguments::parse(&input.attrs, &Place::Enum, errors);
                past = std::mem::take(&mut on_enum.past);
                let variants = data.variants.iter().map(|variant| {
                    let arguments = EventArguments::parse(&variant.attrs, &Place::Variant, errors);
                    EventType::new(&variant.ident, &variant.fields, &variant.attrs, arguments)
                });
                let variants = variants.collect();
                (on_enum.core, Shape::Enum(variants))
            }
            Data::Union(data) => (None, Shape::Union(&data.union_token)),
        };
        Self {
            ident: &input.ident,
            generics: &input.generics,
            attributes: &input.attrs,
            core: core.unwrap_or_default(),
            shape,
            past,
        }
    }
}

impl<'a> EventType<'a> {
    fn new(
        ident: &'a Ident,
        fields: &'a Fields,
        attributes: &'a [Attribute],
        arguments: EventArguments,
    ) -> Self {
        Self {
            ident,
            fields,
            attributes,
            name: arguments.name,
            key: arguments.key,
            realtime: arguments.realtime,
            changes: arguments.changes,
        }
    }
}

impl EventArguments {
    // On a struct:
    //   #[event("github.push")]
    //   #[event("github.push", key = repository)]
    //   #[event("github.push", key = 0)]               (tuple struct)
    //   #[event("ai.response.chunk", realtime)]
    //   #[event("github.push", version = 3, upcast(1 = add_branch, 2 = rename_branch))]
    //   #[event("github.push", formerly = "github.pushed")]
    //   #[event("github.push", formerly("github.pushed", "github.commits"))]
    //   #[event("github.push", crate = my::event_core)]
    // On a variant: the same without `crate`.
    // On an enum:
    //   #[event(crate = my::event_core)]
    //   #[event(retired("sdlc.project.pinned", "sdlc.project.unpinned"))]
    //   #[event(split("sdlc.project.created" = split_created))]
    fn parse(attributes: &[Attribute], place: &Place, errors: &mut Errors) -> Self {
        let mut found = Self {
            name: Name::Missing,
            key: None,
            realtime: false,
            changes: Changes::default(),
            past: Past::default(),
            core: None,
        };
        let mut seen = Seen::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("event")) {
            let before = errors.count();
            let arguments = Argument::of(attribute, errors);
            if errors.count() > before && arguments.is_empty() {
                found.name = Name::Reported;
            }
            for argument in arguments {
                match argument {
                    Argument::Text(name) => found.name(name, place, errors),
                    Argument::Named(named) if named.name == "name" || named.name == "type" => {
                        found.named_name(&named, place, errors);
                    }
                    Argument::Named(named) => found.option(&named, place, &mut seen, errors),
                    Argument::Other(tokens) => found.other(&tokens, errors),
                }
            }
        }
        found
    }

    fn name(&mut self, name: LitStr, place: &Place, errors: &mut Errors) {
        match (place, &self.name) {
            (Place::Enum, _) => errors.at(
                &name,
                format!(
                    "an enum has no event type of its own; remove it here, and write one on each \
                     variant, as in `#[event(\"{}\")]`",
                    name.value(),
                ),
            ),
            (_, Name::Missing) => self.name = Name::Given(name),
            _ => errors.at(&name, "an event has one type; remove this one"),
        }
    }

    /// `name = "github.push"` instead of `"github.push"`.
    fn named_name(&mut self, named: &Named, place: &Place, errors: &mut Errors) {
        let option = &named.name;
        let Some(name) = named.value::<LitStr>("\"github.push\"", errors) else {
            return;
        };
        if let Place::Enum = place {
            return self.name(name, place, errors);
        }
        self.name = Name::Reported;
        errors.at(
            option,
            format!(
                "the event type stands alone; write `#[event(\"{}\")]`",
                name.value()
            ),
        );
    }

    fn option(&mut self, named: &Named, place: &Place, seen: &mut Seen, errors: &mut Errors) {
        let known: &[&str] = match place {
            Place::Struct => &["key", "realtime", "version", "upcast", "formerly", "crate"],
            Place::Enum => &["retired", "split", "crate"],
            Place::Variant => &["key", "realtime", "version", "upcast", "formerly"],
        };
        let name = named.name.to_string();
        match (name.as_str(), place) {
            ("key" | "realtime" | "version" | "upcast" | "formerly", Place::Enum) => errors.at(
                &named.name,
                format!(
                    "`{name}` belongs to one event type; write it on a variant, after its type"
                ),
            ),
            ("crate", Place::Variant) => errors.at(
                &named.name,
                "`crate` is one for all variants; write `#[event(crate = …)]` on the enum",
            ),
            ("retired" | "split", Place::Struct | Place::Variant) => errors.at(
                &named.name,
                format!(
                    "`{name}` names a type that an enum of events has no more; write it on the enum"
                ),
            ),
            (option, _) if !known.contains(&option) => named.unknown(known, errors),
            _ if !seen.first(named, errors) => {}
            ("key", _) => self.key = Key::parse(named, errors),
            ("realtime", _) => {
                named.flag(errors);
                self.realtime = true;
            }
            ("version", _) => {
                self.changes.version = named.value("2", errors);
                self.changes.version_reported = self.changes.version.is_none();
            }
            ("upcast", _) => {
                self.changes.upcast = Some(named.name.clone());
                let before = errors.count();
                self.changes.upcasts = named.list("1 = function", errors);
                self.changes.upcast_reported = errors.count() > before;
            }
            ("formerly", _) => {
                self.changes.formerly_option = Some(named.name.clone());
                self.changes.formerly = named.one_or_list("\"github.pushed\"", errors);
            }
            ("retired", _) => {
                self.past.retired = named.one_or_list("\"github.pushed\"", errors);
            }
            ("split", _) => {
                self.past.split = named.list("\"github.pushed\" = function", errors);
            }
            _ => self.core = named.value("path::to::event_core", errors),
        }
    }

    /// `github.push` instead of `"github.push"`.
    fn other(&mut self, tokens: &TokenStream, errors: &mut Errors) {
        let written = text(tokens);
        if let Name::Missing = self.name {
            self.name = Name::Reported;
        }
        errors.at(
            tokens,
            format!(
                "`{written}` is no option; write the event type in quotes, as in \
                 `#[event(\"github.push\")]`, and options as `name` or `name = value`"
            ),
        );
    }
}

impl Key {
    // key = repository
    // key = 0
    fn parse(named: &Named, errors: &mut Errors) -> Option<Self> {
        let tokens = named.value::<TokenStream>("field", errors)?;
        if let Ok(member) = syn::parse2::<Member>(tokens.clone()) {
            return Some(Self { member, tokens });
        }
        match syn::parse2::<LitStr>(tokens.clone()) {
            Ok(quoted) => errors.at(
                &quoted,
                format!("write the field without quotes: `key = {}`", quoted.value()),
            ),
            Err(_) => errors.at(
                &tokens,
                format!(
                    "`{}` is no field; write the name of one field, as in `key = repository`, or \
                     its index, as in `key = 0`",
                    text(&tokens)
                ),
            ),
        }
        None
    }
}

impl ToTokens for Key {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.tokens.to_tokens(tokens);
    }
}
