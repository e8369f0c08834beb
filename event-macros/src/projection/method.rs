//! A method of a projection as it was written.

use quote::ToTokens;
use syn::{Attribute, FnArg, Ident, ImplItemFn, LitStr, ReceiverKind, ReturnType, Type};

use crate::arguments::Argument;
use crate::core_path::CorePath;
use crate::errors::Errors;
use crate::names::{is_pattern, leaves_category_open, refuse_pattern};
use crate::source::text;

/// A method that takes events.
pub(super) struct Method<'a> {
    pub(super) ident: &'a Ident,
    /// Its `#[cfg(…)]`.
    pub(super) cfgs: Vec<&'a Attribute>,
    /// The patterns of the events that it takes.
    pub(super) on: Vec<LitStr>,
    pub(super) parameters: Vec<Parameter>,
    /// The type of the event, without a reference; `()` after a mistake.
    pub(super) event: Type,
    /// What it returns; `()` where nothing is written.
    pub(super) output: Type,
}

/// One parameter of a method, after `&self`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    /// `event: GithubPush`
    Event,
    /// `event: &GithubPush`
    EventReference,
    /// `metadata: &Metadata`
    Metadata,
    /// `writes: &mut Writes`
    Writes,
}

// #[on("github.push")]
// #[on("github.push", "github.pr.*")]
// Each of them any number of times; `#[event_core::on(…)]` is the same.
/// Takes `#[on]` away; `None` where there is none.
pub(super) fn take_on(
    attributes: &mut Vec<Attribute>,
    core: &CorePath,
    errors: &mut Errors,
) -> Option<Vec<LitStr>> {
    let mut found: Option<Vec<LitStr>> = None;
    attributes.retain(|attribute| {
        if is(attribute, "emits", core) {
            errors.at(
                attribute,
                "a projection emits nothing; remove this, or make a handler of the method",
            );
            return false;
        }
        if !is(attribute, "on", core) {
            return true;
        }
        let before = errors.count();
        let patterns = found.get_or_insert_default();
        let known = patterns.len();
        for argument in Argument::of(attribute, errors) {
            match argument {
                Argument::Text(pattern) => patterns.push(pattern),
                Argument::Named(named) => refuse(&named.tokens(), errors),
                Argument::Other(tokens) => refuse(&tokens, errors),
            }
        }
        if patterns.len() == known && errors.count() == before {
            errors.at(
                attribute,
                "`#[on]` names no event type; write `#[on(\"github.push\")]`",
            );
        }
        false
    });
    found
}

fn refuse(tokens: &impl ToTokens, errors: &mut Errors) {
    errors.at(
        tokens,
        format!(
            "`{}` is no string; a method of a projection has event types alone, as in \
             `#[on(\"github.push\")]`",
            text(tokens)
        ),
    );
}

fn is(attribute: &Attribute, name: &str, core: &CorePath) -> bool {
    let path = attribute.path();
    if path.is_ident(name) {
        return true;
    }
    let mut from_last = path.segments.iter().rev().map(|segment| &segment.ident);
    from_last.next().is_some_and(|last| last == name)
        && from_last
            .next()
            .is_some_and(|parent| parent == "event_core" || core.name() == Some(parent))
}

impl<'a> Method<'a> {
    pub(super) fn new(
        function: &'a ImplItemFn,
        on: Vec<LitStr>,
        owner: &Type,
        errors: &mut Errors,
    ) -> Self {
        check_on(&on, errors);
        check_signature(function, errors);
        let mut method = Self {
            ident: &function.sig.ident,
            cfgs: function
                .attrs
                .iter()
                .filter(|attribute| attribute.path().is_ident("cfg"))
                .collect(),
            on,
            parameters: Vec::new(),
            event: syn::parse_quote!(()),
            output: match &function.sig.output {
                ReturnType::Default => syn::parse_quote!(()),
                ReturnType::Type(_, ty) => (**ty).clone(),
            },
        };
        let before = errors.count();
        for input in &function.sig.inputs {
            if let FnArg::Typed(typed) = input {
                method.parameter(&typed.ty, owner, errors);
            }
        }
        if errors.count() == before {
            method.check_parameters(errors);
        }
        method
    }

