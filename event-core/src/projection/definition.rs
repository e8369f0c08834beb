//! What a service must know of a projection, and which of its methods an event goes to.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::error::ProjectionFailure;
use super::writes::Writes;
use super::{Filled, Projection};
use crate::BoxError;
use crate::dispatcher::panic_message;
use crate::event::{Category, Declared};
use crate::handler::{HandlerEvent, Past};
use crate::metadata::Metadata;
use crate::pattern::Pattern;
use crate::recorded::RecordedEvent;

/// A method of a projection: the events that it takes, and what it writes for each.
pub struct ProjectionMethod<P> {
    name: &'static str,
    on: Vec<String>,
    covers: Declared,
    past: Past,
    call: Call<P>,
}

type Call<P> =
    Arc<dyn Fn(&P, &RecordedEvent, &mut Writes) -> Result<(), ProjectionFailure> + Send + Sync>;

impl<P: Projection> ProjectionMethod<P> {
    /// A method that takes a typed event, or [`RecordedEvent`] for any.
    pub fn new<E, O, F>(name: &'static str, call: F) -> Self
    where
        E: HandlerEvent + 'static,
        O: ProjectionOutput,
        F: Fn(&P, E, &mut Writes) -> O + Send + Sync + 'static,
    {
        Self::with_metadata::<E, O, _>(name, move |this, event, _, writes| {
            call(this, event, writes)
        })
    }

    /// A method that takes the metadata, too.
    pub fn with_metadata<E, O, F>(name: &'static str, call: F) -> Self
    where
        E: HandlerEvent + 'static,
        O: ProjectionOutput,
        F: Fn(&P, E, &Metadata, &mut Writes) -> O + Send + Sync + 'static,
    {
        Self {
            name,
            on: Vec::new(),
            covers: E::COVERS,
            past: Past::of::<E>(),
            call: Arc::new(move |this, event, writes| {
                let read = E::from_recorded(event).map_err(ProjectionFailure::Unreadable)?;
                call(this, read, event.metadata(), writes).into_result()
            }),
        }
    }

    /// Takes events of this type, or those that the pattern matches, too.
    pub fn on(mut self, pattern: impl Into<String>) -> Self {
        self.on.push(pattern.into());
        self
    }
}

/// What a method of a projection can return: nothing, or a `Result` of nothing.
#[diagnostic::on_unimplemented(
    message = "a method of a projection cannot return `{Self}`",
    label = "neither `()` nor a `Result` of it",
    note = "what it leads to, it writes to its `&mut Writes`; return nothing, or `Result<(), E>`"
)]
pub trait ProjectionOutput {
    /// Passes an error on.
    ///
    /// # Errors
    /// [`ProjectionFailure::Failed`] with the method's own error.
    fn into_result(self) -> Result<(), ProjectionFailure>;
}

impl ProjectionOutput for () {
    fn into_result(self) -> Result<(), ProjectionFailure> {
        Ok(())
    }
}

impl<E: Into<BoxError>> ProjectionOutput for Result<(), E> {
    fn into_result(self) -> Result<(), ProjectionFailure> {
        self.map_err(|error| ProjectionFailure::Failed(error.into()))
    }
}

/// A projection without its type.
pub(crate) struct ProjectionDefinition {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) methods: Vec<MethodDefinition>,
    pub(crate) filled: Filled,
}

/// A method without the type of its projection.
pub(crate) struct MethodDefinition {
    pub(crate) name: String,
    pub(crate) on: Vec<String>,
    pub(crate) covers: Declared,
    patterns: Vec<Pattern>,
    past: Past,
    call: UntypedCall,
}

type UntypedCall =
    Box<dyn Fn(&RecordedEvent, &mut Writes) -> Result<(), ProjectionFailure> + Send + Sync>;

impl ProjectionDefinition {
    pub(crate) fn new<P: Projection>(projection: P, filled: Filled) -> Self {
        let projection = Arc::new(projection);
        let methods = P::methods().into_iter().map(|method| {
            let (this, call) = (Arc::clone(&projection), method.call);
            MethodDefinition {
                name: format!("{}::{}", P::NAME, method.name),
                covers: method.covers,
                // What is no pattern is among the mistakes of the service.
                patterns: method.on.iter().filter_map(|on| on.parse().ok()).collect(),
                on: method.on,
                past: method.past,
                call: Box::new(move |event, writes| call(&this, event, writes)),
            }
        });
        Self {
            name: P::NAME,
            version: P::VERSION,
            methods: methods.collect(),
            filled,
        }
    }

    /// The categories of the events that it takes.
    pub(crate) fn categories(&self) -> Vec<Category> {
        let patterns = self.methods.iter().flat_map(|method| &method.patterns);
        let categories: BTreeSet<_> = patterns.filter_map(Pattern::category).collect();
        categories.into_iter().collect()
    }

    /// What an event leads to. Where it fails, some may be written, which is of no use.
    pub(crate) fn project(
        &self,
        event: &RecordedEvent,
        writes: &mut Writes,
    ) -> Result<(), ProjectionFailure> {
        for method in &self.methods {
            if method.takes(event.event_type()) {
                // What it was called with is thrown away after a panic.
                let called = catch_unwind(AssertUnwindSafe(|| method.call(event, writes)));
                called.unwrap_or_else(|panic| {
                    Err(ProjectionFailure::Panicked(panic_message(panic.as_ref())))
                })?;
            }
        }
        Ok(())
    }
}

impl MethodDefinition {
    /// Whether it takes events that are stored under this type.
    fn takes(&self, event_type: &str) -> bool {
        let reacts_to = |event_type: &str| self.reacts_to(event_type);
        self.past.takes(&self.covers, event_type, reacts_to)
    }

    fn reacts_to(&self, event_type: &str) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|pattern| pattern.matches(event_type))
    }

    fn call(&self, event: &RecordedEvent, writes: &mut Writes) -> Result<(), ProjectionFailure> {
        if !self.past.is_split(event.event_type()) {
            return (self.call)(event, writes);
        }
        let parts = self.past.split(event);
        for event in parts.map_err(ProjectionFailure::Unreadable)? {
            if self.reacts_to(event.event_type()) {
                (self.call)(&event, writes)?;
            }
        }
        Ok(())
    }
}
