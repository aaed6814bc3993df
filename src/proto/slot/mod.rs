//! What the pool knows of one peer, and which of two connections lives.
//!
//! Owns every decision about "exactly one session per peer". It is pure: no lock, no clock, no I/O.
//!
//! * [`simultaneous_open`]: the rule, with its two tables, as types and pure functions.
//! * [`machine`]: the slot, which applies the rule to what it holds.

mod machine;
mod simultaneous_open;

pub(crate) use machine::{Disconnected, Displaced, Ended, Slot, View};
pub(crate) use simultaneous_open::{
    AcceptCase, AcceptDecision, Claim, DrainCase, Hearing, InboundCase, InboundDecision, KeyOrder,
    Phase,
};

#[cfg(test)]
#[path = "../../verify/model/mod.rs"]
mod model;
