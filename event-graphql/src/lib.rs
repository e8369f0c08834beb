//! Events to screens.

mod bridge;
mod loader;
mod transport;

pub use loader::{
    FreshPerEvent, InvalidatedKeys, Invalidates, LoadError, LoaderCache, LoaderCacheBuilder,
    LoaderKey,
};
