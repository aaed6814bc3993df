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

use super::seam::{
    self, Acceptance, Accepted, Established, Failed, Hello, Proposal, Transport, Verdict,
};
use crate::base::config::Settings;
use crate::base::environment::WallClock;
use crate::base::error::{HandshakeError, ProtocolError, RejectReason};
use crate::base::id::PeerId;
use crate::base::identity::Identity;
use crate::base::io::BoxedStream;
use crate::base::timer::Timer;
use crate::proto::HandshakeRole;
use crate::proto::native::clock_offset::ClockOffsets;
use crate::proto::native::connection::{ABILITIES, ConnectionParams, NativeConnection};
use crate::proto::native::frame;
use crate::proto::native::handshake::{
    self, Finished, HandshakeParams, Initiator, MAX_MESSAGE_2, MAX_MESSAGE_3, MESSAGE_1,
    MIN_MESSAGE_2, MIN_MESSAGE_3, Message2, Message3, Responder,
};
use crate::proto::native::record;
use crate::proto::native::replay::ReplayCache;
use crate::proto::slot::Claim;
use crate::proto::wire::connection::{Abilities, Connection as _};
use crate::proto::wire::source::{MessageSource, Next, Plaintext};

/// What all handshakes of one pool share. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Native {
    shared: Arc<Shared>,
}

