//! A wire for tests that lacks all that a wire may lack.
//!
//! Owns frames in clear text without a ping, a drain or a confirmation. It must never be compiled into
//! the product.

pub(crate) mod connection;
#[cfg(test)]
mod pool;
#[cfg(test)]
pub(crate) mod transport;
