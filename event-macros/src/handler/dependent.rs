//! `#[event_handler]` on a struct: its fields are dependencies, by their types.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, ItemStruct};

use super::options::{Options, Target};
use crate::errors::Errors;

/// The struct itself, and its implementation of `Dependent`.
pub(super) fn expand(
    arguments: TokenStream,
    item: &ItemStruct,
    errors: &mut Errors,
) -> TokenStream {
    let options = Options::parse(arguments, &Target::Struct, errors);
    if !item.generics.params.is_empty() {
        errors.at(
            &item.generics,
            format!(
                "a service makes one value of each struct, so `{}` cannot be generic; write the \
                 types of its dependencies out, such as `Arc<dyn Analyzer>`",
                item.ident
            ),
        );
        return quote!(#item);
    }
    let (ident, import) = (&item.ident, options.core.import());
    let types = item.fields.iter().map(|field| {
        let (cfgs, ty) = (cfgs(&field.attrs), &field.ty);
        quote!(#(#cfgs)* __types.push(__event_core::DependencyType::of::<#ty>());)
    });
    let values = item
        .fields
        .iter()
        .zip(item.fields.members())
        .map(|(field, member)| {
            let (cfgs, ty) = (cfgs(&field.attrs), &field.ty);
            quote!(#(#cfgs)* #member: __dependencies.get::<#ty>()?)
        });
    // Both halves are one function, since the compiler reports what is wrong with a type once for
    // each function.
    quote! {
        #item

        const _: () = {
            #import

            fn __dependent() -> (
                ::std::vec::Vec<__event_core::DependencyType>,
                fn(
                    &__event_core::Dependencies,
                ) -> ::core::result::Result<#ident, __event_core::MissingDependency>,
            ) {
                #[allow(unused_mut)]
                let mut __types = ::std::vec::Vec::new();
                #(#types)*
                (__types, |__dependencies| ::core::result::Result::Ok(#ident { #(#values),* }))
            }

            #[automatically_derived]
            impl __event_core::Dependent for #ident {
                fn dependencies() -> ::std::vec::Vec<__event_core::DependencyType> {
                    __dependent().0
                }

                fn resolve(
                    __dependencies: &__event_core::Dependencies,
                ) -> ::core::result::Result<Self, __event_core::MissingDependency> {
                    (__dependent().1)(__dependencies)
                }
            }
        };
    }
}

fn cfgs(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
}
