//! The inbox: received messages of all sessions, on their way to the application.
//!
//! Owns the bound on undelivered bytes, in all and per session, and the order in which sessions that
//! found it full get room again. Messages of one session stay in order. A session that finds no room
//! keeps its messages and stops reading; nothing here may drop a message while its reader lives.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::base::config::Settings;
use crate::base::id::{PeerId, SessionId};
use crate::base::sync::lock_std;

use super::deferred_wakes::DeferredWakes;
use super::queue::{ReceiveQueue, Size};
use super::window::{Priority, ReceiveWindow, max_draining};

/// A received message.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Who sent it.
    pub peer: PeerId,
    /// On which session it came.
    pub session: SessionId,
    /// What was sent. It may share its memory with the messages that came in the same frame (64 KiB
    /// at most); copy a small one that is kept for long.
    pub body: Bytes,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("peer", &self.peer)
            .field("session", &self.session)
            .field("len", &self.body.len())
            .finish()
    }
}

/// Where the application receives the messages of all peers.
///
/// It is bounded: a peer whose messages are not taken is read no further, and then its sends wait.
/// Dropping the inbox discards what it holds and all that comes later.
pub struct Inbox {
    shared: Arc<Shared>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    /// The next message; `None` after the pool has ended and all was read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it returns, it has taken nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        poll_fn(|cx| {
            let mut wakes = DeferredWakes::default();
            let mut state = self.shared.lock();
            if let Some(message) = state.pop(&self.shared, &mut wakes) {
                return Poll::Ready(Some(message));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            state.wait(cx.waker(), &mut wakes);
            Poll::Pending
        })
        .await
    }

    /// Waits for at least one message and appends up to `limit` to `messages`; returns how many. 0
    /// after the pool has ended and all was read, or when `limit` is 0.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it returns, it has taken nothing.
    pub async fn recv_many(&mut self, messages: &mut Vec<Message>, limit: usize) -> usize {
        poll_fn(|cx| {
            let mut wakes = DeferredWakes::default();
            let mut state = self.shared.lock();
            let count = state.pop_many(&self.shared, &mut wakes, limit, messages);
            if count == 0 && limit > 0 && !state.closed {
                state.wait(cx.waker(), &mut wakes);
                return Poll::Pending;
            }
            Poll::Ready(count)
        })
        .await
    }

    /// The next message, if one is there now.
    pub fn try_recv(&mut self) -> Option<Message> {
        let mut wakes = DeferredWakes::default();
        self.shared.lock().pop(&self.shared, &mut wakes)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut wakes = DeferredWakes::default();
        let discarded = {
            let mut state = self.shared.lock();
            state.reader_gone = true;
            state.discarded += state.messages.size().messages as u64;
            state.bytes = 0;
            while let Some(window) = state.turns.pop_front() {
                window.waits.store(false, Ordering::Relaxed);
                wakes.drivers.push(window);
            }
            for run in &state.runs {
                wakes.drivers.push(Arc::clone(&run.window));
            }
            (std::mem::take(&mut state.messages), std::mem::take(&mut state.runs))
        };
        drop(discarded);
    }
}

/// The sessions' end of the inbox.
#[derive(Clone)]
pub(crate) struct InboxSender {
    senders: Arc<Senders>,
}

impl fmt::Debug for InboxSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboxSender").finish_non_exhaustive()
    }
}

/// Closes the inbox when the last sender goes, so that a reader never waits in vain.
struct Senders(Arc<Shared>);

impl Drop for Senders {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// An inbox and its sending end.
pub(crate) fn inbox(settings: &Settings) -> (InboxSender, Inbox) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        max: settings.inbox_bytes,
        max_ending: settings.inbox_bytes.saturating_add(settings.max_buffered_bytes),
        max_each: settings.max_undelivered,
        max_draining: max_draining(settings),
    });
    let senders = Arc::new(Senders(Arc::clone(&shared)));
    (InboxSender { senders }, Inbox { shared })
}

