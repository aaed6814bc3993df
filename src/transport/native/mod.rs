//! The native handshake over a stream.
//!
//! Owns the order of reads and writes from the first byte to the verdict, and what all handshakes of
//! one pool share. The stages are types: [`Answered`] becomes [`Committed`] by writing message 3, and
//! only an [`Established`] or [`Proposed`] has keys. As a responder it must never write a byte to a
//! peer whose message has not passed every check; as either it must never read past what belongs to
//! the handshake without handing the rest on.
//!
//! As a responder the handshake and its first message have time limits, since strangers set the pace,
//! and so has the farewell of a rejected connection. The other futures end by themselves only with
//! their stream: callers put their time limits around them. Each may be dropped at any await; the
//! stream goes with it.

mod io;
#[cfg(test)]
#[path = "../../verify/transport/native.rs"]
mod tests;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::BoxedStream;
use crate::base::config::Settings;
use crate::base::environment::WallClock;
use crate::base::error::{HandshakeError, ProtocolError, RejectReason};
use crate::base::id::PeerId;
use crate::base::identity::Identity;
use crate::base::timer::Timer;
use crate::proto::HandshakeRole;
use crate::proto::native::batch::{MessageSource, Next, Plaintext};
use crate::proto::native::clock_offset::ClockOffsets;
use crate::proto::native::connection::{CoreParams, Event, SessionCore};
use crate::proto::native::frame;
use crate::proto::native::handshake;
use crate::proto::native::handshake::{
    Finished, HandshakeParams, Initiator, MAX_MESSAGE_2, MAX_MESSAGE_3, MESSAGE_1, MIN_MESSAGE_2,
    MIN_MESSAGE_3, Message2, Message3, Responder,
};
use crate::proto::native::record::Verdict;
use crate::proto::native::replay::ReplayCache;
use crate::proto::slot::Claim;

/// What all handshakes of one pool share. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Native {
    shared: Arc<Shared>,
}

struct Shared {
    terms: HandshakeParams,
    instance: u64,
    wall_clock: Arc<dyn WallClock>,
    max_clock_skew: Duration,
    message1_timeout: Duration,
    handshake_timeout: Duration,
    max_message: u32,
    rekey_after_bytes: u64,
    pings_per_second: u32,
    /// The next `heard`: orders the first messages of all peers.
    heard: AtomicU64,
    replay: Mutex<ReplayCache>,
    offsets: Mutex<ClockOffsets>,
    application_payload: Mutex<Bytes>,
}

/// A handshake that failed as responder, and the stream on which the peer must hear nothing of it.
pub(crate) struct Failed {
    pub(crate) error: HandshakeError,
    /// To be read and discarded for a while, then closed; none if it is broken already.
    pub(crate) stream: Option<BoxedStream>,
}

/// As initiator: the peer is who we dialled, and nothing is committed.
pub(crate) struct Answered {
    native: Native,
    stream: BoxedStream,
    /// Bytes that were read past message 2.
    rest: Vec<u8>,
    state: handshake::Answered,
    /// The peer's pool.
    pub(crate) instance: u64,
    /// When message 2 arrived, in the order of all first messages.
    pub(crate) heard: u64,
    /// The largest message that the peer accepts, in bytes.
    pub(crate) peer_max_message: u32,
    /// Noise `h` after message 2.
    pub(crate) handshake_hash: [u8; 32],
}

/// As initiator: message 3 is written, and the peer may have accepted.
pub(crate) struct Committed {
    established: Box<Established>,
}

/// As responder: the peer is authenticated and waits for the verdict.
pub(crate) struct Proposed {
    established: Box<Established>,
    /// Who it is.
    pub(crate) peer: PeerId,
    /// What decides between this connection and another to the same peer.
    pub(crate) claim: Claim,
    /// What the peer's application says of itself.
    pub(crate) application_payload: Bytes,
    /// Noise `h` after message 3.
    pub(crate) handshake_hash: [u8; 32],
    /// The largest message that the peer accepts, in bytes.
    pub(crate) peer_max_message: u32,
}

