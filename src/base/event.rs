//! What happens in a pool, for its subscribers.
//!
//! Owns [`PoolEvent`], the bounded subscription [`Events`] and the publishing end. Publishing must
//! never wait for a reader: one that is too slow loses the oldest events and learns how many.
//! Without subscribers an event is not even built.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::broadcast;

use crate::base::address::Address;
use crate::base::error::{CloseReason, DialError, Limit, RejectReason, RejectedBy};
use crate::base::id::{AttemptId, Origin, PeerId, SessionId};
use crate::base::metrics::{DialFailure, HandshakeFailure, SessionReport};
use crate::base::sync::lock_std;

/// Something that happened in a pool.
///
/// As JSON (feature `serde`) each event is an object whose `event` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "event", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PoolEvent {
    /// A session was pooled. It comes before the session's first message.
    #[non_exhaustive]
    Opened {
        /// The peer at the other end.
        peer: PeerId,
        /// Its number.
        session: SessionId,
        /// The side that opened it.
        origin: Origin,
        /// The other end's address, if the stream has one.
        remote: Option<Address>,
        /// How long the handshake took, verdict included.
        #[cfg_attr(
            feature = "serde",
            serde(rename = "handshake_time_ns", with = "crate::base::metrics::nanos")
        )]
        handshake_time: Duration,
    },
    /// A session ended. It comes after the session's last message.
    #[non_exhaustive]
    Closed {
        /// The peer at the other end.
        peer: PeerId,
        /// Its number.
        session: SessionId,
        /// Why.
        reason: CloseReason,
        /// What became of its messages.
        report: SessionReport,
    },
    /// A session has taken over what an earlier one of the same peer had accepted and not sent.
    #[non_exhaustive]
    CarriedOver {
        /// The peer at the other end.
        peer: PeerId,
        /// The session that sends them.
        session: SessionId,
        /// How many messages.
        messages: u64,
    },
    /// Messages that a session had accepted and not sent are given up: no other session of the peer has
    /// come within `carry_over`, or it does not take messages so long, or the application has ended the
    /// session. They have certainly not been delivered.
    #[non_exhaustive]
    Unsent {
        /// The peer to whom they were to go.
        peer: PeerId,
        /// How many messages.
        messages: u64,
    },
    /// A dial began.
    #[non_exhaustive]
    DialStarted {
        /// The peer at the other end.
        peer: PeerId,
        /// Its number.
        attempt: AttemptId,
    },
    /// A dial ended in a session.
    #[non_exhaustive]
    DialSucceeded {
        /// The peer at the other end.
        peer: PeerId,
        /// Its number.
        attempt: AttemptId,
        /// The session.
        session: SessionId,
        /// How long it took.
        #[cfg_attr(
            feature = "serde",
            serde(rename = "elapsed_ns", with = "crate::base::metrics::nanos")
        )]
        elapsed: Duration,
    },
    /// A dial ended otherwise.
    #[non_exhaustive]
    DialFailed {
        /// The peer at the other end.
        peer: PeerId,
        /// Its number.
        attempt: AttemptId,
        /// What kind of failure.
        cause: DialFailure,
        /// The failure and its sources, in words.
        detail: String,
        /// How long it took.
        #[cfg_attr(
            feature = "serde",
            serde(rename = "elapsed_ns", with = "crate::base::metrics::nanos")
        )]
        elapsed: Duration,
    },
    /// A session was refused after its handshake.
    #[non_exhaustive]
    Rejected {
        /// The peer at the other end.
        peer: PeerId,
        /// Why.
        reason: RejectReason,
        /// The side that refused.
        by: RejectedBy,
    },
    /// An idle session made room for another; `Closed` follows when it has drained.
    #[non_exhaustive]
    Evicted {
        /// The peer at the other end.
        peer: PeerId,
        /// Its number.
        session: SessionId,
    },
    /// A newer session of the same peer replaced one; `Closed` follows when it has drained.
    #[non_exhaustive]
    Superseded {
        /// The peer at the other end.
        peer: PeerId,
        /// The older one.
        session: SessionId,
        /// The newer one.
        by: SessionId,
    },
    /// An inbound handshake failed.
    #[non_exhaustive]
    HandshakeFailed {
        /// Where it came from, if the stream has an address.
        remote: Option<Address>,
        /// What kind of failure.
        cause: HandshakeFailure,
    },
    /// Two processes seem to use this peer's identity at the same time.
    #[non_exhaustive]
    IdentityConflict {
        /// The peer.
        peer: PeerId,
    },
    /// One of our own limits turned something away.
    #[non_exhaustive]
    LimitHit {
        /// Which.
        limit: Limit,
    },
}

