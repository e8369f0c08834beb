//! A handler as it was written: a method or a function, with its `#[on]` and `#[emits]`.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, ImplItemFn, ItemFn, LitStr, Receiver, ReturnType, Signature, Type};

use super::options::{Options, Target};
use super::parameter::{EventParameter, Parameter};
use super::policy::{self, Policy};
use crate::arguments::{Argument, Named, Seen, Value};
use crate::core_path::CorePath;
use crate::errors::Errors;
use crate::names::nearest;
use crate::source::text;

/// A method or a function that is to be a handler.
pub(super) struct Method<'a> {
    /// `Struct::method`, or the name of the function.
    pub(super) name: String,
    /// The struct, or `None` for a function.
    pub(super) owner: Option<&'a Type>,
    /// Its head.
    pub(super) signature: &'a Signature,
    /// Its `#[cfg(…)]`: where it is not there, it is no handler.
    pub(super) cfgs: Vec<&'a Attribute>,
    /// `self`, in whatever form.
    pub(super) receiver: Option<&'a Receiver>,
    /// Everything else that it takes.
    pub(super) parameters: Vec<Parameter>,
    /// What it returns, without `Self`; `()` where nothing is written.
    pub(super) output: Type,
    /// What `#[on]` and `#[emits]` say.
    pub(super) attributes: Attributes,
}

/// What all `#[on]` and `#[emits]` of one handler say.
#[derive(Default)]
pub(super) struct Attributes {
    /// The patterns that it reacts to.
    pub(super) on: Vec<LitStr>,
    /// The event types that it emits.
    pub(super) emits: Vec<LitStr>,
    /// What it says itself of failures and delivery.
    pub(super) policy: Policy,
    /// Whether there is an `#[on]`, even if its content was refused.
    pub(super) has_on: bool,
    /// The first `#[emits]`.
    pub(super) first_emits: Option<Attribute>,
    /// Whether something in the place of an emitted type was reported already.
    pub(super) emits_reported: bool,
}

impl<'a> Method<'a> {
    pub(super) fn of_impl(
        name: String,
        owner: &'a Type,
        function: &'a ImplItemFn,
        attributes: Attributes,
        errors: &mut Errors,
    ) -> Self {
        let (signature, kept) = (&function.sig, &function.attrs);
        Self::new(name, Some(owner), signature, kept, attributes, errors)
    }

    pub(super) fn of_function(
        function: &'a ItemFn,
        attributes: Attributes,
        errors: &mut Errors,
    ) -> Self {
        let name = function.sig.ident.to_string();
        Self::new(
            name,
            None,
            &function.sig,
            &function.attrs,
            attributes,
            errors,
        )
    }

    fn new(
        name: String,
        owner: Option<&'a Type>,
        signature: &'a Signature,
        kept: &'a [Attribute],
        attributes: Attributes,
        errors: &mut Errors,
    ) -> Self {
        let mut receiver = None;
        let mut parameters = Vec::new();
        for input in &signature.inputs {
            match input {
                syn::FnArg::Receiver(found) => receiver = Some(found),
                syn::FnArg::Typed(typed) => {
                    let ty = without_self(&typed.ty, owner);
                    parameters.push(Parameter::parse(ty, errors));
                }
            }
        }
        let output = match &signature.output {
            ReturnType::Default => syn::parse_quote!(()),
            ReturnType::Type(_, ty) => without_self(ty, owner),
        };
        Self {
            name,
            owner,
            signature,
            cfgs: kept.iter().filter(|a| a.path().is_ident("cfg")).collect(),
            receiver,
            parameters,
            output,
            attributes,
        }
    }

    /// The events among its parameters; there must be one.
    pub(super) fn events(&self) -> impl Iterator<Item = &EventParameter> {
        self.parameters
            .iter()
            .filter_map(|parameter| match parameter {
                Parameter::Event(event) => Some(event),
                Parameter::Context(_) | Parameter::Refused => None,
            })
    }

    /// The `impl` in what it returns, if there is one.
    pub(super) fn open_output(&self) -> Option<TokenTree> {
        find_impl(self.output.to_token_stream())
    }

    /// What it returns, in words: the `T` of `Result<T, E>`.
    pub(super) fn output_text(&self) -> String {
        text(success_of(&self.output))
    }

    /// Whether it is plain to see that it returns nothing.
    pub(super) fn returns_nothing(&self) -> bool {
        matches!(success_of(&self.output), Type::Tuple(tuple) if tuple.elems.is_empty())
    }
}

/// The `T` of `Result<T, E>`, or the type itself.
fn success_of(output: &Type) -> &Type {
    if let Type::Path(path) = output
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let syn::PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(syn::GenericArgument::Type(success)) = arguments.args.first()
    {
        return success;
    }
    output
}

/// The type with the struct's name in place of `Self`, since it is used outside of the block.
fn without_self(ty: &Type, owner: Option<&Type>) -> Type {
    let Some(owner) = owner else {
        return ty.clone();
    };
    let tokens = replace_self(ty.to_token_stream(), &owner.to_token_stream());
    syn::parse2(tokens).unwrap_or_else(|_| ty.clone())
}

fn replace_self(tokens: TokenStream, owner: &TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Ident(ident) if ident == "Self" => owner.clone(),
            TokenTree::Group(group) => {
                let inner = replace_self(group.stream(), owner);
                let mut replaced = proc_macro2::Group::new(group.delimiter(), inner);
                replaced.set_span(group.span());
                TokenTree::Group(replaced).into()
            }
            other => other.into(),
        })
        .collect()
}

