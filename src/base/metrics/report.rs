//! What became of a session's messages.
//!
//! Owns [`SessionReport`], as plain data. It must never guess: a message that was in flight, without a
//! confirmation, is unknown.

/// What became of a session's messages; final when it comes with the session's end.
///
/// What a session was given, `accepted` and `carried`, is what it delivered, what is unknown, what it left
/// unsent and what expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionReport {
    /// Messages that we accepted from our callers.
    pub accepted: u64,
    /// Messages that an earlier session of the peer had accepted and left unsent.
    pub carried: u64,
    /// Of both: received by the peer, as its goodbye confirmed.
    pub delivered: u64,
    /// Of both: in flight at the end, and not confirmed; the peer may have them or not.
    pub unknown: u64,
    /// Of both: certainly not delivered. They were given to the peer's next session, or wait for it for
    /// `carry_over`, unless the application has ended the session.
    pub unsent: u64,
    /// Of both: dropped because their deadline passed in the queue.
    pub expired: u64,
    /// Messages that we received whole.
    pub received: u64,
}

impl std::ops::AddAssign for SessionReport {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.carried += other.carried;
        self.delivered += other.delivered;
        self.unknown += other.unknown;
        self.unsent += other.unsent;
        self.expired += other.expired;
        self.received += other.received;
    }
}
