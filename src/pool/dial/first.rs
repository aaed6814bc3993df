//! Messages that callers give to a dial, to travel with its commit.
//!
//! Owns them until it is settled for each whether it was sent. A message is taken back by its caller as
//! long as it has not left; once it has, only the peer's verdict says what became of it: a yes means that
//! it was sent, a no that it was not. Without a verdict nobody knows. It must never let a message leave
//! twice before a no.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::base::config::message_cost;
use crate::base::sync::{Mutex, lock};

/// How far a message has come. Waiting → Left → Sent, Waiting or Unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It is here.
    Waiting,
    /// It is under way behind message 3, and the verdict is awaited.
    Left,
    /// The peer has accepted the connection on which it travelled.
    Sent,
    /// The connection broke before the verdict.
    Unknown,
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was sent, on a session.
    Sent,
    /// It was not sent.
    Unsent,
    /// It was in flight when its connection broke.
    Unknown,
}

struct Entry {
    number: u64,
    message: Bytes,
    progress: Progress,
    /// Its caller has gone.
    abandoned: bool,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    offered: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct FirstMessages {
    state: Mutex<State>,
    /// Notified when a verdict has come, or will not.
    settled: Notify,
}

/// A caller's message. Dropped, it is taken back if it has not left.
pub(crate) struct Offered {
    messages: Arc<FirstMessages>,
    number: u64,
}

impl FirstMessages {
    /// Takes a message in, if all together are no more than `max` bytes, bookkeeping included.
    pub(crate) fn offer(self: &Arc<Self>, message: &Bytes, max: usize) -> Option<Offered> {
        let mut state = lock(&self.state);
        let held: usize = state.entries.iter().map(|entry| message_cost(entry.message.len())).sum();
        if held + message_cost(message.len()) > max {
            return None;
        }
        let number = state.offered;
        state.offered += 1;
        let (message, progress) = (message.clone(), Progress::Waiting);
        state.entries.push(Entry { number, message, progress, abandoned: false });
        Some(Offered { messages: self.clone(), number })
    }

    /// The messages leave with a commit, as far as the peer accepts their sizes. What has come of it is
    /// to be said next.
    pub(crate) fn leave(&self, max_message: usize) -> Vec<Bytes> {
        let mut state = lock(&self.state);
        let waiting = state.entries.iter_mut().filter(|entry| entry.progress == Progress::Waiting);
        let leave = |entry: &mut Entry| {
            entry.progress = Progress::Left;
            entry.message.clone()
        };
        waiting.filter(|entry| entry.message.len() <= max_message).map(leave).collect()
    }

    /// The peer has accepted: those that had left are sent.
    pub(crate) fn accepted(&self) {
        self.settle(Progress::Sent);
    }

    /// The peer has refused: those that had left have gone nowhere.
    pub(crate) fn refused(&self) {
        self.settle(Progress::Waiting);
    }

    /// There will be no verdict.
    pub(crate) fn lost(&self) {
        self.settle(Progress::Unknown);
    }

    fn settle(&self, progress: Progress) {
        let mut state = lock(&self.state);
        let mut had_left = false;
        for entry in state.entries.iter_mut().filter(|entry| entry.progress == Progress::Left) {
            entry.progress = progress;
            had_left = true;
        }
        let abandoned: Vec<_> = state.entries.extract_if(.., |entry| entry.abandoned).collect();
        drop(state);
        drop(abandoned);
        if had_left {
            self.settled.notify_waiters();
        }
    }
}

impl Offered {
    /// Waits until it is settled what has become of the message: at once, unless it has left.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn fate(&self) -> Fate {
        loop {
            let settled = self.messages.settled.notified();
            if let Some(fate) = self.take_back() {
                return fate;
            }
            settled.await;
        }
    }

    /// What has become of the message by now; it does not leave any more then. `None`: it is under way.
    pub(crate) fn take_back(&self) -> Option<Fate> {
        let mut state = lock(&self.messages.state);
        let Some(place) = state.entries.iter().position(|entry| entry.number == self.number) else {
            return Some(Fate::Unsent);
        };
        let fate = match state.entries[place].progress {
            Progress::Waiting => Fate::Unsent,
            Progress::Sent => Fate::Sent,
            Progress::Unknown => Fate::Unknown,
            Progress::Left => return None,
        };
        let entry = state.entries.remove(place);
        drop(state);
        drop(entry);
        Some(fate)
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if self.take_back().is_none() {
            let mut state = lock(&self.messages.state);
            let mine = state.entries.iter_mut().find(|entry| entry.number == self.number);
            if let Some(mine) = mine {
                mine.abandoned = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MAX: usize = 1_000;

    fn offer(messages: &Arc<FirstMessages>, body: &'static [u8]) -> Offered {
        messages.offer(&Bytes::from_static(body), MAX).unwrap()
    }

    #[test]
    fn a_message_leaves_once_and_comes_back_with_a_no() {
        let messages = Arc::new(FirstMessages::default());
        let (one, other) = (offer(&messages, b"one"), offer(&messages, b"other"));
        assert_eq!(messages.leave(3), ["one"], "the peer does not take the other");
        assert_eq!(messages.leave(9), ["other"]);
        assert!(messages.leave(9).is_empty());
        assert!(one.fate().now_or_never().is_none());
        messages.refused();
        assert_eq!(one.fate().now_or_never(), Some(Fate::Unsent));
        assert_eq!(messages.leave(9), ["other"], "the one was taken back");
        messages.accepted();
        assert_eq!(other.fate().now_or_never(), Some(Fate::Sent));
    }

    #[test]
    fn what_is_dropped_does_not_leave_and_keeps_no_room() {
        let messages = Arc::new(FirstMessages::default());
        drop(offer(&messages, b"gone"));
        assert!(messages.leave(9).is_empty());
        let under_way = offer(&messages, &[0; MAX / 2]);
        assert!(messages.offer(&Bytes::from_static(&[0; MAX / 2]), MAX).is_none(), "no room");
        assert_eq!(messages.leave(MAX).len(), 1);
        drop(under_way);
        messages.refused();
        assert!(messages.leave(MAX).is_empty(), "nobody waits for it");
        assert!(messages.offer(&Bytes::from_static(&[0; MAX / 2]), MAX).is_some());
    }

    #[tokio::test]
    async fn without_a_verdict_nobody_knows() {
        let messages = Arc::new(FirstMessages::default());
        let (left, waiting) = (offer(&messages, b"left"), offer(&messages, b"waiting, and long"));
        assert_eq!(messages.leave(4).len(), 1);
        let (fate, ()) = tokio::join!(left.fate(), async { messages.lost() });
        assert_eq!((fate, waiting.fate().await), (Fate::Unknown, Fate::Unsent));
    }
}
