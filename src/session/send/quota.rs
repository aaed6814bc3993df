//! What a queued message costs, and who pays.
//!
//! Owns the arithmetic. It must never hold anything itself.

/// Who pays for a message while it is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// The session's own reserve.
    Session,
    /// The pool's budget.
    Budget,
}

/// Bytes that messages have reserved, by who pays for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(super) own: usize,
    pub(super) budget: usize,
}

impl Reserved {
    /// `bytes` of this quota.
    pub(crate) fn of(quota: Quota, bytes: usize) -> Self {
        match quota {
            Quota::Session => Self { own: bytes, budget: 0 },
            Quota::Budget => Self { own: 0, budget: bytes },
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.own += other.own;
        self.budget += other.budget;
    }

    /// `other` is part of it.
    pub(crate) fn subtract(&mut self, other: Self) {
        self.own -= other.own;
        self.budget -= other.budget;
    }
}
