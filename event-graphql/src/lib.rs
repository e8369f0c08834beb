//! Events to screens.

mod bridge;
mod loader;
mod transport;
