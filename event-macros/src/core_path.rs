//! The path by which generated code finds event-core.

use proc_macro2::{Ident, TokenStream};
use quote::quote_spanned;
use syn::Path;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;

/// `::event_core`, or what `crate = …` says.
pub(crate) struct CorePath(Path);

impl Default for CorePath {
    fn default() -> Self {
        Self(syn::parse_quote!(::event_core))
    }
}

impl Parse for CorePath {
    // my_core
    // crate::my::core
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.call(Path::parse_mod_style).map(Self)
    }
}

impl CorePath {
    /// Makes event-core known to generated code as `__event_core`. A path that leads nowhere is so
    /// reported once, where it was written.
    pub(crate) fn import(&self) -> TokenStream {
        let path = &self.0;
        quote_spanned!(path.span()=> use #path as __event_core;)
    }

    /// What event-core is called where the path ends.
    pub(crate) fn name(&self) -> Option<&Ident> {
        self.0.segments.last().map(|segment| &segment.ident)
    }
}