    // event: GithubPush
    // event: &GithubPush
    // event: &RecordedEvent
    // metadata: &Metadata
    // writes: &mut Writes
    fn parameter(&mut self, ty: &Type, owner: &Type, errors: &mut Errors) {
        let (parameter, inner) = match ty {
            Type::Reference(reference) => {
                let inner = &*reference.elem;
                let name = last_segment(inner);
                match (name.as_deref(), reference.mutability.is_some()) {
                    (Some("Writes"), true) => (Parameter::Writes, inner),
                    (Some("Writes"), false) => {
                        errors.at(ty, "a method writes to it; write `&mut Writes`");
                        return;
                    }
                    (Some("Metadata"), false) => (Parameter::Metadata, inner),
                    (_, true) => {
                        errors.at(
                            ty,
                            "a projection cannot change what it is given; remove `mut`, or take \
                             the event by value",
                        );
                        return;
                    }
                    (_, false) => (Parameter::EventReference, inner),
                }
            }
            other if last_segment(other).as_deref() == Some("Writes") => {
                errors.at(ty, "a method writes to it; write `&mut Writes`");
                return;
            }
            other => (Parameter::Event, other),
        };
        let is_event = |p: &Parameter| matches!(p, Parameter::Event | Parameter::EventReference);
        if is_event(&parameter) {
            if self.parameters.iter().any(is_event) {
                errors.at(
                    ty,
                    format!(
                        "a method of a projection takes one event, and what else it needs is a \
                         field of `{}`; for several types write an enum with `#[derive(Event)]`",
                        text(owner)
                    ),
                );
                return;
            }
            if let Type::ImplTrait(_) = inner {
                errors.at(
                    inner,
                    "here the type is left open; write the type of the event, or \
                     `&RecordedEvent` for events of any type",
                );
                return;
            }
            self.event = inner.clone();
        } else if self.parameters.contains(&parameter) {
            errors.at(ty, "this is given once; remove the parameter");
            return;
        }
        self.parameters.push(parameter);
    }

    fn check_parameters(&self, errors: &mut Errors) {
        let has = |parameter| self.parameters.contains(&parameter);
        let name = self.ident;
        if !has(Parameter::Event) && !has(Parameter::EventReference) {
            errors.at(
                name,
                format!(
                    "`{name}` takes no event; add a parameter such as `event: GithubPush`, or \
                     `event: &RecordedEvent` for events of any type"
                ),
            );
        }
        if !has(Parameter::Writes) {
            errors.at(
                name,
                format!("`{name}` writes nothing; add the parameter `writes: &mut Writes`"),
            );
        }
    }
}

fn check_on(on: &[LitStr], errors: &mut Errors) {
    for pattern in on {
        let text = pattern.value();
        if !is_pattern(&text) {
            errors.at(pattern, refuse_pattern(&text));
        } else if leaves_category_open(&text) {
            errors.at(
                pattern,
                format!(
                    "`{text}` leaves the category open, and stored events are read category by \
                     category; write the category in full, as in `github.*`"
                ),
            );
        }
    }
}

fn check_signature(function: &ImplItemFn, errors: &mut Errors) {
    let signature = &function.sig;
    let name = &signature.ident;
    if let Some(token) = &signature.asyncness {
        errors.at(
            token,
            "what a projection writes depends on the event alone, so there is nothing to wait \
             for; remove `async`",
        );
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        errors.at(token, "it is called by the service; remove `unsafe`");
    }
    if !signature.generics.params.is_empty() {
        errors.at(
            &signature.generics,
            format!(
                "a service calls `{name}` with one type, so it cannot be generic; write the types \
                 out, and references without lifetimes"
            ),
        );
    }
    let receiver = signature.inputs.first().and_then(|input| match input {
        FnArg::Receiver(receiver) => Some(receiver),
        FnArg::Typed(_) => None,
    });
    match receiver {
        None => errors.at(
            name,
            format!("this is a method; write `fn {name}(&self, …)`"),
        ),
        Some(receiver) => {
            let is_shared = matches!(&receiver.kind, ReceiverKind::Reference(_, _, None));
            if !is_shared || receiver.mutability.is_some() {
                errors.at(
                    receiver,
                    "a projection remembers nothing but what it writes; write `&self`",
                );
            }
        }
    }
}

fn last_segment(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}
