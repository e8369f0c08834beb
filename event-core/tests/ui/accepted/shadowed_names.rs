//! Names of the standard library may mean something else where the macros are used.
#![no_implicit_prelude]
#![allow(dead_code, unused_macros)]

struct Result;
struct Option;
struct Vec;
struct Box;
struct String;
struct Some;
struct None;
struct Ok;
struct Err;
trait ToString {}
mod core {}
mod std {}
mod event_core {}
struct Retry;
struct Duration;
struct OnExhausted;
struct Delivery;
trait OrdinaryClassifier {}
struct ClassifierOf;

macro_rules! line {
    () => {};
}
macro_rules! stringify {
    () => {};
}
macro_rules! unreachable {
    () => {};
}

#[derive(::serde::Serialize, ::serde::Deserialize, ::event_core::Event)]
#[event("github.push", key = repository)]
struct GithubPush {
    repository: ::std::string::String,
}

#[derive(::serde::Serialize, ::serde::Deserialize, ::event_core::Event)]
enum ProjectEvent {
    #[event("project.opened", key = 0)]
    Opened(::core::primitive::u8),
    #[event("project.closed")]
    Closed,
}

#[::event_core::event_handler]
struct Repositories {
    name: ::std::string::String,
}

#[::event_core::event_handler(retry(max = 2, base = "1ms"), timeout = "5s", on_exhausted = skip)]
impl Repositories {
    #[on("github.push", delivery = parallel)]
    #[emits("project.closed")]
    async fn handle(
        &self,
        _: GithubPush,
        _: &::event_core::Context,
    ) -> ::core::result::Result<::core::option::Option<ProjectEvent>, ::core::fmt::Error> {
        ::core::result::Result::Ok(::core::option::Option::Some(ProjectEvent::Closed))
    }
}

#[::event_core::event_handler(on = "github.push", realtime)]
async fn handle(_: &::event_core::RecordedEvent) {}

#[::event_core::projection(name = "pushes", version = 1)]
impl GithubPush {
    #[on("github.push")]
    fn push(
        &self,
        _: &GithubPush,
        _: &::event_core::Metadata,
        _: &mut ::event_core::Writes,
    ) -> ::core::result::Result<(), ::core::fmt::Error> {
        ::core::result::Result::Ok(())
    }
}

fn main() {
    let names: ::std::vec::Vec<_> = ::std::iter::Iterator::collect(::std::iter::Iterator::map(
        ::std::iter::IntoIterator::into_iter(::event_core::HandlerRegistration::all()),
        |handler| ::std::borrow::ToOwned::to_owned(handler.name()),
    ));
    ::std::assert_eq!(names, ["Repositories::handle", "handle"]);
}
