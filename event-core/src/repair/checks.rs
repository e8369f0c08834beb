use std::fmt;
use std::sync::Arc;

use crate::codec::CodecError;
use crate::event::EventRegistration;
use crate::recorded::RecordedEvent;

/// Reads an event, or says why it cannot be read; `None` where its type is not known.
type Decoder = dyn Fn(&RecordedEvent) -> Option<Result<(), CodecError>> + Send + Sync;

/// What a [`verify`](crate::verify) looks at, and how much it tells.
#[derive(Clone)]
pub struct Checks {
    examples: usize,
    decoder: Arc<Decoder>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            examples: 10,
            decoder: Arc::new(read_as_registered),
        }
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks")
            .field("examples", &self.examples)
            .finish_non_exhaustive()
    }
}

impl Checks {
    /// Every event is to be readable by all types of this program that `#[derive(Event)]` has reported;
    /// and the first ten findings of each kind are told.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many findings of each kind are told.
    pub(super) fn most(&self) -> usize {
        self.examples
    }

    /// Reads an event, if its type is known.
    pub(super) fn read(&self, event: &RecordedEvent) -> Option<Result<(), CodecError>> {
        (self.decoder)(event)
    }

    /// Tells the first `count` findings of each kind.
    pub fn examples(mut self, count: usize) -> Self {
        self.examples = count;
        self
    }

    /// Has `decoder` read events instead. It says `None` of types that it does not know.
    pub fn decoder(
        mut self,
        decoder: impl Fn(&RecordedEvent) -> Option<Result<(), CodecError>> + Send + Sync + 'static,
    ) -> Self {
        self.decoder = Arc::new(decoder);
        self
    }
}

fn read_as_registered(event: &RecordedEvent) -> Option<Result<(), CodecError>> {
    let mut known = None;
    for registration in EventRegistration::all() {
        match registration.try_read(event) {
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(())) => known = Some(Ok(())),
            None => {}
        }
    }
    known
}
