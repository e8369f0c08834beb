//! What must hold between the parts of an event type.

use proc_macro2::{Ident, TokenStream};
use syn::{Attribute, Fields, Member};

use super::model::{EventItem, EventType, Name, Shape};
use crate::arguments::Argument;
use crate::errors::Errors;
use crate::names::{
    event_type_of_struct, event_type_of_variant, is_event_type, listed, refuse_event_type,
};

/// Checks everything that can be known of one item.
pub(super) fn check(item: &EventItem<'_>, errors: &mut Errors) {
    if !item.generics.params.is_empty() {
        errors.at(
            item.generics,
            format!(
                "an event type is one Rust type, so `{}` cannot be generic; write a type for each, \
                 or an enum in the field",
                item.ident
            ),
        );
    }
    match &item.shape {
        Shape::Union(token) => errors.at(
            token,
            "a union cannot be an event; write a struct or an enum",
        ),
        Shape::Struct(one) => {
            let suggested = event_type_of_struct(&one.ident.to_string());
            check_type(one, &suggested, errors);
        }
        Shape::Enum(variants) => {
            if variants.is_empty() {
                errors.at(
                    item.ident,
                    format!(
                        "`{}` has no variant, so it is no event; add one with \
                         `#[event(\"category.name\")]`",
                        item.ident
                    ),
                );
            }
            refuse_serde(item.attributes, &SERDE_OF_ENUM, errors);
            for variant in variants {
                let suggested =
                    event_type_of_variant(&item.ident.to_string(), &variant.ident.to_string());
                check_type(variant, &suggested, errors);
                refuse_serde(variant.attributes, &SERDE_OF_VARIANT, errors);
            }
            check_distinct(variants, errors);
        }
    }
}

fn check_type(one: &EventType<'_>, suggested: &str, errors: &mut Errors) {
    match &one.name {
        Name::Given(name) if !is_event_type(&name.value()) => {
            errors.at(name, refuse_event_type(&name.value()));
        }
        Name::Missing => errors.at(
            one.ident,
            format!(
                "`{}` has no event type; write one above it, as in `#[event(\"{suggested}\")]`",
                one.ident
            ),
        ),
        Name::Given(_) | Name::Reported => {}
    }
    check_key(one, errors);
}

fn check_key(one: &EventType<'_>, errors: &mut Errors) {
    let Some(key) = &one.key else { return };
    let fields: Vec<String> = match one.fields {
        Fields::Named(fields) => fields
            .named
            .iter()
            .flat_map(|field| &field.ident)
            .map(Ident::to_string)
            .collect(),
        Fields::Unnamed(fields) => (0..fields.unnamed.len()).map(|i| i.to_string()).collect(),
        Fields::Unit => Vec::new(),
    };
    let wanted = match &key.member {
        Member::Named(name) => name.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    };
    if fields.contains(&wanted) {
        return;
    }
    let message = match fields.as_slice() {
        [] => format!("`{}` has no fields; remove `key`", one.ident),
        [only] => format!(
            "`{}` has no field `{wanted}`; its only one is `{only}`",
            one.ident
        ),
        many => format!(
            "`{}` has no field `{wanted}`; it has {}",
            one.ident,
            listed(many)
        ),
    };
    errors.at(key, message);
}

fn check_distinct(variants: &[EventType<'_>], errors: &mut Errors) {
    for (index, variant) in variants.iter().enumerate() {
        let Name::Given(name) = &variant.name else {
            continue;
        };
        let earlier = variants[..index].iter().find(
            |earlier| matches!(&earlier.name, Name::Given(other) if other.value() == name.value()),
        );
        if let Some(earlier) = earlier {
            errors.at(
                name,
                format!(
                    "`{}` is the type of `{}` already; give `{}` a type of its own",
                    name.value(),
                    earlier.ident,
                    variant.ident
                ),
            );
        }
    }
}

/// Attributes of serde that do not fit, and why.
type Refused = [(&'static str, &'static str)];

const TAGGED: &str = "the event type says which variant it is, and the payload is the body of the \
                      variant alone; remove it";
const CONVERTED: &str = "serde would write another type in place of the variants; remove it, or \
                         make that other type the event";
const SKIPPED: &str = "an event that serde leaves out can be neither stored nor read; remove it, \
                       or the variant";

const SERDE_OF_ENUM: [(&str, &str); 6] = [
    ("tag", TAGGED),
    ("content", TAGGED),
    ("untagged", TAGGED),
    ("from", CONVERTED),
    ("into", CONVERTED),
    ("try_from", CONVERTED),
];

const SERDE_OF_VARIANT: [(&str, &str); 5] = [
    ("skip", SKIPPED),
    ("skip_serializing", SKIPPED),
    ("skip_deserializing", SKIPPED),
    (
        "other",
        "an unknown event type is never read as this variant; remove it",
    ),
    ("untagged", TAGGED),
];

fn refuse_serde(attributes: &[Attribute], refused: &Refused, errors: &mut Errors) {
    for attribute in attributes.iter().filter(|a| a.path().is_ident("serde")) {
        // Where the form is wrong, serde says so itself.
        for argument in Argument::of(attribute, &mut Errors::default()) {
            let Argument::Named(named) = argument else {
                continue;
            };
            let name: TokenStream = named.tokens();
            if let Some((option, why)) = refused.iter().find(|(option, _)| named.name == option) {
                errors.at(
                    name,
                    format!("`{option}` of serde does not fit an event: {why}"),
                );
            }
        }
    }
}
