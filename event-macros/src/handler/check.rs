//! What must hold of a handler, as far as its text alone can tell. What needs to know types is
//! checked by the compiler, with the assertions of `expand`.

use quote::ToTokens;
use syn::{ItemImpl, LitStr, ReceiverKind, Type};

use super::method::Method;
use super::options::Options;
use super::parameter::Parameter;
use super::policy::{OnExhausted, Policy, Retry};
use crate::errors::Errors;
use crate::names::{
    is_event_type, is_pattern, leaves_category_open, refuse_event_type, refuse_pattern,
};

/// Checks the head of an `impl` block.
pub(super) fn check_impl(item: &ItemImpl, options: &Options, errors: &mut Errors) {
    if let Some((path, _)) = &item.trait_ {
        errors.at(
            path,
            "handlers are methods of the struct itself; move them to an `impl` block without a \
             trait",
        );
    }
    if !item.generics.params.is_empty() {
        errors.at(
            &item.generics,
            "a service makes one value of each struct, so a struct with handlers cannot be \
             generic; remove the parameters",
        );
    }
    check_options(options, errors);
}

/// Checks what only a function can have.
pub(super) fn check_function(method: &Method<'_>, options: &Options, errors: &mut Errors) {
    if let Some(receiver) = method.receiver {
        errors.at(
            receiver,
            "this is a method; write `#[on(\"…\")]` above it, and `#[event_handler]` above its \
             `impl` block",
        );
    } else if !method.attributes.has_on {
        errors.at(
            &method.signature.ident,
            format!(
                "`{}` reacts to nothing; write `#[event_handler(on = \"github.push\")]`",
                method.name
            ),
        );
    }
    check_options(options, errors);
}

fn check_options(options: &Options, errors: &mut Errors) {
    if let Some(group) = &options.group
        && group.value().trim().is_empty()
    {
        errors.at(
            group,
            "a group needs a name; write one, or leave `group` out",
        );
    }
    if let (Some(_), Some((_, start))) = (&options.realtime, &options.start) {
        errors.at(
            start,
            "realtime events are kept nowhere, so there is nothing to start at; remove `start`",
        );
    }
    check_policy(&options.policy, options, errors);
}

fn check_policy(policy: &Policy, options: &Options, errors: &mut Errors) {
    if let Some(retry) = &policy.retry {
        check_retry(retry, errors);
    }
    if let Some(timeout) = &policy.timeout
        && timeout.value.is_zero()
    {
        errors.at(
            &timeout.tokens,
            "a call that may take no time is always broken off; write how long it may take, as in \
             `timeout = \"5s\"`, or leave `timeout` out",
        );
    }
    if options.realtime.is_none() {
        return;
    }
    if let Some(on_exhausted) = &policy.on_exhausted
        && on_exhausted.value != OnExhausted::Skip
    {
        errors.at(
            &on_exhausted.tokens,
            "realtime events are kept nowhere, so one that cannot be handled is always left out; \
             write `on_exhausted = skip`, or leave `on_exhausted` out",
        );
    }
    if let Some(delivery) = &policy.delivery {
        errors.at(
            &delivery.tokens,
            "realtime events reach every instance, as they are sent; remove `delivery`, or \
             `realtime`",
        );
    }
    if let Some(replay) = &policy.replay {
        errors.at(
            &replay.tokens,
            "realtime events are kept nowhere, so that none can come again; remove `replay`, or \
             `realtime`",
        );
    }
}

fn check_retry(retry: &Retry, errors: &mut Errors) {
    if let Some(max) = &retry.max
        && max.value == 0
    {
        errors.at(
            &max.tokens,
            "a handler is called once at least; write `max = 1` for one attempt and no more",
        );
    }
    if retry.duration_reported || retry.base() <= retry.max_delay() {
        return;
    }
    match (&retry.base, &retry.max_delay) {
        (Some(base), Some(max_delay)) => errors.at(
            &base.tokens,
            format!(
                "`base` is longer than `max_delay`; write `base = {}` or less, or a longer \
                 `max_delay`",
                max_delay.tokens
            ),
        ),
        (Some(base), None) => errors.at(
            &base.tokens,
            format!(
                "`base` is longer than `max_delay`, which is 30s by default; write \
                 `max_delay = {}` or more beside it, or a shorter `base`",
                base.tokens
            ),
        ),
        (None, max_delay) => {
            let max_delay = max_delay.as_ref().map(|written| &written.tokens);
            let max_delay = max_delay.to_token_stream();
            errors.at(
                &max_delay,
                format!(
                    "`max_delay` is shorter than `base`, which is 100ms by default; write \
                     `base = {max_delay}` or less beside it, or a longer `max_delay`"
                ),
            );
        }
    }
}

