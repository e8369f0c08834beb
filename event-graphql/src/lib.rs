//! Events to screens: GraphQL subscriptions over feeds and realtime events.
//!
//! - [`EventSubscriptionBridge`]: reads each feed once, for any number of clients
//! - [`EventSubscription`], [`Edge`], [`Cursor`]: what one client asks for and gets, and where it goes on
//! - [`BridgeError`]: what can be wrong, with the codes that clients see

mod bridge;
mod loader;
mod transport;

pub use bridge::{
    Access, BridgeBuilder, BridgeError, Cursor, Edge, EventStream, EventSubscription,
    EventSubscriptionBridge, Listening, News, SlowClient,
};
