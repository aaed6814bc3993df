//! A wire for tests that lacks all that a wire may lack.
//!
//! Owns frames in clear text without a ping, a drain or a confirmation. It must never be compiled into
//! the product: it is there in unit tests, and where `--cfg noise_pool_plain_wire` gives it to all pools,
//! so that the integration tests run on it.

pub(crate) mod connection;
#[cfg(test)]
mod pool;
pub(crate) mod transport;
