//! The code that is generated for a projection: the implementation of its trait, and the assertions about
//! types.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{LitStr, Type};

use super::method::{Method, Parameter};
use crate::core_path::CorePath;
use crate::handler::assertion;
use crate::source::text;

/// Implements `Projection`.
pub(super) fn implement(
    owner: &Type,
    name: &LitStr,
    version: u32,
    methods: &[Method<'_>],
    core: &CorePath,
) -> TokenStream {
    let import = core.import();
    let pushed = methods.iter().map(|method| {
        let (cfgs, on) = (&method.cfgs, &method.on);
        let name = method.ident.to_string();
        let (event, output, call) = (&method.event, &method.output, call(method));
        quote! {
            #(#cfgs)*
            __methods.push(
                __event_core::projection::ProjectionMethod::with_metadata::<#event, #output, _>(
                    #name,
                    #call,
                )
                #(.on(#on))*
            );
        }
    });
    let checked = methods.iter().map(|method| covers(method, core));
    quote! {
        const _: () = {
            #import

            #[automatically_derived]
            impl __event_core::projection::Projection for #owner {
                const NAME: &'static str = #name;
                const VERSION: u32 = #version;

                fn methods() -> ::std::vec::Vec<__event_core::projection::ProjectionMethod<Self>> {
                    #[allow(unused_mut)]
                    let mut __methods = ::std::vec::Vec::new();
                    #(#pushed)*
                    __methods
                }
            }
        };
        #(#checked)*
    }
}

/// The closure that calls a method.
fn call(method: &Method<'_>) -> TokenStream {
    let ident = method.ident;
    let arguments = method.parameters.iter().map(|parameter| match parameter {
        Parameter::Event => quote!(__event),
        Parameter::EventReference => quote!(&__event),
        Parameter::Metadata => quote!(__metadata),
        Parameter::Writes => quote!(__writes),
    });
    quote!(|__this, __event, __metadata, __writes| Self::#ident(__this, #(#arguments),*))
}

/// Asserts that the event can be what `#[on]` says, and is stored.
fn covers(method: &Method<'_>, core: &CorePath) -> TokenStream {
    let (import, cfgs, event) = (core.import(), &method.cfgs, &method.event);
    let rust_type = text(event);
    let assertions = method.on.iter().flat_map(|pattern| {
        [
            assertion("covers", pattern, &quote!(&__EVENT, #pattern, #rust_type)),
            assertion("is_projected", pattern, &quote!(&__EVENT, #pattern)),
        ]
    });
    quote! {
        #(#cfgs)*
        const _: () = {
            #import
            const __EVENT: __event_core::Declared =
                <#event as __event_core::HandlerEvent>::COVERS;
            #(#assertions)*
        };
    }
}
