//! The code that is generated for an event.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::model::{Changes, EventItem, EventType, Name, Pair, Past, Shape};

/// The implementation of `Event`, and the registration.
pub(super) fn expand(item: &EventItem<'_>) -> TokenStream {
    let (ident, import) = (item.ident, item.core.import());
    let types = match &item.shape {
        Shape::Struct(one) => std::slice::from_ref(one),
        Shape::Enum(variants) => variants,
        Shape::Union(_) => &[],
    };
    let definitions = types
        .iter()
        .enumerate()
        .map(|(index, one)| definition(item, index, one));
    let which = which(item, types);
    let key = key(item, types);
    let past = past(&item.past);
    quote! {
        const _: () = {
            #import

            const __DEFINITIONS: &[__event_core::EventDefinition] = &[#(#definitions),*];

            #[automatically_derived]
            impl __event_core::Event for #ident {
                const DEFINITIONS: &'static [__event_core::EventDefinition] = __DEFINITIONS;

                fn definition(&self) -> &'static __event_core::EventDefinition {
                    &__DEFINITIONS[#which]
                }

                #key

                #past
            }

            __event_core::__private::inventory::submit! {
                __event_core::EventRegistration::new(
                    ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#ident)),
                    __DEFINITIONS,
                )
                .past(<#ident as __event_core::Event>::PAST)
                .read_as::<#ident>()
                .schemas(__event_core::__schemas!(#ident))
            }
        };
    }
}

fn definition(item: &EventItem<'_>, index: usize, one: &EventType<'_>) -> TokenStream {
    let name = match &one.name {
        Name::Given(name) => quote!(#name),
        Name::Missing | Name::Reported => quote!(""),
    };
    let realtime = one.realtime.then(|| quote!(.realtime()));
    let variant = matches!(item.shape, Shape::Enum(_)).then(|| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        quote!(.variant(#index))
    });
    let changes = changes(&one.changes);
    quote!(__event_core::EventDefinition::new(#name) #realtime #variant #changes)
}

/// The versions of a type, and what it was called.
fn changes(changes: &Changes) -> TokenStream {
    let version = changes.version.as_ref();
    let version = version.map(|version| quote!(.version(#version)));
    let upcasts = changes.upcasts.iter().map(|Pair { key, function }| {
        // What does not fit is reported at the function.
        let apply = quote_spanned! {function.span()=>
            __event_core::Upcast::apply(#function, __payload)
        };
        quote!(__event_core::Upcast::new(#key, |__payload| #apply))
    });
    let upcasts = (!changes.upcasts.is_empty()).then(|| quote!(.upcasts(&[#(#upcasts),*])));
    let names = &changes.formerly;
    let formerly = (!names.is_empty()).then(|| quote!(.formerly(&[#(#names),*])));
    quote!(#version #upcasts #formerly)
}

/// What an enum has no more.
fn past(past: &Past) -> Option<TokenStream> {
    let Past { retired, split } = past;
    if retired.is_empty() && split.is_empty() {
        return None;
    }
    let names = split.iter().map(|pair| &pair.key);
    let reading = (!split.is_empty()).then(|| {
        let arms = split.iter().map(|Pair { key, function }| {
            // What does not fit is reported at the function.
            let apply = quote_spanned! {function.span()=>
                __event_core::PastEvent::apply::<_, _, Self>(#function, __payload)
            };
            quote!(#key => #apply)
        });
        quote! {
            fn split(
                __event_type: &str,
                __payload: __event_core::__private::Value,
            ) -> ::core::result::Result<::std::vec::Vec<Self>, __event_core::__private::JsonError> {
                match __event_type {
                    #(#arms,)*
                    _ => ::core::result::Result::Ok(::std::vec::Vec::new()),
                }
            }
        }
    });
    Some(quote! {
        const PAST: &'static [__event_core::PastEvent] = &[
            #(__event_core::PastEvent::retired(#retired),)*
            #(__event_core::PastEvent::split(#names),)*
        ];

        #reading
    })
}

/// The index of the value's type among the definitions.
fn which(item: &EventItem<'_>, types: &[EventType<'_>]) -> TokenStream {
    if let Shape::Struct(_) = item.shape {
        return quote!(0);
    }
    let arms = types.iter().enumerate().map(|(index, one)| {
        let variant = one.ident;
        quote!(Self::#variant { .. } => #index)
    });
    quote!(match self { #(#arms,)* })
}

/// The method `key`, where there is one.
fn key(item: &EventItem<'_>, types: &[EventType<'_>]) -> Option<TokenStream> {
    let arms: Vec<_> = types
        .iter()
        .filter_map(|one| {
            let key = one.key.as_ref()?;
            let path = match item.shape {
                Shape::Enum(_) => {
                    let variant = one.ident;
                    quote!(Self::#variant)
                }
                Shape::Struct(_) | Shape::Union(_) => quote!(Self),
            };
            let member = &key.member;
            // A field that cannot be written as text is reported where it is chosen.
            let text = quote_spanned!(key.span()=> ::std::string::ToString::to_string(__key));
            Some(quote!(#path { #member: __key, .. } => ::core::option::Option::Some(#text)))
        })
        .collect();
    if arms.is_empty() {
        return None;
    }
    let rest = (arms.len() < types.len()).then(|| quote!(_ => ::core::option::Option::None,));
    Some(quote! {
        fn key(&self) -> ::core::option::Option<::std::string::String> {
            match self {
                #(#arms,)*
                #rest
            }
        }
    })
}

/// An event without types, for a type with mistakes.
pub(super) fn fallback(item: &EventItem<'_>) -> TokenStream {
    // Serde's own derives fail on a union, and their bounds on a generic type are not known here.
    if matches!(item.shape, Shape::Union(_)) || !item.generics.params.is_empty() {
        return TokenStream::new();
    }
    let (ident, import) = (item.ident, item.core.import());
    quote! {
        const _: () = {
            #import

            #[automatically_derived]
            impl __event_core::Event for #ident {
                const DEFINITIONS: &'static [__event_core::EventDefinition] = &[];

                fn definition(&self) -> &'static __event_core::EventDefinition {
                    ::core::unreachable!()
                }
            }
        };
    }
}
