//! What must hold between the parts of an event type.

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens;
use syn::{Attribute, Fields, LitStr, Member};

use super::model::{Changes, EventItem, EventType, Name, Pair, Shape};
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
            check_past(item, std::slice::from_ref(one), errors);
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
            check_past(item, variants, errors);
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
    check_changes(one, errors);
}

/// Each older version must lead to the next one, and names must be of the same feed.
fn check_changes(one: &EventType<'_>, errors: &mut Errors) {
    let Changes {
        version,
        version_reported,
        upcasts,
        upcast,
        upcast_reported: _,
        formerly,
        formerly_option,
    } = &one.changes;
    if one.realtime {
        let options = [upcast, formerly_option].into_iter().flatten();
        let options = options.map(|option| option.to_token_stream());
        for option in options.chain(version.iter().map(ToTokens::to_token_stream)) {
            errors.at(
                &option,
                "a realtime event is kept nowhere, so there is none of another shape or name; \
                 remove this",
            );
        }
        return;
    }
    check_versions(one, errors);
    if version.is_none()
        && !version_reported
        && let Some(upcast) = upcast
        && !upcasts.is_empty()
    {
        errors.at(
            upcast,
            format!(
                "`upcast` reads older versions, and this is version 1; add `version = {}`",
                upcasts.len() + 1
            ),
        );
    }
    let Name::Given(name) = &one.name else { return };
    for former in formerly {
        check_past_name(former, &[name.value()], errors);
    }
}

fn check_versions(one: &EventType<'_>, errors: &mut Errors) {
    let Changes {
        version,
        upcasts,
        upcast_reported,
        ..
    } = &one.changes;
    let Some(version) = version else { return };
    let newest = match version.base10_parse::<u32>() {
        Ok(newest) if (1..=MOST_VERSIONS).contains(&newest) => newest,
        _ => {
            errors.at(
                version,
                format!(
                    "`{version}` is no version; write a number from 1 to {MOST_VERSIONS}, as in \
                     `version = 2`"
                ),
            );
            return;
        }
    };
    let mut seen = Vec::new();
    for Pair { key, .. } in upcasts {
        match key.base10_parse::<u32>() {
            Ok(from) if seen.contains(&from) => {
                errors.at(
                    key,
                    format!("version {from} is given twice; remove one of them"),
                );
            }
            Ok(from) if (1..newest).contains(&from) => seen.push(from),
            _ => errors.at(
                key,
                format!(
                    "there is no version {key} before version {newest}; an upcast leads from one \
                     version to the next, up to version {newest}"
                ),
            ),
        }
    }
    let missing: Vec<String> = (1..newest)
        .filter(|from| !seen.contains(from))
        .map(|from| format!("{from} = function"))
        .collect();
    if !missing.is_empty() && !upcast_reported {
        errors.at(
            version,
            format!(
                "stored events of older versions could not be read; add `upcast({})`, with functions \
                 from each version's payload to that of the next",
                missing.join(", ")
            ),
        );
    }
}

/// More than anybody writes by hand.
const MOST_VERSIONS: u32 = 1_000;

/// What is stored under a name of the past lies in the feed of today's.
fn check_past_name(name: &LitStr, today: &[String], errors: &mut Errors) {
    let written = name.value();
    if !is_event_type(&written) {
        errors.at(name, refuse_event_type(&written));
        return;
    }
    let category = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let categories: Vec<String> = today.iter().map(|name| category(name)).collect();
    if !categories.contains(&category(&written)) {
        errors.at(
            name,
            format!(
                "`{written}` lies in the feed of `{}`, and is never read here, where events of \
                 `{}` are; events of two feeds are two types",
                category(&written),
                categories.first().cloned().unwrap_or_default()
            ),
        );
    }
}

/// The names of the past must be of the feeds of today, and each stand once.
fn check_past(item: &EventItem<'_>, types: &[EventType<'_>], errors: &mut Errors) {
    let given = |one: &EventType<'_>| match &one.name {
        Name::Given(name) if is_event_type(&name.value()) => Some(name.value()),
        _ => None,
    };
    let today: Vec<String> = types.iter().filter_map(given).collect();
    let mut taken = today.clone();
    let formerly = types.iter().flat_map(|one| &one.changes.formerly);
    let past = item.past.retired.iter();
    let past = past.chain(item.past.split.iter().map(|pair| &pair.key));
    for name in past.clone() {
        if !today.is_empty() {
            check_past_name(name, &today, errors);
        }
    }
    for name in formerly.chain(past) {
        if taken.contains(&name.value()) {
            errors.at(
                name,
                format!(
                    "`{}` stands here already; what is stored under one name is read in one way",
                    name.value()
                ),
            );
        }
        taken.push(name.value());
    }
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