/// Checks one handler.
pub(super) fn check_method(method: &Method<'_>, options: &Options, errors: &mut Errors) {
    check_policy(&method.attributes.policy, options, errors);
    check_signature(method, errors);
    check_parameters(method, errors);
    check_on(method, options, errors);
    check_emits(method, errors);
}

fn check_signature(method: &Method<'_>, errors: &mut Errors) {
    let signature = method.signature;
    let name = &signature.ident;
    if signature.asyncness.is_none() {
        errors.at(
            signature.fn_token,
            format!("a handler is asynchronous; write `async fn {name}`"),
        );
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        errors.at(token, "a handler is called by the service; remove `unsafe`");
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
    if method.owner.is_none() {
        return;
    }
    match method.receiver {
        None => errors.at(
            name,
            format!(
                "a handler in an `impl` block is a method; write `async fn {name}(&self, …)`, or \
                 make it a function with `#[event_handler(on = \"…\")]`"
            ),
        ),
        Some(receiver) => {
            let shared = match &receiver.kind {
                ReceiverKind::Reference(_, lifetime, None) => lifetime.is_none(),
                ReceiverKind::Typed(_, ty) => is_shared_self(ty),
                _ => false,
            };
            if !shared || receiver.mutability.is_some() {
                errors.at(
                    receiver,
                    "handlers share their struct; write `&self`, with what changes behind a lock",
                );
            }
        }
    }
}

/// Whether it is `&Self`.
fn is_shared_self(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Reference(reference)
            if reference.mutability.is_none()
                && matches!(&*reference.elem, Type::Path(path) if path.path.is_ident("Self"))
    )
}

fn check_parameters(method: &Method<'_>, errors: &mut Errors) {
    let mut events = 0;
    let mut contexts = 0;
    let mut refused = false;
    for parameter in &method.parameters {
        match parameter {
            Parameter::Event(event) => {
                events += 1;
                if events > 1 {
                    errors.at(
                        &event.ty,
                        "a handler takes one event; for several types write an enum with \
                         `#[derive(Event)]`, or take `&RecordedEvent`; what else it needs is a \
                         field of its struct",
                    );
                }
            }
            Parameter::Context(ty) => {
                contexts += 1;
                if contexts > 1 {
                    errors.at(ty, "there is one context; remove this parameter");
                }
            }
            Parameter::Refused => refused = true,
        }
    }
    if events == 0 && !refused {
        errors.at(
            &method.signature.ident,
            format!(
                "`{}` takes no event; add a parameter such as `event: GithubPush`, or \
                 `event: &RecordedEvent` for events of any type",
                method.signature.ident
            ),
        );
    }
}

fn check_on(method: &Method<'_>, options: &Options, errors: &mut Errors) {
    let attributes = &method.attributes;
    if let (false, Some(emits), Some(_)) =
        (attributes.has_on, &attributes.first_emits, method.owner)
    {
        errors.at(
            emits,
            format!(
                "`{}` reacts to nothing; write `#[on(\"github.push\")]` above it, too",
                method.signature.ident
            ),
        );
    }
    for pattern in &attributes.on {
        let text = pattern.value();
        if !is_pattern(&text) {
            errors.at(pattern, refuse_pattern(&text));
        } else if leaves_category_open(&text) && options.realtime.is_none() {
            errors.at(
                pattern,
                format!(
                    "`{text}` leaves the category open, and stored events are read category by \
                     category; write the category in full, as in `github.*`, or add `realtime` to \
                     `#[event_handler]`"
                ),
            );
        }
    }
    check_distinct("on", &attributes.on, errors);
}

fn check_emits(method: &Method<'_>, errors: &mut Errors) {
    let nothing = method.returns_nothing();
    for event_type in &method.attributes.emits {
        let text = event_type.value();
        if !is_event_type(&text) {
            errors.at(event_type, refuse_event_type(&text));
        } else if nothing {
            errors.at(
                event_type,
                format!(
                    "`{}` returns nothing, so it emits nothing; return the event, or remove \
                     `{text}` here",
                    method.signature.ident
                ),
            );
        }
    }
    check_distinct("emits", &method.attributes.emits, errors);
    if let Some(open) = method.open_output() {
        errors.at(
            open,
            "what a handler returns says which events it emits, and `impl` leaves that open; \
             write the type",
        );
    }
}

fn check_distinct(attribute: &str, texts: &[LitStr], errors: &mut Errors) {
    for (index, text) in texts.iter().enumerate() {
        if texts[..index]
            .iter()
            .any(|earlier| earlier.value() == text.value())
        {
            errors.at(
                text,
                format!(
                    "`{}` is given to `{attribute}` twice; remove one of them",
                    text.value()
                ),
            );
        }
    }
}
