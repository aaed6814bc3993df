//! Options that are choices.
//!
//! Owns the enums that a configuration chooses from.

/// What a caller gets who meets a limit that may soon have room (leases of a session, sessions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhenFull {
    /// Wait, first come first served, until the caller's own deadline.
    #[default]
    Wait,
    /// Fail at once and name the limit.
    Fail,
}

/// Whether handshakes from loopback addresses count against `source_rate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Loopback {
    /// They do not: whoever runs on this machine has better ways to overload it, and a local proxy
    /// brings many strangers under one address.
    #[default]
    Exempt,
    /// They do, like any other source.
    Limited,
}
