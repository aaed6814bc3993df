//! The queue of messages that a session has accepted and not written yet.
//!
//! Owns the order of accepted messages, the bytes that they may take, and the callers who wait for
//! room. A message is either in the queue whole or with its caller: nothing here may take a message
//! and then await. It knows neither frames nor the socket.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::base::config::{Settings, message_cost};
use crate::base::error::SendErrorKind;
use crate::base::sync::lock_std;
use crate::proto::wire::connection::Abilities;
use crate::session::signal::DriverSignal;

use super::budget::SendBudget;
use super::buffer::{QueuedMessages, SendBuffer};
use super::quota::{Quota, Reserved};
use super::unsent::Unsent;

/// What the queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueLevel {
    /// Messages accepted since the session began, those that were carried over among them.
    pub(crate) accepted: u64,
    /// Of those: accepted by an earlier session of the peer.
    pub(crate) carried: u64,
    /// Messages that have left the session unsent.
    pub(crate) left: u64,
    /// Bytes that are paid for, bookkeeping included: queued, and sealed but not written.
    pub(crate) bytes: usize,
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
    fn answer(self, signal: &DriverSignal, body: Bytes) -> Result<(), (Bytes, SendErrorKind)> {
        match self {
            Self::Accepted { wake } => {
                if wake {
                    signal.wake();
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
    /// Callers who wait for room take turns here, in order; the one who holds the permit is the head.
    turns: Semaphore,
    /// Notified when room has come back while a caller waits.
    room: Notify,
    own_limit: usize,
    budget_limit: usize,
}

#[derive(Debug, Default)]
struct State {
    buffer: SendBuffer,
    own: usize,
    budget: usize,
    /// What the messages of the callers who wait will cost. A newcomer passes them only where there is
    /// room for all of them and for it: without that, one full queue would leave many senders handing
    /// the turn from one to the next for each message, for as long as they keep sending.
    waiting: usize,
    /// The driver has seen the queue empty and sleeps. Set and cleared under this lock together with
    /// `buffer`, so that no message is left without a wake-up, and only the first needs one.
    driver_sleeps: bool,
    refused: Option<SendErrorKind>,
    /// Earlier sessions of the peer that have not said yet what they leave to this one: until then nothing
    /// goes out.
    predecessors: u32,
    accepted: u64,
    carried: u64,
    left: u64,
}

impl Queue {
    /// An empty queue.
    ///
    /// The session's own reserve is `min_queue`; the pool's budget pays for what is beyond. One
    /// message of the greatest size always fits beside the reserve, or it would wait for ever.
    /// So many messages were accepted and are sent already.
    pub(crate) fn new(settings: &Settings, abilities: &Abilities, accepted: u64) -> Self {
        let beyond = settings.max_queue.saturating_sub(settings.min_queue);
        Self {
            state: Mutex::new(State {
                buffer: SendBuffer::new(abilities),
                accepted,
                ..State::default()
            }),
            turns: Semaphore::new(1),
            room: Notify::new(),
            own_limit: settings.min_queue,
            budget_limit: beyond.max(message_cost(settings.max_message_size)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock_std(&self.state)
    }

    /// Accepts the message if there is room for which no other caller waits.
    ///
    /// # Errors
    ///
    /// The message, with [`SendErrorKind::Full`] or the reason why the session takes no more.
    #[inline]
    pub(crate) fn try_push(
        &self,
        signal: &DriverSignal,
        budget: &SendBudget,
        mut body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(), (Bytes, SendErrorKind)> {
        let offer = {
            let mut state = self.lock();
            let ahead = state.waiting;
            self.offer(&mut state, budget, &mut body, deadline, ahead)
        };
        offer.answer(signal, body)
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
        signal: &DriverSignal,
        budget: &SendBudget,
        body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(), (Bytes, SendErrorKind)> {
        let body = match self.try_push(signal, budget, body, deadline) {
            Err((body, SendErrorKind::Full)) => body,
            done => return done,
        };
        let _waiting = Waiting::new(self, message_cost(body.len()));
        // An error means that the queue was closed; the offer below says why.
        let _head = self.turns.acquire().await;
        let mut body = body;
        // From here on no other caller adds messages, so that room only grows.
        loop {
            let room = self.room.notified();
            let (offer, wait_for_budget) = {
                let mut state = self.lock();
                let cost = message_cost(body.len());
                let offer = self.offer(&mut state, budget, &mut body, deadline, 0);
                (offer, state.budget + cost <= self.budget_limit)
            };
            if !matches!(offer, PushResult::NoRoom) {
                return offer.answer(signal, body);
            }
            if wait_for_budget {
                return self.push_as_head(signal, budget, body, deadline).await;
            }
            room.await;
        }
    }

    /// The last part of [`push`](Self::push): the session has room, and either its own reserve or the
    /// pool's budget has to pay. The place among the waiters for the budget is kept throughout.
    async fn push_as_head(
        &self,
        signal: &DriverSignal,
        budget: &SendBudget,
        body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(), (Bytes, SendErrorKind)> {
        let cost = u32::try_from(message_cost(body.len())).unwrap_or(u32::MAX);
        let mut paid = pin!(budget.permits.acquire_many(cost));
        let mut body = body;
        loop {
            let room = self.room.notified();
            // Only what changes with the session's own room is tried here.
            let offer = self.offer_own(&mut self.lock(), budget, &mut body, deadline, 0);
            if !matches!(offer, PushResult::NoRoom) {
                return offer.answer(signal, body);
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
                                state.accept(&mut body, deadline, Quota::Budget, budget)
                            }
                            (Some(kind), _) => PushResult::Refused(kind),
                            // The pool never closes its budget while a session lives.
                            (None, Err(_)) => PushResult::Refused(SendErrorKind::Full),
                        }
                    };
                    return offer.answer(signal, body);
                }
            }
        }
    }

    fn offer_own(
        &self,
        state: &mut State,
        budget: &SendBudget,
        body: &mut Bytes,
        deadline: Option<Instant>,
        ahead: usize,
    ) -> PushResult {
        if let Some(kind) = state.refused {
            PushResult::Refused(kind)
        } else if state.own + ahead + message_cost(body.len()) <= self.own_limit {
            state.accept(body, deadline, Quota::Session, budget)
        } else {
            PushResult::NoRoom
        }
    }

    /// Accepts the message if there is room for it beside `ahead` bytes, which are others'.
    fn offer(
        &self,
        state: &mut State,
        budget: &SendBudget,
        body: &mut Bytes,
        deadline: Option<Instant>,
        ahead: usize,
    ) -> PushResult {
        let offer = self.offer_own(state, budget, body, deadline, ahead);
        if !matches!(offer, PushResult::NoRoom) {
            return offer;
        }
        let cost = message_cost(body.len());
        // A caller that waits for the budget itself has a place there, which a newcomer cannot pass.
        if state.budget + ahead + cost > self.budget_limit {
            return PushResult::NoRoom;
        }
        match u32::try_from(cost).map(|cost| budget.permits.try_acquire_many(cost)) {
            Ok(Ok(permit)) => {
                permit.forget();
                state.accept(body, deadline, Quota::Budget, budget)
            }
            _ => PushResult::NoRoom,
        }
    }

    /// Moves what has been accepted into the empty `into`. False: nothing may go out for now, though more
    /// may be there.
    pub(crate) fn take_all(&self, into: &mut QueuedMessages) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.lock();
        let may_go = state.predecessors == 0;
        if may_go {
            std::mem::swap(state.buffer.queued(), into);
        }
        may_go
    }

    /// Small messages are packed together up to so many bytes from now on, as far as the wire packs them.
    pub(crate) fn pack_up_to(&self, bytes: usize) {
        self.lock().buffer.pack_up_to(bytes);
    }

    /// For the driver before it sleeps: notes that the next message has to wake it. False when there
    /// already is one.
    pub(crate) fn sleep(&self) -> bool {
        let mut state = self.lock();
        let is_held = state.predecessors > 0;
        let queued = state.buffer.queued();
        let empty = queued.is_empty();
        queued.shrink();
        state.driver_sleeps = empty || is_held;
        state.driver_sleeps
    }

    /// Gives back what finished messages had cost.
    pub(crate) fn release(&self, budget: &SendBudget, reserved: Reserved) {
        if reserved == Reserved::default() {
            return;
        }
        let waiting = self.lock().give_back(reserved);
        if reserved.budget > 0 {
            budget.permits.add_permits(reserved.budget);
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
        self.turns.close();
        self.room.notify_waiters();
    }

    /// Puts what an earlier session has left in front of all that waits. It has paid, and stays paid for.
    /// Whether the driver has to be woken.
    ///
    /// # Errors
    ///
    /// The messages, when the session takes no more.
    pub(crate) fn carry_over(&self, unsent: Unsent) -> Result<bool, Unsent> {
        let mut state = self.lock();
        if state.refused.is_some() {
            return Err(unsent);
        }
        let (messages, reserved) = (unsent.messages(), unsent.reserved());
        state.own += reserved.own;
        state.budget += reserved.budget;
        state.accepted += messages;
        state.carried += messages;
        state.buffer.push_front(unsent.into_queue());
        Ok(std::mem::take(&mut state.driver_sleeps))
    }

    /// Nothing goes out until [`release_hold`](Self::release_hold) was called as often.
    pub(crate) fn hold(&self) {
        self.lock().predecessors += 1;
    }

    /// A predecessor has left what it had to leave. Whether the driver has to be woken.
    pub(crate) fn release_hold(&self) -> bool {
        let mut state = self.lock();
        state.predecessors = state.predecessors.saturating_sub(1);
        state.predecessors == 0 && std::mem::take(&mut state.driver_sleeps)
    }

    /// Takes out what is queued; it stays paid for until [`settle`](Self::settle).
    pub(crate) fn take_rest(&self) -> QueuedMessages {
        std::mem::take(self.lock().buffer.queued())
    }

    /// These leave the session, and what they have paid goes with them.
    pub(crate) fn leave(&self, unsent: &Unsent) {
        let waiting = {
            let mut state = self.lock();
            state.left += unsent.messages();
            state.give_back(unsent.reserved())
        };
        if waiting {
            self.room.notify_one();
        }
    }

    /// Gives all that is paid for back to the budget. Only after [`refuse`](Self::refuse), when nothing
    /// is queued any more and the driver has given up what it had taken.
    pub(crate) fn settle(&self, budget: &SendBudget) {
        let paid = {
            let mut state = self.lock();
            state.own = 0;
            std::mem::take(&mut state.budget)
        };
        if paid > 0 {
            budget.permits.add_permits(paid);
        }
    }

    pub(crate) fn level(&self) -> QueueLevel {
        let state = self.lock();
        let State { accepted, carried, left, own, budget, .. } = *state;
        QueueLevel { accepted, carried, left, bytes: own + budget }
    }
}

impl State {
    /// These bytes are not the session's any more. Whether a caller waits for room.
    fn give_back(&mut self, reserved: Reserved) -> bool {
        self.own = self.own.saturating_sub(reserved.own);
        self.budget = self.budget.saturating_sub(reserved.budget);
        self.waiting > 0
    }

    /// `body` is empty afterwards, or its bytes have been copied: then the caller drops it, when the
    /// lock is gone.
    #[inline]
    fn accept(
        &mut self,
        body: &mut Bytes,
        deadline: Option<Instant>,
        quota: Quota,
        budget: &SendBudget,
    ) -> PushResult {
        let cost = message_cost(body.len());
        match quota {
            Quota::Session => self.own += cost,
            Quota::Budget => self.budget += cost,
        }
        self.accepted += 1;
        let paid = self.own + self.budget;
        self.buffer.push(body, deadline, quota, paid, &budget.buffers);
        PushResult::Accepted { wake: std::mem::take(&mut self.driver_sleeps) }
    }
}

/// One caller's place among the waiters, and what its message costs.
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
