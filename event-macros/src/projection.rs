//! `#[projection]`: an `impl` block whose methods with `#[on]` fill a projection.

mod expand;
mod method;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{ImplItem, Item, ItemImpl, LitInt, LitStr, Type};

use crate::arguments::{Argument, Named, Seen};
use crate::core_path::CorePath;
use crate::errors::Errors;
use crate::source::text;
use method::Method;

const OPTIONS: [&str; 3] = ["name", "version", "crate"];

/// What was written between the parentheses of the attribute.
#[derive(Default)]
struct Options {
    core: CorePath,
    name: Option<LitStr>,
    version: Option<u32>,
}

/// Expands `#[projection(…)]`. What it stands on is always kept, so that nothing that uses it fails after
/// a mistake.
pub(crate) fn projection(arguments: TokenStream, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let item = match syn::parse2::<Item>(input.clone()) {
        Ok(Item::Impl(item)) => item,
        Ok(_) => {
            errors.at(
                proc_macro2::Ident::new("projection", proc_macro2::Span::call_site()),
                "`#[projection]` goes on the `impl` block of a struct; move it there",
            );
            let errors = errors.into_tokens();
            return quote!(#input #errors);
        }
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#input #error);
        }
    };
    let expanded = on_impl(arguments, item, &mut errors);
    let errors = errors.into_tokens();
    quote!(#expanded #errors)
}

fn on_impl(arguments: TokenStream, mut item: ItemImpl, errors: &mut Errors) -> TokenStream {
    let options = Options::parse(arguments, &item.self_ty, errors);
    check_impl(&item, errors);
    let owner = (*item.self_ty).clone();
    let mut methods = Vec::new();
    let mut any = false;
    for item in &mut item.items {
        let ImplItem::Fn(function) = item else {
            continue;
        };
        let before = errors.count();
        let Some(on) = method::take_on(&mut function.attrs, &options.core, errors) else {
            continue;
        };
        any = true;
        let method = Method::new(function, on, &owner, errors);
        if errors.count() == before {
            methods.push(method);
        }
    }
    if !any {
        errors.at(
            &owner,
            format!(
                "no method here takes events; write `#[on(\"…\")]` above one, or remove \
                 `#[projection]` from this `impl {}`",
                text(&owner)
            ),
        );
    }
    let is_plain = item.trait_.is_none() && item.generics.params.is_empty();
    let expanded = match (&options.name, options.version) {
        (Some(name), Some(version)) if is_plain => {
            expand::implement(&owner, name, version, &methods, &options.core)
        }
        _ => TokenStream::new(),
    };
    quote!(#item #expanded)
}

fn check_impl(item: &ItemImpl, errors: &mut Errors) {
    if let Some((path, _)) = &item.trait_ {
        errors.at(
            path,
            "the methods of a projection are those of the struct itself; move them to an `impl` \
             block without a trait",
        );
    }
    if !item.generics.params.is_empty() {
        errors.at(
            &item.generics,
            "a projection has one name and one state, so its struct cannot be generic; remove the \
             parameters",
        );
    }
}

impl Options {
    // #[projection(name = "pushes", version = 1)]
    // #[projection(name = "pushes", version = 1, crate = my::event_core)]
    fn parse(tokens: TokenStream, owner: &Type, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let (mut seen, before) = (Seen::default(), errors.count());
        for argument in Argument::list(tokens, errors) {
            match argument {
                Argument::Named(named) => options.option(&named, &mut seen, errors),
                Argument::Text(text) => {
                    errors.at(&text, format!("write `name = \"{}\"`", text.value()));
                }
                Argument::Other(tokens) => errors.at(
                    &tokens,
                    format!(
                        "`{}` is no option; write `name = \"…\", version = 1`",
                        text(&tokens)
                    ),
                ),
            }
        }
        let has_all = options.name.is_some() && options.version.is_some();
        if !has_all && errors.count() == before {
            errors.at(
                owner,
                "a projection has a name and a version; write `#[projection(name = \"…\", \
                 version = 1)]`, and raise the version whenever its methods write something else",
            );
        }
        options
    }

    fn option(&mut self, named: &Named, seen: &mut Seen, errors: &mut Errors) {
        let name = named.name.to_string();
        if !OPTIONS.contains(&name.as_str()) {
            named.unknown(&OPTIONS, errors);
            return;
        }
        if !seen.first(named, errors) {
            return;
        }
        match name.as_str() {
            "name" => {
                let name: Option<LitStr> = named.value("\"pushes\"", errors);
                self.name = name.filter(|name| is_name(name, errors));
            }
            "version" => {
                let version: Option<LitInt> = named.value("1", errors);
                self.version = version.and_then(|version| match version.base10_parse() {
                    Ok(version) => Some(version),
                    Err(_) => {
                        errors.at(&version, "a version is a whole number; write `version = 1`");
                        None
                    }
                });
            }
            _ => {
                if let Some(core) = named.value("path::to::event_core", errors) {
                    self.core = core;
                }
            }
        }
    }
}

/// As `is_projection_name` of event-core.
fn is_name(name: &LitStr, errors: &mut Errors) -> bool {
    let text = name.value();
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_name = begins
        && text.len() <= 100
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !is_name {
        errors.at(
            name,
            format!(
                "`{text}` is no name for a projection; write at most 100 letters, digits, `_`, \
                 `-` and `.`, with a letter at the beginning"
            ),
        );
    }
    is_name
}
