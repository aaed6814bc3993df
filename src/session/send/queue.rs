//! The queue of messages that a session has accepted and not written yet.
//!
//! Owns the order of accepted messages, the bytes that they may take, and the callers who wait for
//! room. A message is either in the queue whole or with its caller: nothing here may take a message
//! and then await. It knows neither frames nor the socket.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::base::config::{MESSAGE_OVERHEAD, Settings};
use crate::base::error::SendErrorKind;

use super::Shared;
use super::control::DriverSignal;
use super::line::{Quota, SendBuffer};

/// Bytes of finished messages, by who paid for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    own: usize,
    budget: usize,
}

impl Reserved {
    /// `bytes` that `payer` has paid.
    pub(super) fn of(quota: Quota, bytes: usize) -> Self {
        match quota {
            Quota::Session => Self { own: bytes, budget: 0 },
            Quota::Budget => Self { own: 0, budget: bytes },
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.own += other.own;
        self.budget += other.budget;
    }
}

/// What the queue holds, for pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueLevel {
    /// Messages accepted since the session began.
    pub(super) accepted: u64,
    /// Bytes that are paid for, bookkeeping included: queued, and sealed but not written.
    pub(super) bytes: usize,
}

/// What becomes of a message that is offered.
enum PushResult {
    Accepted { wake: bool },
    NoRoom,
    Refused(SendErrorKind),
}

impl PushResult {
    /// What the caller of `body` gets, when the lock is gone; wakes the driver if it has to.
    #[inline]
    fn answer(self, control: &DriverSignal, body: Bytes) -> Result<(), (Bytes, SendErrorKind)> {
        match self {
            Self::Accepted { wake } => {
                if wake {
                    control.wake();
                }
                Ok(())
            }
            Self::NoRoom => Err((body, SendErrorKind::Full)),
            Self::Refused(kind) => Err((body, kind)),
        }
    }
}

/// A session's queue; see the module.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Callers who wait for room stand here, in order; the one who holds the permit is the head.
    line: Semaphore,
    /// Told when room has come back while somebody waits.
    room: Notify,
    own_limit: usize,
    budget_limit: usize,
}

#[derive(Debug, Default)]
struct State {
    line: SendBuffer,
    own: usize,
    budget: usize,
    /// What the messages of those in the line will cost. A newcomer passes them only where there is
    /// room for all of them and for it: without that, one full queue would leave many senders handing
    /// the turn from one to the next for each message, for as long as they keep sending.
    waiting: usize,
    /// The driver has seen the queue empty and sleeps. Set and cleared under this lock together with
    /// `line`, so that no message is left without a wake-up, and only the first needs one.
    driver_sleeps: bool,
    refused: Option<SendErrorKind>,
    accepted: u64,
}

/// What a message of `len` bytes costs.
pub(super) fn cost(len: usize) -> usize {
    len + MESSAGE_OVERHEAD
}

