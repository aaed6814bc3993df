//! The machinery that proves the crate: the slot's exhaustive model, loom models, fuzz harnesses with
//! their corpus, and the networks in memory that tests run on.
//!
//! Owns no product code, and is compiled for tests, fuzzing and loom only. The unit tests of a file
//! `src/x/y.rs` that are long lie here as `x/y.rs`; they are modules of the file that they test.

#[cfg(all(test, feature = "snapshot-codec"))]
mod corpus;
#[cfg(any(test, fuzzing))]
pub(crate) mod crypto;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(all(test, noise_pool_loom))]
mod loom;
#[cfg(any(test, fuzzing))]
pub(crate) mod net;
#[cfg(any(test, fuzzing))]
pub(crate) mod pair;
#[cfg(any(test, noise_pool_plain_wire))]
pub(crate) mod plain;
#[cfg(test)]
mod wire_page;

// What `net` knows of the crate.
#[cfg(any(test, fuzzing))]
use crate::io::{BoxFuture, BoxedStream, Stream, TargetData};
#[cfg(any(test, fuzzing))]
use crate::{Address, Connector, PeerId, Pool, Role};
