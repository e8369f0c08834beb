//! An event of any type, as it is.

use async_graphql::{Json, Object};
use event_core::RecordedEvent;
use serde_json::Value;

/// An event of any type, as it was stored or sent: for lists of all that happens, where there is no Rust type for
/// each. In GraphQL it has the fields `type`, `payload` (JSON), and `aggregate` (such as `repository:octo/hello`, or none).
#[derive(Clone, Debug)]
pub struct AnyEvent(RecordedEvent);

impl AnyEvent {
    /// This event.
    pub fn new(event: RecordedEvent) -> Self {
        Self(event)
    }

    /// The event, with its metadata.
    pub fn recorded(&self) -> &RecordedEvent {
        &self.0
    }
}

/// An event of any type, as it is.
#[Object]
impl AnyEvent {
    /// Its type.
    #[graphql(name = "type")]
    async fn event_type(&self) -> &str {
        self.0.event_type()
    }

    /// Its payload, as it was written: old events have old shapes.
    async fn payload(&self) -> async_graphql::Result<Json<Value>> {
        Ok(Json(serde_json::from_str(self.0.payload())?))
    }

    /// What it has happened to.
    async fn aggregate(&self) -> Option<String> {
        let named = self.0.aggregate()?;
        Some(format!("{}:{}", named.aggregate_type, named.id))
    }
}
