//! Events to screens.

mod bridge;
mod loader;
mod transport;

pub use transport::{
    CloseCode, GraphqlTransport, GraphqlTransportBuilder, Init, Limits, Refusal, Resume, Session,
};
