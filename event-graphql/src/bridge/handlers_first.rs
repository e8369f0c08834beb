//! Handlers that are through with an event before clients get it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use event_core::{Partition, Position, Service, Token, WaitError};

/// Whose handlers are waited for, and how long.
pub(crate) struct HandlersFirst {
    service: Service,
    at_most: Duration,
    partitions: Mutex<HashMap<Partition, Known>>,
}

/// What is known of the handlers of a partition.
#[derive(Clone, Copy, Default)]
struct Known {
    /// They are through with what lies up to here.
    through: Option<Position>,
    /// They were waited for in vain, and have to come so far before they are waited for again.
    late: Option<Position>,
}

impl HandlersFirst {
    pub(crate) fn new(service: Service, at_most: Duration) -> Self {
        Self {
            service,
            at_most,
            partitions: Mutex::default(),
        }
    }

    /// Waits until they are through with what lies up to `position`. A group that stands still does not hold clients
    /// up with each batch anew.
    pub(super) async fn wait(&self, partition: &Partition, position: Position) {
        let known = self.known(partition, |known| *known);
        if known.through >= Some(position) {
            return;
        }
        if let Some(late) = known.late {
            if self.handled(partition, late, Duration::ZERO).await.is_err() {
                return;
            }
            self.known(partition, |known| known.late = None);
            tracing::info!(%partition, "clients get events when they are handled, again");
        }
        match self.handled(partition, position, self.at_most).await {
            Ok(()) => self.known(partition, |known| {
                known.through = known.through.max(Some(position));
            }),
            Err(error) => {
                self.known(partition, |known| known.late = Some(position));
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    %partition,
                    "clients get events that are not handled yet, until the handlers have come so far"
                );
            }
        }
    }

    async fn handled(
        &self,
        partition: &Partition,
        position: Position,
        at_most: Duration,
    ) -> Result<(), WaitError> {
        let mut token = Token::default();
        token.reach(partition.clone(), position);
        self.service.wait_until_handled(&token, at_most).await
    }

    fn known<T>(&self, partition: &Partition, look: impl FnOnce(&mut Known) -> T) -> T {
        let mut partitions = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        look(partitions.entry(partition.clone()).or_default())
    }
}
