//! What became of a session's messages.
//!
//! Owns [`SessionReport`], as plain data. It must never guess: a message without a confirmation is
//! unknown.

/// What became of a session's messages; final when it comes with the session's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionReport {
    /// Messages that we accepted from our callers.
    pub accepted: u64,
    /// Of those: received by the peer, as its goodbye confirmed.
    pub delivered: u64,
    /// Of those: neither confirmed nor expired; the peer may have them or not.
    pub unknown: u64,
    /// Of those: dropped because their deadline passed in the queue.
    pub expired: u64,
    /// Messages that we received whole.
    pub received: u64,
}

impl std::ops::AddAssign for SessionReport {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.unknown += other.unknown;
        self.expired += other.expired;
        self.received += other.received;
    }
}
