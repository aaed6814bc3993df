//! Options that are choices.
//!
//! Owns the enums that a configuration chooses from.

/// What a call does that meets a limit which may soon have room: on leases of a session, on sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits, first come first served, until the caller's own deadline.
    #[default]
    Wait,
    /// It fails at once and names the limit.
    Fail,
}

/// Whether handshakes from loopback addresses count against `source_rate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Loopback {
    /// They do not: a program on this machine has better ways to overload it, and a local proxy brings
    /// many strangers under one address.
    #[default]
    Exempt,
    /// They do, like any other source.
    Limited,
}