fn find_impl(tokens: TokenStream) -> Option<TokenTree> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ref ident) if ident == "impl" => Some(token),
        TokenTree::Group(group) => find_impl(group.stream()),
        _ => None,
    })
}

impl Attributes {
    // #[on("github.push")]
    // #[on("github.push", "github.pr.*")]
    // #[on("github.push", retry(max = 3), timeout = "5s")]
    // #[emits("repository.analyzed")]
    // #[emits("repository.analyzed", "repository.failed")]
    // Each of them any number of times; `#[event_core::on(…)]` is the same.
    pub(super) fn take(
        from: &mut Vec<Attribute>,
        core: &CorePath,
        seen: &mut Seen,
        errors: &mut Errors,
    ) -> Self {
        let mut found = Self::default();
        from.retain(|attribute| {
            if is(attribute, "on", core) {
                found.has_on = true;
                found.read_on(attribute, seen, errors);
            } else if is(attribute, "emits", core) {
                found.first_emits.get_or_insert_with(|| attribute.clone());
                let before = errors.count();
                found.read_emits(attribute, errors);
                found.emits_reported |= errors.count() > before;
            } else {
                return true;
            }
            false
        });
        found
    }

    /// The strings between the parentheses, and the options behind them.
    fn read_on(&mut self, attribute: &Attribute, seen: &mut Seen, errors: &mut Errors) {
        let before = errors.count();
        let arguments = Argument::of(attribute, errors);
        let names_none = !arguments.iter().any(|a| matches!(a, Argument::Text(_)));
        let mut options = TokenStream::new();
        for argument in arguments {
            match argument {
                Argument::Text(pattern) => {
                    if !options.is_empty() {
                        errors.at(
                            &pattern,
                            "write the event types first, and options behind them",
                        );
                    }
                    self.on.push(pattern);
                }
                Argument::Named(named) => {
                    let option = named.tokens();
                    options.extend(quote!(, #option));
                    self.option(&named, seen, errors);
                }
                Argument::Other(tokens) => refuse_string(&tokens, ON, errors),
            }
        }
        if names_none && errors.count() == before {
            errors.at(
                attribute,
                format!(
                    "`#[on]` names no event type; write `#[on(\"github.push\"{})]`",
                    text(&options)
                ),
            );
        }
    }

    /// An option of one handler.
    fn option(&mut self, named: &Named, seen: &mut Seen, errors: &mut Errors) {
        let name = named.name.to_string();
        if policy::OPTIONS.contains(&name.as_str()) {
            if seen.first(named, errors) {
                self.policy.option(named, errors);
            }
        } else if name == "emits" {
            errors.at(
                named.tokens(),
                "what a handler emits has an attribute of its own; write `#[emits(\"…\")]` beside \
                 `#[on]`",
            );
        } else if name != "on" && Target::Function.options().contains(&name.as_str()) {
            errors.at(
                named.tokens(),
                format!("`{name}` is no option of `#[on]`; write it at `#[event_handler]`"),
            );
        } else if name == "on"
            || (matches!(named.value, Value::None) && nearest(&name, &policy::OPTIONS).is_none())
        {
            refuse_string(&named.tokens(), ON, errors);
        } else {
            named.unknown(&policy::OPTIONS, errors);
        }
    }

    /// The strings between the parentheses.
    fn read_emits(&mut self, attribute: &Attribute, errors: &mut Errors) {
        let before = errors.count();
        let arguments = Argument::of(attribute, errors);
        if arguments.is_empty() && errors.count() == before {
            errors.at(
                attribute,
                format!("`#[emits]` names no event type; write `{EMITS}`"),
            );
        }
        for argument in arguments {
            match argument {
                Argument::Text(event_type) => self.emits.push(event_type),
                Argument::Named(named)
                    if policy::OPTIONS.contains(&named.name.to_string().as_str()) =>
                {
                    errors.at(
                        named.tokens(),
                        format!(
                            "`{}` is an option of `#[on]`; write it there, behind the event types",
                            named.name
                        ),
                    );
                }
                Argument::Named(named) => refuse_string(&named.tokens(), EMITS, errors),
                Argument::Other(tokens) => refuse_string(&tokens, EMITS, errors),
            }
        }
    }

    /// Whether the method asks to be a handler.
    pub(super) fn is_handler(&self) -> bool {
        self.has_on || self.first_emits.is_some()
    }

    /// Adds what a function says in the options of `#[event_handler]`.
    pub(super) fn add(&mut self, options: &mut Options) {
        self.has_on |= options.on_reported || !options.on.is_empty();
        self.emits_reported |= options.emits_reported;
        self.on.splice(0..0, options.on.drain(..));
        self.emits.splice(0..0, options.emits.drain(..));
    }
}

/// Whether an attribute is `#[name]` of event-core.
fn is(attribute: &Attribute, name: &str, core: &CorePath) -> bool {
    let path = attribute.path();
    if path.is_ident(name) {
        return true;
    }
    let mut from_last = path.segments.iter().rev().map(|segment| &segment.ident);
    from_last.next().is_some_and(|last| last == name)
        && from_last
            .next()
            .is_some_and(|parent| parent == "event_core" || core.name() == Some(parent))
}

const ON: &str = "#[on(\"github.push\")]";
const EMITS: &str = "#[emits(\"repository.analyzed\")]";

fn refuse_string(tokens: &TokenStream, example: &str, errors: &mut Errors) {
    errors.at(
        tokens,
        format!("`{}` is no string; write `{example}`", text(tokens)),
    );
}
