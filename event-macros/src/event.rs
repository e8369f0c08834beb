//! `#[derive(Event)]`.

mod check;
mod expand;
mod model;

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::errors::Errors;
use model::EventItem;

/// Expands the derive. After a mistake the type is still an event, one without types, so that
/// nothing that uses it fails as well.
pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let item = EventItem::parse(input, &mut errors);
    check::check(&item, &mut errors);
    let expanded = match errors.count() {
        0 => expand::expand(&item),
        _ => expand::fallback(&item),
    };
    let errors = errors.into_tokens();
    quote!(#expanded #errors)
}
