//! A gate on an in-memory stream: passes whole frames, when the test says so.
//!
//! Handshake messages and frames alike travel behind a `u16` length, so the gate counts them without
//! knowing what they mean. That is the native wire's; for the wire of tests it takes the mask off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lock;

/// Which way a frame goes, seen from the one who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToResponder,
    ToInitiator,
}

/// Controls both directions of one stream.
#[derive(Clone)]
pub(crate) struct Gate {
    /// How many frames may have passed, in each direction.
    allowed: Arc<[watch::Sender<u64>; 2]>,
    /// How many frames have arrived at the gate, in each direction.
    arrived: Arc<[watch::Sender<u64>; 2]>,
    cut: CancellationToken,
    dead: CancellationToken,
    /// An end of stream waits until everything passes.
    holds_end: Arc<AtomicBool>,
    /// All whole frames that came to the gate, in each direction.
    recorded: Arc<[Mutex<Vec<u8>>; 2]>,
}

impl Gate {
    /// A stream with a gate in its middle: (initiator's end, responder's end). Nothing passes yet.
    pub(crate) fn closed() -> (Self, DuplexStream, DuplexStream) {
        let (near, inner_near) = duplex(1 << 16);
        let (far, inner_far) = duplex(1 << 16);
        let gate = Self {
            allowed: Arc::new([watch::Sender::new(0), watch::Sender::new(0)]),
            arrived: Arc::new([watch::Sender::new(0), watch::Sender::new(0)]),
            cut: CancellationToken::new(),
            dead: CancellationToken::new(),
            holds_end: Arc::default(),
            recorded: Arc::default(),
        };
        let (near_read, near_write) = tokio::io::split(inner_near);
        let (far_read, far_write) = tokio::io::split(inner_far);
        gate.clone().pump(Way::ToResponder, near_read, far_write);
        gate.clone().pump(Way::ToInitiator, far_read, near_write);
        (gate, near, far)
    }

    /// As [`Gate::closed`], with everything passing.
    pub(crate) fn open() -> (Self, DuplexStream, DuplexStream) {
        let made = Self::closed();
        made.0.open_all();
        made
    }

    /// Lets `n` more frames pass.
    pub(crate) fn pass(&self, way: Way, n: u64) {
        self.allowed[way as usize].send_modify(|allowed| *allowed = allowed.saturating_add(n));
    }

    /// Lets everything pass from now on.
    pub(crate) fn open_all(&self) {
        for allowed in self.allowed.iter() {
            allowed.send_replace(u64::MAX);
        }
    }

    /// Holds what comes from now on; what has come to the gate may pass.
    pub(crate) fn hold(&self, way: Way) {
        self.allowed[way as usize].send_replace(self.count(way));
    }

    /// As [`Gate::hold`], both ways.
    pub(crate) fn hold_all(&self) {
        self.hold(Way::ToResponder);
        self.hold(Way::ToInitiator);
    }

    /// Waits until `n` frames in all have come to the gate on this way, passed or held.
    pub(crate) async fn arrived(&self, way: Way, n: u64) {
        let mut arrived = self.arrived[way as usize].subscribe();
        let waited = arrived.wait_for(|arrived| *arrived >= n).await;
        assert!(waited.is_ok(), "the gate itself counts");
    }

    /// How many frames have come to the gate on this way.
    pub(crate) fn count(&self, way: Way) -> u64 {
        *self.arrived[way as usize].borrow()
    }

    /// From now on neither end sees that the other has closed, until [`Gate::open_all`].
    pub(crate) fn hold_end(&self) {
        self.holds_end.store(true, Ordering::Relaxed);
    }

    /// Nothing passes any more, the end of the stream neither: neither end knows what became of the
    /// other.
    pub(crate) fn freeze(&self) {
        self.hold(Way::ToResponder);
        self.hold(Way::ToInitiator);
        self.hold_end();
    }

    /// Whether a frame waits at the gate on this way.
    pub(crate) fn holds(&self, way: Way) -> bool {
        self.count(way) > *self.allowed[way as usize].borrow()
    }

    /// Breaks the stream: both ends see it end, what is held is lost.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Kills the stream silently: nothing passes any more, not even its end, and neither end is told.
    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }

    /// Breaks the stream if it was killed.
    pub(crate) fn end_if_dead(&self) {
        if self.dead.is_cancelled() {
            self.cut();
        }
    }

    /// How many bytes the responder has written in all.
    pub(crate) fn bytes_from_responder(&self) -> usize {
        self.recorded(Way::ToInitiator).len()
    }

    /// All that has come to the gate on this way.
    pub(crate) fn recorded(&self, way: Way) -> Vec<u8> {
        lock(&self.recorded[way as usize]).clone()
    }

    fn pump(
        self,
        way: Way,
        mut from: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        mut to: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) {
        let mut allowed = self.allowed[way as usize].subscribe();
        let arrived = self.arrived.clone();
        let copy = self.recorded.clone();
        let holds_end = self.holds_end.clone();
        let work = async move {
            let mut passed = 0;
            loop {
                let mut frame = vec![0; 2];
                if from.read_exact(&mut frame).await.is_err() {
                    break;
                }
                passed += 1;
                frame.resize(2 + body([frame[0], frame[1]], passed), 0);
                if from.read_exact(&mut frame[2..]).await.is_err() {
                    break;
                }
                lock(&copy[way as usize]).extend_from_slice(&frame);
                arrived[way as usize].send_modify(|n| *n += 1);
                if allowed.wait_for(|allowed| *allowed >= passed).await.is_err() {
                    break;
                }
                if to.write_all(&frame).await.is_err() {
                    break;
                }
            }
            if holds_end.load(Ordering::Relaxed) {
                let _ = allowed.wait_for(|allowed| *allowed == u64::MAX).await;
            }
            // A half-close passes when all before it has.
            let _ = to.shutdown().await;
        };
        let (cut, dead) = (self.cut, self.dead);
        tokio::spawn(async move {
            // Alive while the task is, so that neither end sees the other's.
            tokio::pin!(work);
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = dead.cancelled() => cut.cancelled().await,
                () = &mut work => {}
            }
        });
    }
}

/// How many bytes follow the length of the `n`th frame, from 1.
fn body(length: [u8; 2], n: u64) -> usize {
    let length = u16::from_be_bytes(length);
    if cfg!(noise_pool_plain_wire) {
        // Masked by the number of the frame; two more than the bytes, or a word without any.
        usize::from(length ^ n as u16).saturating_sub(2)
    } else {
        length.into()
    }
}