impl InboxSender {
    /// Moves messages from the front of `pending` into the inbox, as many as find room. What is left
    /// has to wait: the session is [woken](ReceiveWindow::wake) when it is its turn.
    pub(crate) fn offer(
        &self,
        window: &Arc<ReceiveWindow>,
        pending: &mut ReceiveQueue,
        priority: Priority,
    ) -> DeferredWakes {
        let shared = &self.senders.0;
        let mut wakes = DeferredWakes::default();
        let mut state = shared.lock();
        if state.reader_gone {
            state.discarded += pending.size().messages as u64;
            window.undelivered.store(0, Ordering::Relaxed);
            window.at_own_bound.store(false, Ordering::Relaxed);
            drop(state);
            pending.clear();
            return wakes;
        }
        let priority = if state.lifted { Priority::Ending } else { priority };
        let (max_each, max) = match priority {
            Priority::Usual => (shared.max_each, shared.max),
            Priority::Draining => (shared.max_draining, shared.max_ending),
            Priority::Ending => (usize::MAX, shared.max_ending),
        };
        let leads = state.turns.front().is_some_and(|first| Arc::ptr_eq(first, window));
        if leads {
            state.first_called = false;
        }
        let its_turn = priority != Priority::Usual || leads || state.turns.is_empty();
        let (undelivered, bytes) = (window.undelivered(), state.bytes);
        let mut own_bound = false;
        let moved = pending.move_to(&mut state.messages, |moved, next| {
            own_bound = !next.fits(undelivered + moved.cost, max_each);
            !own_bound && its_turn && next.fits(bytes + moved.cost, max)
        });
        state.bytes += moved.cost;
        window.undelivered.store(undelivered + moved.cost, Ordering::Relaxed);
        state.note_run(window, moved.messages);
        state.high_water = state.high_water.max(state.bytes);

        let wants_turn = !pending.is_empty() && !own_bound;
        window.at_own_bound.store(own_bound, Ordering::Relaxed);
        match (wants_turn, window.waits.load(Ordering::Relaxed)) {
            (true, false) => {
                window.waits.store(true, Ordering::Relaxed);
                state.turns.push_back(Arc::clone(window));
            }
            (false, true) => state.leave(shared, window, &mut wakes),
            _ => {}
        }
        if moved.messages > 0 {
            wakes.reader = state.reader.take();
        }
        wakes
    }

    /// Puts back what the holder of an exclusive lease did not read. It was counted against the
    /// session's own bound while the holder had it, so it goes in whatever the inbox holds.
    pub(crate) fn put_back(
        &self,
        window: &Arc<ReceiveWindow>,
        messages: ReceiveQueue,
    ) -> DeferredWakes {
        let Size { messages: count, cost } = messages.size();
        let mut wakes = DeferredWakes::default();
        let mut state = self.senders.0.lock();
        if state.reader_gone {
            state.discarded += count as u64;
            drop(state);
            return wakes;
        }
        window.undelivered.store(window.undelivered() + cost, Ordering::Relaxed);
        state.bytes += cost;
        state.high_water = state.high_water.max(state.bytes);
        state.messages.append(messages);
        state.note_run(window, count);
        if count > 0 {
            wakes.reader = state.reader.take();
        }
        wakes
    }

    /// The session wants no more room: it ends, or its messages go elsewhere. Sessions whose turn comes
    /// later must not wait for it.
    pub(crate) fn leave(&self, window: &Arc<ReceiveWindow>) -> DeferredWakes {
        let mut wakes = DeferredWakes::default();
        if !window.waits.load(Ordering::Relaxed) {
            return wakes;
        }
        let shared = &self.senders.0;
        let mut state = shared.lock();
        if window.waits.load(Ordering::Relaxed) {
            state.leave(shared, window, &mut wakes);
        }
        wakes
    }

    /// Counts messages that were received and could not be delivered.
    pub(crate) fn note_discarded(&self, count: usize) {
        self.senders.0.lock().discarded += count as u64;
    }

    /// The pool drains: the bounds give way to a second and final one (`max_buffered_bytes` more),
    /// since the task that drains may be the one that reads the inbox.
    pub(crate) fn lift_for_drain(&self) {
        let mut wakes = DeferredWakes::default();
        let mut state = self.senders.0.lock();
        state.lifted = true;
        while let Some(window) = state.turns.pop_front() {
            window.waits.store(false, Ordering::Relaxed);
            wakes.drivers.push(window);
        }
        for run in &state.runs {
            if run.window.at_own_bound.load(Ordering::Relaxed) {
                wakes.drivers.push(Arc::clone(&run.window));
            }
        }
    }

    /// The pool has ended: the reader gets `None` once it has read what is there.
    pub(crate) fn close(&self) {
        self.senders.0.close();
    }

    /// Bytes held, the most that were ever held, and messages discarded because no reader was left.
    pub(crate) fn gauge(&self) -> InboxGauge {
        let state = self.senders.0.lock();
        InboxGauge { held: state.bytes, high_water: state.high_water, discarded: state.discarded }
    }
}

/// What the inbox holds and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboxGauge {
    /// Bytes, bookkeeping included.
    pub(crate) held: usize,
    /// The most bytes at one moment.
    pub(crate) high_water: usize,
    /// Messages that were received when no reader was left.
    pub(crate) discarded: u64,
}

