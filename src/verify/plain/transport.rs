//! The handshake half of the plain wire: names in clear text, no verdict, no stamps.
//!
//! Owns the order of its messages, each a frame: the dialler says who it is and whom it wants, the other
//! says who it is, and one byte commits. The responder accepts by sending a frame at once, and refuses by
//! closing; so the end of the stream is a no.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::{ABILITIES, PREFIX, PlainConnection};
use crate::base::config::Settings;
use crate::base::error::{HandshakeError, RejectReason};
use crate::base::id::PeerId;
use crate::base::io::BoxedStream;
use crate::base::timer::Timer;
use crate::proto::slot::Claim;
use crate::proto::wire::any::AnyConnection;
use crate::proto::wire::connection::Abilities;
use crate::transport::seam::{
    self, Acceptance, Accepted, Established, Failed, Hello, Proposal, Transport, Verdict,
};

const COMMIT: [u8; 1] = [3];
const MAX_MESSAGE: u32 = 60_000;

/// Our own name, how long strangers are listened to, and the order in which peers were heard.
#[derive(Clone)]
pub(crate) struct Plain(PeerId, Duration, Arc<AtomicU64>);

pub(crate) struct Answered(Plain, Frames, Hello);
pub(crate) struct Committed(Plain, Frames);
pub(crate) struct Proposed(Frames, Proposal);

/// A stream and its frames.
struct Frames(BoxedStream, PlainConnection);

impl Plain {
    pub(crate) fn new(peer: PeerId, settings: &Settings) -> Self {
        Self(peer, settings.handshake_timeout, Arc::new(AtomicU64::new(1)))
    }

    fn heard(&self) -> u64 {
        self.2.fetch_add(1, Ordering::Relaxed)
    }

    async fn listen(
        &self,
        frames: &mut Frames,
        verified: impl FnOnce() + Send,
    ) -> Result<Proposal, HandshakeError> {
        let names: [u8; 64] = frames.read().await?;
        let heard = self.heard();
        let (theirs, ours) = names.split_at(32);
        if ours != self.0.as_bytes() || theirs == ours {
            return Err(HandshakeError::Verify { message: 1 });
        }
        verified();
        frames.write(self.0.as_bytes()).await?;
        if frames.read().await? != COMMIT {
            return Err(HandshakeError::Verify { message: 3 });
        }
        Ok(Proposal {
            peer: PeerId::from_bytes(std::array::from_fn(|n| names[n])),
            claim: Claim::unstamped(heard),
            instance: 0,
            max_message: MAX_MESSAGE,
            handshake_hash: [0; 32],
            application_payload: Bytes::new(),
        })
    }
}

impl Frames {
    async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        self.1.put(&mut frame, message.len() as u16 + 2, message);
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    async fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut frame = vec![0; PREFIX + N];
        self.0.read_exact(&mut frame).await?;
        let message = self.1.take(&frame).and_then(|message| message.try_into().ok());
        message.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn established(self, leftover: Vec<u8>) -> Box<Established> {
        Box::new(Established {
            stream: self.0,
            timer: Timer::default(),
            connection: AnyConnection::Plain(self.1),
            leftover,
            handshake_hash: [0; 32],
            peer_max_message: MAX_MESSAGE,
        })
    }
}

impl Transport for Plain {
    type Answered = Answered;
    type Proposed = Proposed;

    fn abilities(&self) -> &'static Abilities {
        &ABILITIES
    }

    async fn initiate(
        &self,
        peer: &PeerId,
        stream: BoxedStream,
    ) -> Result<Answered, HandshakeError> {
        let mut frames = Frames(stream, PlainConnection::default());
        frames.write([*self.0.as_bytes(), *peer.as_bytes()].as_flattened()).await?;
        let name: [u8; 32] = frames.read().await.map_err(|_| HandshakeError::NoAnswer)?;
        if name != *peer.as_bytes() {
            return Err(HandshakeError::Verify { message: 2 });
        }
        let hello = Hello { instance: 0, max_message: MAX_MESSAGE, handshake_hash: [0; 32] };
        Ok(Answered(self.clone(), frames, hello))
    }

    async fn respond(
        &self,
        stream: BoxedStream,
        verified: impl FnOnce() + Send,
    ) -> Result<Proposed, Failed> {
        let mut frames = Frames(stream, PlainConnection::default());
        let heard =
            Timer::default().timeout(self.1, pin!(self.listen(&mut frames, verified))).await;
        match heard.unwrap_or(Err(HandshakeError::TimedOut)) {
            Ok(proposal) => Ok(Proposed(frames, proposal)),
            Err(error) => Err(Failed { error, stream: Some(frames.0) }),
        }
    }
}

impl seam::Answered for Answered {
    type Committed = Committed;

    fn hello(&self) -> &Hello {
        &self.2
    }

    async fn commit(mut self, _: u64, _: Vec<Bytes>) -> Result<Committed, HandshakeError> {
        self.1.write(&COMMIT).await?;
        Ok(Committed(self.0, self.1))
    }
}

impl seam::Committed for Committed {
    async fn verdict(mut self) -> Result<Verdict, HandshakeError> {
        let first = vec![self.1.0.read_u8().await?];
        Ok(Verdict::Accepted(Accepted {
            established: self.1.established(first),
            claim: Claim::unstamped(self.0.heard()),
            observed: String::new(),
            application_payload: Bytes::new(),
        }))
    }
}

impl seam::Proposed for Proposed {
    fn proposal(&self) -> &Proposal {
        &self.1
    }

    fn accept(mut self, _: Acceptance) -> Box<Established> {
        self.0.1.greet();
        self.0.established(Vec::new())
    }

    async fn reject(self, _: RejectReason, _: Option<Duration>) {}
}
