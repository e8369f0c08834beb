//! The inlet: what makes an event of a delivery, and appends it.

use event_core::{Append, AppendError, Category, Clock, CodecError, EventStore, InvalidCategory};

use crate::delivery::{Delivery, DeliveryError};
use crate::github::{self, GithubEvent};

/// Where deliveries come in.
pub struct Inlet<'a, S: ?Sized> {
    store: &'a S,
    clock: Clock,
    category: Category,
}

impl<'a, S: EventStore + ?Sized> Inlet<'a, S> {
    /// An inlet into a store.
    ///
    /// # Errors
    /// [`InvalidCategory`] where the category of GitHub's events is none.
    pub fn new(store: &'a S) -> Result<Self, InvalidCategory> {
        Ok(Self {
            store,
            clock: Clock::system(),
            category: Category::new(github::CATEGORY)?,
        })
    }

    /// Appends the event that a delivery is, under the delivery's id, so that one that comes again is stored
    /// once.
    ///
    /// # Errors
    /// [`InletError`].
    pub async fn take(&self, delivery: &Delivery<'_>) -> Result<GithubEvent, InletError> {
        let event = GithubEvent::of(delivery)?;
        let encoded = event.encode(delivery, &self.clock)?;
        let append = Append::to_feed(self.category.clone(), vec![encoded]);
        self.store.append(&append).await?;
        Ok(event)
    }
}

/// A delivery that was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum InletError {
    /// It is no event.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// It cannot be encoded.
    #[error(transparent)]
    Event(#[from] CodecError),
    /// The store did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl InletError {
    /// Whether the store is what failed, which may take this delivery and others another time.
    pub fn is_of_store(&self) -> bool {
        matches!(
            self,
            Self::Append(AppendError::Store(_) | AppendError::NotReplicated { .. })
        )
    }
}
