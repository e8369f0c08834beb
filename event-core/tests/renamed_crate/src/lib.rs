//! Everything that the macros generate, in a crate that calls event-core `es`.
//!
//! Here `::event_core` is not to be found, nor is any other crate that generated code may need.

use serde::{Deserialize, Serialize};

/// A struct.
#[derive(Debug, Serialize, Deserialize, es::Event)]
#[event("github.push", key = repository, crate = es)]
pub struct GithubPush {
    /// Its key.
    pub repository: String,
}

/// An enum.
#[derive(Debug, Serialize, Deserialize, es::Event)]
#[event(crate = es)]
pub enum ProjectEvent {
    /// Without a payload.
    #[event("project.opened")]
    Opened,
    /// With one.
    #[event("project.phase.changed")]
    PhaseChanged {
        /// Into which phase.
        to: String,
    },
}

/// A realtime event.
#[derive(Debug, Serialize, Deserialize, es::Event)]
#[event("ai.response.chunk", realtime, crate = es)]
pub struct ResponseChunk {}

/// A projection.
pub struct Pushes;

#[es::projection(name = "pushes", version = 1, crate = es)]
impl Pushes {
    /// A method that takes everything.
    #[on("github.push")]
    pub fn push(
        &self,
        event: GithubPush,
        _: &es::Metadata,
        writes: &mut es::Writes,
    ) -> Result<(), es::BoxError> {
        writes.increment(event.repository, "pushes", 1);
        Ok(())
    }
}

/// A struct of handlers, with dependencies.
#[es::event_handler(crate = es)]
pub struct Repositories {
    /// One that is always there.
    pub publisher: es::Publisher,
}

#[es::event_handler(group = "agents", crate = es)]
impl Repositories {
    /// A method that emits.
    #[on("github.push", retry(max = 3), delivery = parallel)]
    #[emits("project.opened", "project.phase.changed")]
    pub async fn push(
        &self,
        event: GithubPush,
        _: &es::Context,
    ) -> Result<ProjectEvent, es::BoxError> {
        let to = event.repository;
        Ok(ProjectEvent::PhaseChanged { to })
    }

    /// A method that borrows any event.
    #[on("project.*")]
    pub async fn any(&self, _: &es::RecordedEvent) {}
}

/// A function.
#[es::event_handler(on = "github.push", start = now, timeout = "5s", on_exhausted = skip, crate = es)]
pub async fn look(_: &GithubPush) {}

/// A realtime function.
#[es::event_handler(on = "ai.response.chunk", realtime, crate = es)]
pub async fn show(_: ResponseChunk) {}

#[cfg(test)]
mod tests {
    #[test]
    fn every_handler_is_found() {
        let mut found: Vec<_> = es::HandlerRegistration::all()
            .iter()
            .map(|handler| handler.name().to_owned())
            .collect();
        found.sort();
        let expected = ["Repositories::any", "Repositories::push", "look", "show"];
        assert_eq!(found, expected);
    }
}