/// A session without a driver: keys, and the stream they belong to. Boxed on its way, which leads
/// through many hands.
pub(crate) struct Established {
    pub(crate) stream: BoxedStream,
    /// That of the handshake, where it had one here.
    pub(crate) timer: Timer,
    /// As initiator it may hold further events that came in the verdict's frame.
    pub(crate) core: SessionCore,
    /// Bytes that were read past the handshake: past the verdict's frame, or past message 3.
    pub(crate) leftover: Vec<u8>,
    /// Noise `h` after message 3.
    pub(crate) handshake_hash: [u8; 32],
    /// The largest message that the peer accepts, in bytes.
    pub(crate) peer_max_message: u32,
    /// The peer's pool.
    pub(crate) instance: u64,
    /// When the peer's first message arrived, in the order of all first messages.
    pub(crate) heard: u64,
    /// What the peer's application says of itself.
    pub(crate) application_payload: Bytes,
}

impl Native {
    pub(crate) fn new(identity: Identity, settings: &Settings) -> Self {
        let mut instance = [0; 8];
        settings.entropy.fill(&mut instance);
        let terms = HandshakeParams::new(
            settings.suite,
            &settings.network_id,
            Arc::clone(identity.key()),
            Arc::clone(&settings.entropy),
        );
        let replay = ReplayCache::new(settings.replay_table, settings.max_clock_skew);
        let shared = Shared {
            terms,
            instance: u64::from_be_bytes(instance),
            wall_clock: Arc::clone(&settings.wall_clock),
            max_clock_skew: settings.max_clock_skew,
            message1_timeout: settings.message1_timeout,
            handshake_timeout: settings.handshake_timeout,
            max_message: u32::try_from(settings.max_message_size).unwrap_or(u32::MAX),
            rekey_after_bytes: settings.rekey_after_bytes,
            pings_per_second: settings.pings_per_second,
            heard: AtomicU64::new(1),
            replay: Mutex::new(replay),
            offsets: Mutex::new(ClockOffsets::default()),
            application_payload: Mutex::new(settings.application_payload.clone()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Our pool's number, as the peers see it.
    pub(crate) fn instance(&self) -> u64 {
        self.shared.instance
    }

    /// What our application says of itself, in message 3 and in the accepting verdict.
    pub(crate) fn application_payload(&self) -> Bytes {
        lock(&self.shared.application_payload).clone()
    }

    /// Replaces it for the handshakes to come. At most 16 KiB, or they fail.
    pub(crate) fn set_application_payload(&self, payload: Bytes) {
        *lock(&self.shared.application_payload) = payload;
    }

    /// The median of the clocks of the peers that we met last, less our own, in seconds.
    pub(crate) fn clock_offset(&self) -> Option<i64> {
        lock(&self.shared.offsets).median()
    }

    /// Runs the handshake with `peer` up to message 2.
    ///
    /// # Errors
    /// [`HandshakeError::NoAnswer`] if the peer closes before message 2, as it does if it is not who
    /// we dialled or is of another network; [`HandshakeError::OwnIdentity`] before anything is
    /// written; others as the message deserves.
    pub(crate) async fn initiate(
        &self,
        peer: &PeerId,
        mut stream: BoxedStream,
    ) -> Result<Answered, HandshakeError> {
        let (state, message1) = Initiator::start(&self.shared.terms, peer, self.time())?;
        io::write(&mut stream, &message1).await?;
        let message = io::read(&mut stream, 2, MIN_MESSAGE_2, MAX_MESSAGE_2)
            .await
            .map_err(io::eof_as_no_answer)?;
        let (state, hello) = state.read_message2(message.body())?;
        let offset = handshake::clock_offset(hello.time, self.time());
        lock(&self.shared.offsets).note(offset);
        Ok(Answered {
            handshake_hash: state.handshake_hash(),
            native: self.clone(),
            stream,
            rest: message.into_rest(),
            state,
            instance: hello.instance,
            heard: self.heard(),
            peer_max_message: hello.max_message,
        })
    }

    /// Runs the handshake of a stranger up to message 3. `message1_verified` is called once the
    /// stranger has shown that it knows our key, now; only then memory beyond a small buffer is used.
    ///
    /// # Errors
    /// [`Failed`]: the peer has been told nothing.
    pub(crate) async fn respond(
        &self,
        mut stream: BoxedStream,
        message1_verified: impl FnOnce() + Send,
    ) -> Result<Proposed, Failed> {
        let mut timer = Timer::default();
        match self.read_handshake(&mut stream, &mut timer, message1_verified).await {
            Ok(authenticated) => Ok(self.propose(stream, timer, authenticated)),
            Err(error) => {
                let broken = matches!(&error, HandshakeError::Io(error)
                    if error.kind() != std::io::ErrorKind::UnexpectedEof);
                let stream = (!broken).then_some(stream);
                Err(Failed { error, stream })
            }
        }
    }

    async fn read_handshake(
        &self,
        stream: &mut BoxedStream,
        timer: &mut Timer,
        message1_verified: impl FnOnce() + Send,
    ) -> Result<Authenticated, HandshakeError> {
        // The configuration has the limit of the first message within that of all.
        let deadline = Instant::now() + self.shared.handshake_timeout;
        let message = {
            let read = pin!(io::read(stream, 1, MESSAGE_1, MESSAGE_1));
            timer.timeout(self.shared.message1_timeout, read).await
        };
        let message = message.unwrap_or(Err(HandshakeError::TimedOut))?;
        let time = self.time();
        let state = Responder::read_message1(
            &self.shared.terms,
            message.body(),
            time,
            self.shared.max_clock_skew,
            |ephemeral| lock(&self.shared.replay).insert(ephemeral, now()),
        )?;
        drop(message);
        let heard = self.heard();
        let skew_seconds = state.skew_seconds();
        message1_verified();

        let (state, message2) = state.write_message2(&Message2 {
            instance: self.shared.instance,
            time,
            max_message: self.shared.max_message,
        })?;
        let message = {
            let exchange = pin!(async {
                io::write(stream, &message2).await?;
                io::read(stream, 3, MIN_MESSAGE_3, MAX_MESSAGE_3).await
            });
            timer.timeout_at(deadline, exchange).await
        };
        let message = message.unwrap_or(Err(HandshakeError::TimedOut))?;
        let (finished, peer, hello) = state.read_message3(message.body())?;
        // Not before: strangers must not be able to move the median.
        lock(&self.shared.offsets).note(skew_seconds);
        Ok(Authenticated { finished, peer, hello, heard, rest: message.into_rest() })
    }

    fn propose(&self, stream: BoxedStream, timer: Timer, authenticated: Authenticated) -> Proposed {
        let Authenticated { finished, peer, hello, heard, rest } = authenticated;
        Proposed {
            peer,
            claim: Claim::stamped(hello.instance, hello.stamp, heard),
            application_payload: hello.application_payload.clone(),
            handshake_hash: finished.handshake_hash,
            peer_max_message: hello.max_message,
            established: Box::new(Established {
                stream,
                timer,
                handshake_hash: finished.handshake_hash,
                core: self.core(HandshakeRole::Responder, finished, hello.max_message),
                leftover: rest,
                peer_max_message: hello.max_message,
                instance: hello.instance,
                heard,
                application_payload: hello.application_payload,
            }),
        }
    }

    fn core(&self, role: HandshakeRole, finished: Finished, peer_max_message: u32) -> SessionCore {
        let params = CoreParams {
            role,
            max_message: self.shared.max_message as usize,
            peer_max_message: peer_max_message as usize,
            rekey_after_bytes: self.shared.rekey_after_bytes,
            pings_per_second: self.shared.pings_per_second,
        };
        SessionCore::new(finished.transport, params)
    }

    fn heard(&self) -> u64 {
        self.shared.heard.fetch_add(1, Ordering::Relaxed)
    }

    /// Unix time in seconds, modulo 2^32 as the wire has it.
    fn time(&self) -> u32 {
        self.shared.wall_clock.unix_seconds() as u32
    }
}

/// What a responder knows after message 3.
struct Authenticated {
    finished: Finished,
    peer: PeerId,
    hello: Message3,
    heard: u64,
    /// Bytes that were read past message 3.
    rest: Vec<u8>,
}

impl Answered {
    /// Writes message 3. From the first byte on the peer may accept, and then holds a session, also
    /// if this fails or is dropped.
    ///
    /// # Errors
    /// [`HandshakeError::Io`]; [`HandshakeError::Payload`] if our application payload is too long.
    pub(crate) async fn commit(mut self, stamp: u64) -> Result<Committed, HandshakeError> {
        let hello = Message3 {
            instance: self.native.shared.instance,
            stamp,
            max_message: self.native.shared.max_message,
            application_payload: self.native.application_payload(),
        };
        let (finished, message) = self.state.write_message3(&hello, io::PREFIX)?;
        io::write_after_prefix(&mut self.stream, message).await?;
        let handshake_hash = finished.handshake_hash;
        let core = self.native.core(HandshakeRole::Initiator, finished, self.peer_max_message);
        Ok(Committed {
            established: Box::new(Established {
                stream: self.stream,
                timer: Timer::default(),
                core,
                leftover: self.rest,
                handshake_hash,
                peer_max_message: self.peer_max_message,
                instance: self.instance,
                heard: self.heard,
                application_payload: Bytes::new(),
            }),
        })
    }
}

impl Committed {
    /// Waits for the peer's verdict. After a reject, all that is left to do with the session is
    /// [`Established::part`].
    ///
    /// # Errors
    /// [`HandshakeError::Io`] if the stream ends or breaks first; [`HandshakeError::NoVerdict`] if
    /// the peer says something else; [`HandshakeError::Protocol`].
    pub(crate) async fn verdict(self) -> Result<(Verdict, Box<Established>), HandshakeError> {
        let mut established = self.established;
        let rest = std::mem::take(&mut established.leftover);
        let input = io::read_frame(&mut established.stream, rest).await?;
        let frame::Split::Whole { body, rest } = frame::split(&input)? else {
            return Err(HandshakeError::NoVerdict);
        };
        if let Err(error) = established.core.open(body, now()) {
            // Out of place behind a verdict is another matter.
            let none = established.core.awaits_verdict();
            return Err(match error {
                ProtocolError::OutOfPlace(_) if none => HandshakeError::NoVerdict,
                other => other.into(),
            });
        }
        let Some(Event::Verdict(verdict)) = established.core.poll_event() else {
            return Err(HandshakeError::NoVerdict);
        };
        if let Verdict::Accept { payload, .. } = &verdict {
            established.application_payload = payload.clone();
        }
        established.leftover = rest.to_vec();
        Ok((verdict, established))
    }
}

impl Proposed {
    /// A proposal without its handshake, for models of what follows from it.
    #[cfg(all(test, noise_pool_loom))]
    pub(crate) fn modelled(established: Established, peer: PeerId, claim: Claim) -> Self {
        Self {
            peer,
            claim,
            application_payload: Bytes::new(),
            handshake_hash: established.handshake_hash,
            peer_max_message: established.peer_max_message,
            established: Box::new(established),
        }
    }

    /// The session, to be driven with an accepting verdict as its first record.
    pub(crate) fn established(self) -> Box<Established> {
        self.established
    }

    /// Tells the peer no, and why, and waits up to a second for it to close: closing at once could
    /// destroy the answer on its way.
    pub(crate) async fn reject(self, reason: RejectReason, retry_after: Option<Duration>) {
        let Established { stream, mut core, .. } = *self.established;
        core.verdict(Verdict::Reject { reason, retry_after });
        let (mut scratch, mut last_bytes) = (Vec::new(), Vec::new());
        // A cipher that fails leaves nothing that may be written; the peer sees the stream end.
        let sealed = core.seal(&mut EmptySource, &mut scratch, &mut last_bytes, 1);
        if sealed.is_err() {
            last_bytes.clear();
        }
        io::linger_close(stream, &last_bytes).await;
    }
}

impl Established {
    /// Ends a session that the peer has rejected: half-closes, and waits up to a second for the peer
    /// to close as well.
    pub(crate) async fn part(self) {
        io::linger_close(self.stream, &[]).await;
    }
}

/// A source without messages: only control records are sealed.
struct EmptySource;

impl MessageSource for EmptySource {
    fn next(&mut self, _: &mut Plaintext<'_>) -> Next {
        Next::Empty
    }
}

/// The monotonic clock, which tests pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What these locks guard is whole at every moment, so that a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