impl PoolEvent {
    /// A dial failed with this error.
    pub(crate) fn dial_failed(
        peer: PeerId,
        attempt: AttemptId,
        error: &DialError,
        elapsed: Duration,
    ) -> Self {
        Self::DialFailed {
            peer,
            attempt,
            cause: error.into(),
            detail: with_sources(error.cause()),
            elapsed,
        }
    }
}

/// An error and all its sources, in one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some errors repeat their source in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// The reader was too slow, and the oldest events were lost; how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} events were lost: the subscriber is too slow")]
pub struct Lagged(pub u64);

/// A subscription to a pool's events: those that happen after it was made.
///
/// The pool keeps `event_capacity` events for the slowest subscriber and never waits for it.
pub struct Events {
    /// None if the pool had ended before the subscription was made.
    receiver: Option<broadcast::Receiver<PoolEvent>>,
    /// Dropped after the receiver: while it is counted, it is there.
    _counted: Counted,
}

impl Events {
    /// The next event, as soon as there is one; `None` when the pool has ended and all was read.
    ///
    /// # Errors
    ///
    /// [`Lagged`] once after events were lost; the next call goes on with the oldest that is left.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a call that is dropped has taken no event.
    pub async fn recv(&mut self) -> Option<Result<PoolEvent, Lagged>> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Err(Lagged(lost))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event if there is one now. `None` says nothing about the pool.
    ///
    /// # Errors
    ///
    /// [`Lagged`] as in [`Events::recv`].
    pub fn try_recv(&mut self) -> Option<Result<PoolEvent, Lagged>> {
        match self.receiver.as_mut()?.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::TryRecvError::Lagged(lost)) => Some(Err(Lagged(lost))),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                None
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// One in the count of subscribers.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The publishing end; one per pool.
pub(crate) struct Publisher {
    /// Read before anything else: a pool without subscribers pays one load per event.
    subscribers: Arc<AtomicUsize>,
    channel: Mutex<Channel>,
    capacity: usize,
}

enum Channel {
    /// There was no subscriber yet: the buffer does not exist.
    Unused,
    Open(broadcast::Sender<PoolEvent>),
    /// The pool has ended.
    Ended,
}

impl Publisher {
    /// Keeps `capacity` events (at least one) for the slowest subscriber, once there is one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            subscribers: Arc::default(),
            channel: Mutex::new(Channel::Unused),
            capacity: capacity.max(1),
        }
    }

    /// Publishes to the subscribers; `event` is called only if there are any. Never waits for them.
    pub(crate) fn publish(&self, event: impl FnOnce() -> PoolEvent) {
        // A subscriber from before this event has raised the count before it, so it is seen.
        if self.subscribers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let event = event();
        if let Channel::Open(sender) = &*self.channel() {
            // An error says that the last subscriber has just gone.
            let _ = sender.send(event);
        }
    }

    /// A new subscription, to what happens from now on.
    pub(crate) fn subscribe(&self) -> Events {
        let mut channel = self.channel();
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.subscribers));
        let receiver = match &*channel {
            Channel::Open(sender) => Some(sender.subscribe()),
            Channel::Ended => None,
            Channel::Unused => {
                let (sender, receiver) = broadcast::channel(self.capacity);
                *channel = Channel::Open(sender);
                Some(receiver)
            }
        };
        Events { receiver, _counted: counted }
    }

    /// The pool has ended: subscribers read what is left, then `None`. Idempotent.
    pub(crate) fn end(&self) {
        // Dropped after the guard: it wakes readers.
        let _sender = std::mem::replace(&mut *self.channel(), Channel::Ended);
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        lock_std(&self.channel)
    }
}

#[cfg(test)]
#[path = "../verify/base/event.rs"]
mod tests;