impl Queue {
    /// An empty queue.
    ///
    /// The session's own reserve is `min_queue`; the pool's budget pays for what is beyond. One
    /// message of the greatest size always fits beside the reserve, or it would wait for ever.
    pub(crate) fn new(settings: &Settings) -> Self {
        let beyond = settings.max_queue.saturating_sub(settings.min_queue);
        Self {
            state: Mutex::default(),
            line: Semaphore::new(1),
            room: Notify::new(),
            own_limit: settings.min_queue,
            budget_limit: beyond.max(cost(settings.max_message_size)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock cannot leave it half changed: no user code runs there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts the message if there is room that nobody waits for.
    ///
    /// # Errors
    ///
    /// The message, with [`SendErrorKind::Full`] or the reason why the session takes no more.
    #[inline]
    pub(crate) fn try_push(
        &self,
        control: &DriverSignal,
        shared: &Shared,
        mut body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(), (Bytes, SendErrorKind)> {
        let offer = {
            let mut state = self.lock();
            let ahead = state.waiting;
            self.offer(&mut state, shared, &mut body, deadline, ahead)
        };
        offer.answer(control, body)
    }

    /// Accepts the message as soon as there is room, first come first served.
    ///
    /// Cancel safe: dropped before it returns, the message was not accepted.
    ///
    /// # Errors
    ///
    /// The message, with the reason why the session takes no more.
    pub(crate) async fn push(
        &self,
        control: &DriverSignal,
        shared: &Shared,
        body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(), (Bytes, SendErrorKind)> {
        let body = match self.try_push(control, shared, body, deadline) {
            Err((body, SendErrorKind::Full)) => body,
            done => return done,
        };
        let _waiting = Waiting::new(self, cost(body.len()));
        // An error means that the queue was closed; the offer below says why.
        let _head = self.line.acquire().await;
        let mut body = body;
        // From here on nobody else adds messages, so that room only grows.
        loop {
            let room = self.room.notified();
            let (offer, wait_for_budget) = {
                let mut state = self.lock();
                let cost = cost(body.len());
                let offer = self.offer(&mut state, shared, &mut body, deadline, 0);
                (offer, state.budget + cost <= self.budget_limit)
            };
            if !matches!(offer, PushResult::NoRoom) {
                return offer.answer(control, body);
            }
            if wait_for_budget {
                return self.push_as_head(control, shared, body, deadline).await;
            }
            room.await;
        }
    }

    /// The last part of [`push`](Self::push): the session has room, and either its own reserve or the
    /// pool's budget has to pay. The place in the budget's line is kept throughout.
    async fn push_as_head(
        &self,
        control: &DriverSignal,
        shared: &Shared,
        body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(), (Bytes, SendErrorKind)> {
        let cost = u32::try_from(cost(body.len())).unwrap_or(u32::MAX);
        let mut paid = pin!(shared.budget.acquire_many(cost));
        let mut body = body;
        loop {
            let room = self.room.notified();
            // Only what changes with the session's own room is tried here.
            let offer = self.offer_own(&mut self.lock(), shared, &mut body, deadline, 0);
            if !matches!(offer, PushResult::NoRoom) {
                return offer.answer(control, body);
            }
            tokio::select! {
                biased;
                () = room => {}
                permit = &mut paid => {
                    let offer = {
                        let mut state = self.lock();
                        match (state.refused, permit) {
                            (None, Ok(permit)) => {
                                permit.forget();
                                state.accept(&mut body, deadline, Quota::Budget, shared)
                            }
                            (Some(kind), _) => PushResult::Refused(kind),
                            // The pool never closes its budget while a session lives.
                            (None, Err(_)) => PushResult::Refused(SendErrorKind::Full),
                        }
                    };
                    return offer.answer(control, body);
                }
            }
        }
    }

    fn offer_own(
        &self,
        state: &mut State,
        shared: &Shared,
        body: &mut Bytes,
        deadline: Option<Instant>,
        ahead: usize,
    ) -> PushResult {
        if let Some(kind) = state.refused {
            PushResult::Refused(kind)
        } else if state.own + ahead + cost(body.len()) <= self.own_limit {
            state.accept(body, deadline, Quota::Session, shared)
        } else {
            PushResult::NoRoom
        }
    }

    /// Accepts the message if there is room for it beside `ahead` bytes, which are others'.
    fn offer(
        &self,
        state: &mut State,
        shared: &Shared,
        body: &mut Bytes,
        deadline: Option<Instant>,
        ahead: usize,
    ) -> PushResult {
        let offer = self.offer_own(state, shared, body, deadline, ahead);
        if !matches!(offer, PushResult::NoRoom) {
            return offer;
        }
        let cost = cost(body.len());
        // Whoever waits for the budget itself has a place in its line, which a newcomer cannot pass.
        if state.budget + ahead + cost > self.budget_limit {
            return PushResult::NoRoom;
        }
        match u32::try_from(cost).map(|cost| shared.budget.try_acquire_many(cost)) {
            Ok(Ok(permit)) => {
                permit.forget();
                state.accept(body, deadline, Quota::Budget, shared)
            }
            _ => PushResult::NoRoom,
        }
    }

    /// Moves what has been accepted into the empty `into`.
    pub(super) fn take_all(&self, into: &mut SendBuffer) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut self.lock().line, into);
    }

    /// For the driver before it sleeps: notes that the next message has to wake it. False when there
    /// already is one.
    pub(super) fn sleep(&self) -> bool {
        let mut state = self.lock();
        state.driver_sleeps = state.line.is_empty();
        state.line.give_up_memory();
        state.driver_sleeps
    }

    /// Gives back what finished messages had cost.
    pub(super) fn release(&self, budget: &Semaphore, reserved: Reserved) {
        if reserved == Reserved::default() {
            return;
        }
        let waiting = {
            let mut state = self.lock();
            state.own = state.own.saturating_sub(reserved.own);
            state.budget = state.budget.saturating_sub(reserved.budget);
            state.waiting > 0
        };
        if reserved.budget > 0 {
            budget.add_permits(reserved.budget);
        }
        if waiting {
            self.room.notify_one();
        }
    }

    /// From now on offers are answered with `kind`; callers who wait get their messages back. What is
    /// in the queue stays. A final reason ([`SendErrorKind::Closed`]) replaces a retirement's.
    pub(crate) fn refuse(&self, kind: SendErrorKind) {
        {
            let mut state = self.lock();
            match (state.refused, kind) {
                (None, _) | (Some(SendErrorKind::Retired(_)), SendErrorKind::Closed(_)) => {
                    state.refused = Some(kind);
                }
                _ => return,
            }
        }
        self.line.close();
        self.room.notify_waiters();
    }

    /// Drops what is queued and gives all that is paid for back to the budget. Only after
    /// [`refuse`](Self::refuse), when the driver has given up what it had taken.
    pub(super) fn clear(&self, budget: &Semaphore) {
        let (line, paid) = {
            let mut state = self.lock();
            state.own = 0;
            (std::mem::take(&mut state.line), std::mem::take(&mut state.budget))
        };
        drop(line);
        if paid > 0 {
            budget.add_permits(paid);
        }
    }

    pub(super) fn held(&self) -> QueueLevel {
        let state = self.lock();
        QueueLevel { accepted: state.accepted, bytes: state.own + state.budget }
    }
}

impl State {
    /// `body` is empty afterwards, or its bytes have been copied: then the caller drops it, when the
    /// lock is gone.
    #[inline]
    fn accept(
        &mut self,
        body: &mut Bytes,
        deadline: Option<Instant>,
        quota: Quota,
        shared: &Shared,
    ) -> PushResult {
        let cost = cost(body.len());
        match quota {
            Quota::Session => self.own += cost,
            Quota::Budget => self.budget += cost,
        }
        self.accepted += 1;
        self.line.push(body, deadline, quota, self.own + self.budget, &shared.stock);
        PushResult::Accepted { wake: std::mem::take(&mut self.driver_sleeps) }
    }
}

/// One caller's place among those who wait, and what its message costs.
struct Waiting<'a>(&'a Queue, usize);

impl<'a> Waiting<'a> {
    fn new(queue: &'a Queue, cost: usize) -> Self {
        queue.lock().waiting += cost;
        Self(queue, cost)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= self.1;
    }
}
