//! Events to screens: GraphQL subscriptions over feeds, by WebSocket and server-sent events.
//!
//! - [`EventSubscriptionBridge`]: reads each feed once, for any number of clients
//! - [`EventSubscription`], [`Edge`], [`Cursor`]: what one client asks for and gets, and where it goes on
//! - [`Live`], [`LiveStream`]: what it gets of realtime events
//! - [`AnyEvent`]: an event of any type, for lists of all that happens
//! - [`BridgeError`]: what can be wrong, with the codes that clients see
//! - [`GraphqlTransport`]: the routes that clients connect to
//! - [`metrics`]: what is counted
//! - [`LoaderCache`], [`FreshPerEvent`]: loaded values, kept until an event names their key

mod bridge;
mod loader;
pub mod metrics;
mod transport;

pub use bridge::{
    Access, AnyEvent, BridgeBuilder, BridgeError, Cursor, Edge, EventStream, EventSubscription,
    EventSubscriptionBridge, Listening, Live, LiveStream, News, Persistent, Realtime, SlowClient,
};
pub use loader::{
    FreshPerEvent, InvalidatedKeys, Invalidates, LoadError, LoaderCache, LoaderCacheBuilder,
    LoaderKey,
};
pub use transport::{
    CloseCode, GraphqlTransport, GraphqlTransportBuilder, Init, Limits, Refusal, Resume, Session,
    TransportListener,
};
