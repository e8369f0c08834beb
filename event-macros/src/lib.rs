//! The derive and the attributes of `event-core`, which re-exports them.

mod arguments;
mod errors;
mod event;
mod handler;
mod names;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derive.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    event::derive(&parse_macro_input!(input as DeriveInput)).into()
}

/// Handler.
#[proc_macro_attribute]
pub fn event_handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    handler::event_handler(arguments.into(), item.into()).into()
}

/// On.
#[proc_macro_attribute]
pub fn on(_: TokenStream, item: TokenStream) -> TokenStream {
    handler::misplaced("on", &item.into()).into()
}

/// Emits.
#[proc_macro_attribute]
pub fn emits(_: TokenStream, item: TokenStream) -> TokenStream {
    handler::misplaced("emits", &item.into()).into()
}
