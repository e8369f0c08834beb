//! The code that is generated for a handler: its registration, and the assertions about types.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::method::Method;
use super::options::{Options, Start};
use super::parameter::{EventParameter, Parameter, Passed};
use crate::arguments::text;
use crate::names::{is_event_type, is_pattern};

/// Registers a handler that is `sound`, and lets the compiler check its types in any case.
pub(super) fn expand(method: &Method<'_>, options: &Options, sound: bool) -> TokenStream {
    let events: Vec<_> = method.events().collect();
    let [event] = events.as_slice() else {
        return TokenStream::new();
    };
    let core = &options.core;
    let cfgs = &method.cfgs;
    let covers = covers(method, options, event);
    let declares = declares(method, options);
    let registration = sound.then(|| registration(method, options, event));
    quote! {
        #(#cfgs)*
        const _: () = {
            use #core as __event_core;
            #covers
            #declares
            #registration
        };
    }
}

/// Asserts that the event can be what `#[on]` says.
fn covers(method: &Method<'_>, options: &Options, event: &EventParameter) -> TokenStream {
    let ty = &event.ty;
    let rust_type = text(ty);
    let patterns = method.attributes.on.iter().filter(|p| is_pattern(&p.value()));
    let assertions = patterns.map(|pattern| {
        let travel = match options.realtime {
            Some(_) => quote_spanned!(pattern.span()=> reacts_to_realtime),
            None => quote_spanned!(pattern.span()=> reacts_to_stored),
        };
        quote_spanned! {pattern.span()=>
            const _: () = __event_core::check::covers(&__COVERS, #pattern, #rust_type);
            const _: () = __event_core::check::#travel(&__COVERS, #pattern);
        }
    });
    quote! {
        const __COVERS: __event_core::Declared = <#ty as __event_core::HandlerEvent>::COVERS;
        #(#assertions)*
    }
}

/// Asserts that what is returned fits `#[emits]`.
fn declares(method: &Method<'_>, options: &Options) -> TokenStream {
    if method.open_output().is_some() {
        return TokenStream::new();
    }
    let ty = &method.output;
    let rust_type = method.output_text();
    let emits = &method.attributes.emits;
    let assertions: TokenStream = if method.attributes.emits_anything() {
        let types = emits.iter().filter(|e| is_event_type(&e.value()) && !method.returns_nothing());
        types
            .map(|event_type| {
                let stored = options.realtime.as_ref().map(|_| {
                    quote_spanned! {event_type.span()=>
                        const _: () =
                            __event_core::check::emits_no_stored(&__DECLARES, #event_type);
                    }
                });
                quote_spanned! {event_type.span()=>
                    const _: () =
                        __event_core::check::declares(&__DECLARES, #event_type, #rust_type);
                    #stored
                }
            })
            .collect()
    } else {
        quote_spanned! {ty.span()=>
            const _: () = __event_core::check::emits_nothing(&__DECLARES, #rust_type);
        }
    };
    quote! {
        const __DECLARES: __event_core::Declared = <#ty as __event_core::HandlerOutput>::DECLARES;
        #assertions
    }
}

/// Reports the handler to every service of the program.
fn registration(method: &Method<'_>, options: &Options, event: &EventParameter) -> TokenStream {
    let ident = &method.signature.ident;
    let (name, output, ty) = (&method.name, &method.output, &event.ty);
    let owner = match method.owner {
        Some(owner) => quote!(#owner),
        None => quote!(()),
    };
    let on = &method.attributes.on;
    let emits = &method.attributes.emits;
    let group = options.group.as_ref().map(|group| quote!(.group(#group)));
    let start = options.start.as_ref().map(|(start, _)| match start {
        Start::Now => quote!(.start(__event_core::Start::Now)),
        Start::Beginning => quote!(.start(__event_core::Start::Beginning)),
    });
    let realtime = options.realtime.as_ref().map(|_| quote!(.realtime()));
    let call = call(method, event);
    // `line!` gives the line of its own tokens, so they are put where the name is.
    let line = quote_spanned!(ident.span()=> ::core::line!());
    quote! {
        __event_core::__private::inventory::submit! {
            __event_core::HandlerRegistration::new(|| {
                __event_core::HandlerDefinition::method::<#owner, #ty, #output>(#name, #call)
                    #(.on(#on))*
                    #(.emits(#emits))*
                    #group
                    #start
                    #realtime
                    .at(::core::concat!(::core::file!(), ":", #line))
            })
        }
    }
}

/// The closure that reads the event, calls the handler and encodes what it returns.
fn call(method: &Method<'_>, event: &EventParameter) -> TokenStream {
    let ident = &method.signature.ident;
    let ty = &event.ty;
    let read = quote! {
        let __event = <#ty as __event_core::HandlerEvent>::from_recorded(__event)?;
    };
    let (read, passed) = match event.passed {
        Passed::ByValue => (read, quote!(__event)),
        Passed::ByReference => (read, quote!(&__event)),
        Passed::AsRecorded => (TokenStream::new(), quote!(__event)),
    };
    let arguments = method.parameters.iter().map(|parameter| match parameter {
        Parameter::Context(_) => quote!(__context),
        Parameter::Event(_) | Parameter::Refused => passed.clone(),
    });
    let called = match method.owner {
        Some(owner) => quote!(<#owner>::#ident(__this, #(#arguments),*)),
        None => quote!(#ident(#(#arguments),*)),
    };
    let body = quote! {
        {
            #read
            let __output = #called.await;
            __event_core::HandlerOutput::into_emissions(__output, __context)
        }
    };
    // A future that is not `Send` is reported here, at the handler's name.
    let future = boxed(ident.span(), &body);
    quote!(|__this, __event, __context| #future)
}

fn boxed(span: Span, body: &TokenStream) -> TokenStream {
    quote_spanned!(span=> ::std::boxed::Box::pin(async move #body))
}
