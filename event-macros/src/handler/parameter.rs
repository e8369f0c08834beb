//! The parameters of a handler: one event, and the context where it is wanted.

use syn::Type;

use crate::errors::Errors;

/// One parameter of a handler.
pub(super) enum Parameter {
    /// The event.
    Event(EventParameter),
    /// The context.
    Context(Type),
    /// Something that was reported already.
    Refused,
}

/// The event that a handler takes.
pub(super) struct EventParameter {
    /// Its type, without the reference.
    pub(super) ty: Type,
    /// How it is taken.
    pub(super) passed: Passed,
}

/// How an event is taken.
pub(super) enum Passed {
    /// `event: GithubPush`
    ByValue,
    /// `event: &GithubPush`
    ByReference,
    /// `event: &RecordedEvent`, which need not be read.
    AsRecorded,
}

impl Parameter {
    // event: GithubPush
    // event: &GithubPush
    // event: RecordedEvent
    // event: &RecordedEvent
    // context: &Context
    pub(super) fn parse(ty: Type, errors: &mut Errors) -> Self {
        let (ty, reference) = match ty {
            Type::Reference(reference) => {
                if let Some(mutability) = reference.mutability {
                    errors.at(
                        mutability,
                        "a handler cannot change what it is given; remove `mut`, or take the \
                         event by value",
                    );
                    return Parameter::Refused;
                }
                (*reference.elem, true)
            }
            Type::Paren(inner) => return Self::parse(*inner.elem, errors),
            Type::Group(inner) => return Self::parse(*inner.elem, errors),
            other => (other, false),
        };
        if let Type::ImplTrait(open) = &ty {
            errors.at(
                open,
                "a handler is not generic, and here the type is left open; write the type of the \
                 event, or `&RecordedEvent` for events of any type",
            );
            return Parameter::Refused;
        }
        if is_unsized(&ty) {
            errors.at(
                &ty,
                "a handler takes an event; write the event's type, or `&RecordedEvent` for events \
                 of any type",
            );
            return Parameter::Refused;
        }
        match (last_segment(&ty).as_deref(), reference) {
            (Some("Context"), true) => Parameter::Context(ty),
            (Some("Context"), false) => {
                errors.at(&ty, "the context is lent to the handler; write `&Context`");
                Parameter::Refused
            }
            (Some("RecordedEvent"), true) => Self::event(ty, Passed::AsRecorded),
            (_, true) => Self::event(ty, Passed::ByReference),
            (_, false) => Self::event(ty, Passed::ByValue),
        }
    }

    fn event(ty: Type, passed: Passed) -> Self {
        Parameter::Event(EventParameter { ty, passed })
    }
}

/// Whether it is plain to see that values of the type have no size, such as `str`.
fn is_unsized(ty: &Type) -> bool {
    match ty {
        Type::Slice(_) | Type::TraitObject(_) => true,
        Type::Path(path) => path.path.is_ident("str"),
        _ => false,
    }
}

fn last_segment(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}