struct Shared {
    params: HandshakeParams,
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

/// As initiator: message 2 has arrived and is sound.
pub(crate) struct Answered {
    native: Native,
    stream: BoxedStream,
    /// Bytes that were read past message 2.
    rest: Vec<u8>,
    state: handshake::Answered,
    hello: Hello,
    /// When message 2 arrived, in the order of all first messages.
    heard: u64,
}

/// As initiator: message 3 is written.
pub(crate) struct Committed {
    undecided: Box<Undecided>,
    /// The peer's pool.
    instance: u64,
    /// When message 2 arrived, in the order of all first messages.
    heard: u64,
}

/// As responder: message 3 has arrived and is sound.
pub(crate) struct Proposed {
    native: Native,
    undecided: Box<Undecided>,
    proposal: Proposal,
}

/// A connection that has its keys, and waits for its verdict.
struct Undecided {
    stream: BoxedStream,
    timer: Timer,
    connection: NativeConnection,
    /// Bytes that were read past the handshake.
    leftover: Vec<u8>,
    handshake_hash: [u8; 32],
    peer_max_message: u32,
}

impl Undecided {
    /// The verdict was yes.
    fn established(self) -> Box<Established> {
        Box::new(Established {
            stream: self.stream,
            timer: self.timer,
            connection: self.connection.into(),
            leftover: self.leftover,
            handshake_hash: self.handshake_hash,
            peer_max_message: self.peer_max_message,
        })
    }
}

impl Native {
    pub(crate) fn new(identity: Identity, settings: &Settings) -> Self {
        let mut instance = [0; 8];
        settings.entropy.fill(&mut instance);
        let params = HandshakeParams::new(
            settings.suite,
            &settings.network_id,
            Arc::clone(identity.key()),
            Arc::clone(&settings.entropy),
        );
        let replay = ReplayCache::new(settings.replay_table, settings.max_clock_skew);
        let shared = Shared {
            params,
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
            &self.shared.params,
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
        let proposal = Proposal {
            peer,
            claim: Claim::stamped(hello.instance, hello.stamp, heard),
            instance: hello.instance,
            max_message: hello.max_message,
            handshake_hash: finished.handshake_hash,
            application_payload: hello.application_payload,
        };
        let undecided = Undecided {
            stream,
            timer,
            handshake_hash: finished.handshake_hash,
            connection: self.connection(HandshakeRole::Responder, finished, hello.max_message),
            leftover: rest,
            peer_max_message: hello.max_message,
        };
        Proposed { native: self.clone(), undecided: Box::new(undecided), proposal }
    }

    /// A proposal without its handshake, for models of what follows from it. Its connection is the
    /// `n`th of the peer.
    #[cfg(all(test, noise_pool_loom))]
    pub(crate) fn modelled(&self, finished: Finished, peer: PeerId, n: u64) -> Proposed {
        let application_payload = Bytes::new();
        let hello = Message3 { instance: 9, stamp: n, max_message: 1 << 20, application_payload };
        let authenticated = Authenticated { finished, peer, hello, heard: n, rest: Vec::new() };
        let stream = Box::new(tokio::io::duplex(1).0);
        self.propose(stream, Timer::default(), authenticated)
    }

    fn connection(
        &self,
        role: HandshakeRole,
        finished: Finished,
        peer_max_message: u32,
    ) -> NativeConnection {
        let params = ConnectionParams {
            role,
            max_message: self.shared.max_message as usize,
            peer_max_message: peer_max_message as usize,
            rekey_after_bytes: self.shared.rekey_after_bytes,
            pings_per_second: self.shared.pings_per_second,
        };
        NativeConnection::new(finished.transport, params)
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

impl Transport for Native {
    type Answered = Answered;
    type Proposed = Proposed;

    fn abilities(&self) -> &'static Abilities {
        &ABILITIES
    }

    fn instance(&self) -> u64 {
        self.shared.instance
    }

    fn application_payload(&self) -> Bytes {
        lock(&self.shared.application_payload).clone()
    }

    fn set_application_payload(&self, payload: Bytes) {
        *lock(&self.shared.application_payload) = payload;
    }

    fn clock_offset(&self) -> Option<i64> {
        lock(&self.shared.offsets).median()
    }

    async fn initiate(
        &self,
        peer: &PeerId,
        mut stream: BoxedStream,
    ) -> Result<Answered, HandshakeError> {
        let (state, message1) = Initiator::start(&self.shared.params, peer, self.time())?;
        io::write(&mut stream, &message1).await?;
        let message = io::read(&mut stream, 2, MIN_MESSAGE_2, MAX_MESSAGE_2)
            .await
            .map_err(io::eof_as_no_answer)?;
        let (state, hello) = state.read_message2(message.body())?;
        let offset = handshake::clock_offset(hello.time, self.time());
        lock(&self.shared.offsets).note(offset);
        Ok(Answered {
            hello: Hello {
                instance: hello.instance,
                max_message: hello.max_message,
                handshake_hash: state.handshake_hash(),
            },
            native: self.clone(),
            stream,
            rest: message.into_rest(),
            state,
            heard: self.heard(),
        })
    }

    async fn respond(
        &self,
        mut stream: BoxedStream,
        verified: impl FnOnce() + Send,
    ) -> Result<Proposed, Failed> {
        let mut timer = Timer::default();
        match self.read_handshake(&mut stream, &mut timer, verified).await {
            Ok(authenticated) => Ok(self.propose(stream, timer, authenticated)),
            Err(error) => {
                let broken = matches!(&error, HandshakeError::Io(error)
                    if error.kind() != std::io::ErrorKind::UnexpectedEof);
                let stream = (!broken).then_some(stream);
                Err(Failed { error, stream })
            }
        }
    }
}

impl seam::Answered for Answered {
    type Committed = Committed;

    fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Writes message 3, and the first messages with it.
    async fn commit(mut self, stamp: u64, first: Vec<Bytes>) -> Result<Committed, HandshakeError> {
        let message = Message3 {
            instance: self.native.shared.instance,
            stamp,
            max_message: self.native.shared.max_message,
            application_payload: self.native.application_payload(),
        };
        let (finished, mut output) = self.state.write_message3(&message, frame::PREFIX)?;
        io::put_prefix(&mut output);
        let Hello { instance, max_message, .. } = self.hello;
        let handshake_hash = finished.handshake_hash;
        let mut connection =
            self.native.connection(HandshakeRole::Initiator, finished, max_message);
        connection.seal_first(&mut Messages(first.into_iter()), &mut output)?;
        io::write_all(&mut self.stream, &output).await?;
        let undecided = Undecided {
            stream: self.stream,
            timer: Timer::default(),
            handshake_hash,
            connection,
            leftover: self.rest,
            peer_max_message: max_message,
        };
        Ok(Committed { undecided: Box::new(undecided), instance, heard: self.heard })
    }
}

impl seam::Committed for Committed {
    async fn verdict(self) -> Result<Verdict, HandshakeError> {
        let Self { mut undecided, instance, heard } = self;
        let rest = std::mem::take(&mut undecided.leftover);
        let input = io::read_frame(&mut undecided.stream, rest).await?;
        let frame::Split::Whole { body, rest } = frame::split(&input)? else {
            return Err(HandshakeError::NoVerdict);
        };
        let connection = &mut undecided.connection;
        if let Err(error) = connection.open(body, now()) {
            // Out of place behind a verdict is another matter.
            let none = connection.awaits_verdict();
            return Err(match error {
                ProtocolError::OutOfPlace(_) if none => HandshakeError::NoVerdict,
                other => other.into(),
            });
        }
        let Some(verdict) = connection.poll_verdict() else {
            return Err(HandshakeError::NoVerdict);
        };
        Ok(match verdict {
            record::Verdict::Accept { stamp, observed, payload } => {
                undecided.leftover = rest.to_vec();
                Verdict::Accepted(Accepted {
                    established: undecided.established(),
                    claim: Claim::stamped(instance, stamp, heard),
                    observed,
                    application_payload: payload,
                })
            }
            record::Verdict::Reject { reason, retry_after } => Verdict::Rejected {
                reason,
                retry_after,
                closing: Box::pin(io::linger_close(undecided.stream, Vec::new())),
            },
        })
    }
}

impl seam::Proposed for Proposed {
    fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// The verdict is the first record that the session writes.
    fn accept(self, Acceptance { stamp, observed }: Acceptance) -> Box<Established> {
        let mut undecided = self.undecided;
        let payload = self.native.application_payload();
        undecided.connection.verdict(record::Verdict::Accept { stamp, observed, payload });
        undecided.established()
    }

    async fn reject(self, reason: RejectReason, retry_after: Option<Duration>) {
        let Undecided { stream, mut connection, .. } = *self.undecided;
        connection.verdict(record::Verdict::Reject { reason, retry_after });
        let (mut scratch, mut last_bytes) = (Vec::new(), Vec::new());
        // A cipher that fails leaves nothing that may be written; the peer sees the stream end.
        let sealed = connection.seal(&mut Messages::none(), &mut scratch, &mut last_bytes, 1);
        if sealed.is_err() {
            last_bytes.clear();
        }
        io::linger_close(stream, last_bytes).await;
    }
}

/// A source of these messages.
struct Messages(std::vec::IntoIter<Bytes>);

impl Messages {
    /// None: only control records are sealed.
    fn none() -> Self {
        Self(Vec::new().into_iter())
    }
}

impl MessageSource for Messages {
    fn next(&mut self, _: &mut Plaintext<'_>) -> Next {
        self.0.next().map_or(Next::Empty, Next::Message)
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