/// What the inbox and its senders share.
struct Shared {
    state: Mutex<State>,
    max: usize,
    max_ending: usize,
    max_each: usize,
    max_draining: usize,
}

#[derive(Default)]
struct State {
    messages: ReceiveQueue,
    /// Whose they are, front to back. One entry for many messages: the count of a session's handle is
    /// not touched for each.
    runs: VecDeque<SenderRun>,
    bytes: usize,
    high_water: usize,
    /// Sessions that found the inbox full, in turn.
    turns: VecDeque<Arc<ReceiveWindow>>,
    /// The first of them has been woken and has not come yet.
    first_called: bool,
    reader: Option<Waker>,
    discarded: u64,
    reader_gone: bool,
    lifted: bool,
    closed: bool,
}

struct SenderRun {
    window: Arc<ReceiveWindow>,
    count: usize,
}

/// Batches for which an emptied inbox keeps memory (2 MiB); what a surge needed beyond is given back.
const LARGE_QUEUE: usize = 52_428;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock_std(&self.state)
    }

    fn close(&self) {
        let reader = {
            let mut state = self.lock();
            state.closed = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl State {
    /// Takes the first message.
    fn pop(&mut self, shared: &Shared, wakes: &mut DeferredWakes) -> Option<Message> {
        let body = self.messages.pop()?;
        let window = &self.runs.front()?.window;
        let message = Message { peer: window.peer, session: window.session, body };
        self.taken(shared, wakes, Size::of_message(&message.body));
        self.wake_first(shared, wakes);
        Some(message)
    }

    /// Takes up to `limit` messages, and says how many.
    fn pop_many(
        &mut self,
        shared: &Shared,
        wakes: &mut DeferredWakes,
        limit: usize,
        messages: &mut Vec<Message>,
    ) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(run) = self.runs.front()
        {
            let ReceiveWindow { peer, session, .. } = *run.window;
            let taken = self.messages.take(run.count.min(limit - count), |body| {
                messages.push(Message { peer, session, body });
            });
            count += taken.messages;
            self.taken(shared, wakes, taken);
        }
        if count > 0 {
            self.wake_first(shared, wakes);
        }
        count
    }

    /// Messages of the first run have been taken.
    #[inline]
    fn taken(&mut self, shared: &Shared, wakes: &mut DeferredWakes, taken: Size) {
        self.bytes -= taken.cost;
        let Some(run) = self.runs.front_mut() else { return };
        run.count -= taken.messages;
        let left = run.window.undelivered().saturating_sub(taken.cost);
        run.window.undelivered.store(left, Ordering::Relaxed);
        // Not at the first free byte: each wake-up is to be worth it.
        if left <= shared.max_each / 2 && run.window.at_own_bound.load(Ordering::Relaxed) {
            run.window.at_own_bound.store(false, Ordering::Relaxed);
            wakes.drivers.push(Arc::clone(&run.window));
        }
        if run.count == 0
            && let Some(run) = self.runs.pop_front()
        {
            wakes.push_gone(run.window);
        }
        self.messages.shrink(LARGE_QUEUE);
    }

    /// Wakes the session whose turn is next when an eighth is free, or nothing is held at all.
    fn wake_first(&mut self, shared: &Shared, wakes: &mut DeferredWakes) {
        if !self.first_called
            && let Some(first) = self.turns.front()
            && (self.messages.is_empty() || self.bytes <= shared.max - shared.max / 8)
        {
            self.first_called = true;
            wakes.drivers.push(Arc::clone(first));
        }
    }

    fn note_run(&mut self, window: &Arc<ReceiveWindow>, count: usize) {
        if count == 0 {
            return;
        }
        match self.runs.back_mut() {
            Some(last) if Arc::ptr_eq(&last.window, window) => last.count += count,
            _ => self.runs.push_back(SenderRun { window: Arc::clone(window), count }),
        }
    }

    fn leave(&mut self, shared: &Shared, window: &Arc<ReceiveWindow>, wakes: &mut DeferredWakes) {
        window.waits.store(false, Ordering::Relaxed);
        if self.turns.front().is_some_and(|first| Arc::ptr_eq(first, window)) {
            self.first_called = false;
        }
        self.turns.retain(|other| !Arc::ptr_eq(other, window));
        self.wake_first(shared, wakes);
    }

    fn wait(&mut self, waker: &Waker, wakes: &mut DeferredWakes) {
        match &mut self.reader {
            Some(reader) if reader.will_wake(waker) => {}
            reader => wakes.replaced = reader.replace(waker.clone()),
        }
    }
}

#[cfg(test)]
#[path = "../../verify/session/receive/inbox.rs"]
mod tests;
