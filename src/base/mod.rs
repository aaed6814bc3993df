//! What every layer may name: ids, addresses, keys, errors, the configuration, time, locks, counters.
//!
//! Owns plain data and the few tools that all layers share. It must never import from another layer.

pub(crate) mod address;
pub(crate) mod config;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod id;
pub(crate) mod identity;
pub(crate) mod io;
pub(crate) mod key;
pub(crate) mod metrics;
pub(crate) mod suite;
pub(crate) mod sync;
pub(crate) mod timer;
