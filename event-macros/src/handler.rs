//! `#[event_handler]`, `#[on]` and `#[emits]`.

mod check;
mod dependent;
mod expand;
mod method;
mod options;
mod parameter;
mod policy;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{Attribute, ImplItem, Item, ItemFn, ItemImpl, Type};

pub(crate) use expand::assertion;

use crate::arguments::Seen;
use crate::errors::Errors;
use crate::source::text;
use method::Method;
use options::{Options, Target};

/// Expands `#[event_handler(…)]`. What it stands on is always kept, so that nothing that uses it
/// fails after a mistake.
pub(crate) fn event_handler(arguments: TokenStream, input: TokenStream) -> TokenStream {
    let item = match syn::parse2::<Item>(input.clone()) {
        Ok(item) => item,
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#input #error);
        }
    };
    let mut errors = Errors::default();
    let expanded = match item {
        Item::Struct(item) => dependent::expand(arguments, &item, &mut errors),
        Item::Impl(item) => on_impl(arguments, item, &mut errors),
        Item::Fn(item) => on_fn(arguments, item, &mut errors),
        other => {
            errors.at(
                Ident::new("event_handler", Span::call_site()),
                "`#[event_handler]` goes on a struct, on its `impl` block, or on an `async fn`; \
                 move it there",
            );
            other.into_token_stream()
        }
    };
    let errors = errors.into_tokens();
    quote!(#expanded #errors)
}

/// Expands `#[on]` and `#[emits]` where no `#[event_handler]` has taken them.
pub(crate) fn misplaced(attribute: &str, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let place = Ident::new(attribute, Span::call_site());
    let function = syn::parse2::<ItemFn>(input.clone())
        .ok()
        .filter(|function| function.attrs.iter().any(is_event_handler));
    let kept = match function {
        Some(mut function) => {
            errors.at(
                place,
                format!("write `#[{attribute}]` below `#[event_handler]`"),
            );
            // It would say that the handler reacts to nothing.
            function
                .attrs
                .retain(|attribute| !is_event_handler(attribute));
            function.into_token_stream()
        }
        None => {
            errors.at(
                place,
                format!(
                    "`#[{attribute}]` belongs on a method of an `impl` block with \
                     `#[event_handler]`, or below `#[event_handler]` on an `async fn`"
                ),
            );
            input
        }
    };
    let errors = errors.into_tokens();
    quote!(#kept #errors)
}

fn is_event_handler(attribute: &Attribute) -> bool {
    let last = attribute.path().segments.last();
    last.is_some_and(|last| last.ident == "event_handler")
}

/// An `impl` block: each method with `#[on]` becomes a handler.
fn on_impl(arguments: TokenStream, mut item: ItemImpl, errors: &mut Errors) -> TokenStream {
    let options = Options::parse(arguments, &Target::Impl, errors);
    check::check_impl(&item, &options, errors);
    let owner = (*item.self_ty).clone();
    let owner_name = owner_name(&owner, errors);
    // The types in any other block mean nothing outside of it.
    let of_struct = item.trait_.is_none() && item.generics.params.is_empty();
    let registers = of_struct && owner_name.is_some();
    let owner_name = owner_name.unwrap_or_default();
    let mut handlers = Vec::new();
    let mut any = false;
    for item in &mut item.items {
        let ImplItem::Fn(function) = item else {
            continue;
        };
        let before = errors.count();
        let (attributes, mut seen) = (&mut function.attrs, Seen::default());
        let attributes = method::Attributes::take(attributes, &options.core, &mut seen, errors);
        if !attributes.is_handler() {
            continue;
        }
        any = true;
        let name = format!("{owner_name}::{}", function.sig.ident);
        let method = Method::of_impl(name, &owner, function, attributes, errors);
        check::check_method(&method, &options, errors);
        if registers {
            handlers.push(match errors.count() - before {
                0 => expand::register(&method, &options),
                _ => expand::check(&method, &options),
            });
        }
    }
    if !any {
        errors.at(
            &owner,
            format!(
                "no method here is a handler; write `#[on(\"…\")]` above one, or remove \
                 `#[event_handler]` from this `impl {}`",
                text(&owner)
            ),
        );
    }
    quote!(#item #(#handlers)*)
}

/// An `async fn`, which is a handler without dependencies.
fn on_fn(arguments: TokenStream, mut item: ItemFn, errors: &mut Errors) -> TokenStream {
    let mut options = Options::parse(arguments, &Target::Function, errors);
    let (core, seen) = (&options.core, &mut options.seen);
    let mut attributes = method::Attributes::take(&mut item.attrs, core, seen, errors);
    attributes.add(&mut options);
    let method = Method::of_function(&item, attributes, errors);
    check::check_function(&method, &options, errors);
    check::check_method(&method, &options, errors);
    // What looks like a function may stand in an `impl` block, where nothing can be registered.
    let handler = match (method.receiver, errors.count()) {
        (Some(_), _) => TokenStream::new(),
        (None, 0) => expand::register(&method, &options),
        (None, _) => expand::check(&method, &options),
    };
    quote!(#item #handler)
}

fn owner_name(owner: &Type, errors: &mut Errors) -> Option<String> {
    if let Type::Path(path) = owner {
        return Some(path.path.segments.last()?.ident.to_string());
    }
    errors.at(
        owner,
        "handlers are methods of a struct; write `impl` and its name",
    );
    None
}
