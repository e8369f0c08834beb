//! The code that is generated for a handler: its registration, and the assertions about types.

use std::time::Duration;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};

use super::method::Method;
use super::options::{Options, Start};
use super::parameter::{EventParameter, Parameter, Passed};
use super::policy::{Delivery, OnExhausted, Policy, Replay};
use crate::names::{is_event_type, is_pattern};
use crate::source::text;

/// Registers a handler, and lets the compiler check its types.
pub(super) fn register(method: &Method<'_>, options: &Options) -> TokenStream {
    let Some(event) = event_to_check(method) else {
        return TokenStream::new();
    };
    let definition = definition(method, options, event);
    let handler = Constant {
        ty: quote!(__event_core::HandlerRegistration),
        value: quote!(__event_core::HandlerRegistration::new(|| #definition)),
        used: quote!(__event_core::__private::inventory::submit!(__HANDLER.2);),
    };
    assert_around(&handler, method, options, event)
}

/// Lets the compiler check the types of a handler that has mistakes already, so that what is wrong
/// with the types is reported with them.
pub(super) fn check(method: &Method<'_>, options: &Options) -> TokenStream {
    let Some(event) = event_to_check(method) else {
        return TokenStream::new();
    };
    let nothing = Constant {
        ty: quote!(()),
        value: quote!(()),
        used: TokenStream::new(),
    };
    assert_around(&nothing, method, options, event)
}

/// The event of a handler whose types mean something outside of it.
fn event_to_check<'a>(method: &'a Method<'_>) -> Option<&'a EventParameter> {
    let mut events = method.events();
    let (event, None) = (events.next()?, events.next()) else {
        return None;
    };
    let generic = !method.signature.generics.params.is_empty();
    (!generic && method.open_output().is_none()).then_some(event)
}

/// Something that is evaluated by the compiler, and what is made of it.
struct Constant {
    ty: TokenStream,
    value: TokenStream,
    used: TokenStream,
}

fn assert_around(
    handler: &Constant,
    method: &Method<'_>,
    options: &Options,
    event: &EventParameter,
) -> TokenStream {
    let import = options.core.import();
    let cfgs = &method.cfgs;
    let (event_ty, output_ty) = (&event.ty, &method.output);
    let Constant { ty, value, used } = handler;
    let covers = covers(method, options, event);
    let declares = declares(method, options);
    // All that depends on the two types is one constant, since the compiler reports what is wrong
    // with a type once for each constant.
    quote! {
        #(#cfgs)*
        const _: () = {
            #import
            const __HANDLER: (__event_core::Declared, __event_core::Declared, #ty) = (
                <#event_ty as __event_core::HandlerEvent>::COVERS,
                <#output_ty as __event_core::HandlerOutput>::DECLARES,
                #value,
            );
            #covers
            #declares
            #used
        };
    }
}

/// Asserts that the event can be what `#[on]` says.
fn covers(method: &Method<'_>, options: &Options, event: &EventParameter) -> TokenStream {
    let rust_type = text(&event.ty);
    let travel = match options.realtime {
        Some(_) => "reacts_to_realtime",
        None => "reacts_to_stored",
    };
    let patterns = method
        .attributes
        .on
        .iter()
        .filter(|p| is_pattern(&p.value()));
    patterns
        .flat_map(|pattern| {
            [
                assertion(
                    "covers",
                    pattern,
                    &quote!(&__HANDLER.0, #pattern, #rust_type),
                ),
                assertion(travel, pattern, &quote!(&__HANDLER.0, #pattern)),
            ]
        })
        .collect()
}

/// Asserts that what is returned fits `#[emits]`, and the other way round.
fn declares(method: &Method<'_>, options: &Options) -> TokenStream {
    if method.returns_nothing() {
        return TokenStream::new();
    }
    let rust_type = method.output_text();
    let name = method.signature.ident.to_string();
    let emits = &method.attributes.emits;
    let named = quote!(&__HANDLER.1, &[#(#emits),*], #name, #rust_type);
    let each_is_named = (!method.attributes.emits_reported)
        .then(|| assertion("emits_each", &method.output, &named));
    let each_is_declared = emits
        .iter()
        .filter(|e| is_event_type(&e.value()))
        .map(|event_type| {
            let declares = quote!(&__HANDLER.1, #event_type, #rust_type);
            let declares = assertion("declares", event_type, &declares);
            let travels = options.realtime.as_ref().map(|_| {
                assertion(
                    "emits_no_stored",
                    event_type,
                    &quote!(&__HANDLER.1, #event_type),
                )
            });
            quote!(#declares #travels)
        });
    quote!(#each_is_named #(#each_is_declared)*)
}

/// A call that the compiler evaluates. If it fails, it is reported at `place`, since all of its
/// tokens have that span.
pub(crate) fn assertion(name: &str, place: &impl ToTokens, arguments: &TokenStream) -> TokenStream {
    let mut spans = place
        .to_token_stream()
        .into_iter()
        .map(|token| token.span());
    let first = spans.next().unwrap_or_else(Span::call_site);
    let last = spans.last().unwrap_or(first);
    let name = Ident::new(name, first);
    let mut arguments = Group::new(Delimiter::Parenthesis, arguments.clone());
    arguments.set_span(last);
    quote_spanned!(first=> const _: () = __event_core::check::#name #arguments;)
}

/// What a service must know of the handler.
fn definition(method: &Method<'_>, options: &Options, event: &EventParameter) -> TokenStream {
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
    let policy = policy(&method.attributes.policy.or(&options.policy));
    let call = call(method, event);
    // `line!` gives the line of its own tokens, so they are put where the name is.
    let line = quote_spanned!(ident.span()=> ::core::line!());
    // Whether the error decides itself is found by the resolution of a method, for which the trait of
    // all others must be in scope, needed or not.
    quote! {
        {
            #[allow(unused_imports)]
            use __event_core::__private::OrdinaryClassifier as _;
            __event_core::HandlerDefinition::method::<#owner, #ty, #output>(#name, #call)
                #(.on(#on))*
                #(.emits(#emits))*
                #group
                #start
                #realtime
                #policy
                .classified_by(__event_core::__private::ClassifierOf::<#output>::NEW.find())
                .at(::core::concat!(::core::file!(), ":", #line))
        }
    }
}

/// What a handler says of failures and delivery.
fn policy(policy: &Policy) -> TokenStream {
    let retry = policy.retry.as_ref().map(|retry| {
        let (max, base) = (retry.max(), duration(retry.base()));
        let max_delay = duration(retry.max_delay());
        quote! {
            .retry(__event_core::Retry { max: #max, base: #base, max_delay: #max_delay })
        }
    });
    let timeout = policy.timeout.as_ref().map(|timeout| {
        let timeout = duration(timeout.value);
        quote!(.timeout(#timeout))
    });
    let on_exhausted = policy.on_exhausted.as_ref().map(|written| {
        let variant = match written.value {
            OnExhausted::Park => quote!(Park),
            OnExhausted::Skip => quote!(Skip),
            OnExhausted::Stop => quote!(Stop),
        };
        quote!(.on_exhausted(__event_core::OnExhausted::#variant))
    });
    let delivery = policy.delivery.as_ref().map(|written| {
        let variant = match written.value {
            Delivery::Ordered => quote!(Ordered),
            Delivery::Parallel => quote!(Parallel),
        };
        quote!(.delivery(__event_core::Delivery::#variant))
    });
    let replay = policy
        .replay
        .as_ref()
        .and_then(|written| match written.value {
            Replay::Allow => Some(quote!(.allow_replay())),
            Replay::Refuse => None,
        });
    quote!(#retry #timeout #on_exhausted #delivery #replay)
}

fn duration(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanoseconds))
}

/// The closure that reads the event, calls the handler and encodes what it returns.
fn call(method: &Method<'_>, event: &EventParameter) -> TokenStream {
    let ident = &method.signature.ident;
    let (ty, output) = (&event.ty, &method.output);
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
            <#output as __event_core::HandlerOutput>::into_emissions(__output, __context)
        }
    };
    // A future that is not `Send` is reported here, at the handler's name.
    let future = quote_spanned!(ident.span()=> ::std::boxed::Box::pin(async move #body));
    quote!(|__this, __event, __context| #future)
}
