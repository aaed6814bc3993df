//! The handshake half of the plain wire: names in clear text, no verdict, no stamps.
//!
//! The dialler says who it is and whom it wants, the other says who it is, and one byte commits. The
//! responder accepts by sending a frame at once, and refuses by closing; so the end of the stream is a no.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::{ABILITIES, PlainConnection};
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

const COMMIT: u8 = 3;
const MAX_MESSAGE: u32 = 60_000;
const LISTENS: Duration = Duration::from_secs(5);

/// Our own name, and the order in which peers were heard.
#[derive(Clone)]
pub(crate) struct Plain(PeerId, Arc<AtomicU64>);

pub(crate) struct Answered(Plain, BoxedStream, Hello);
pub(crate) struct Committed(Plain, BoxedStream);
pub(crate) struct Proposed(BoxedStream, Proposal);

impl Plain {
    pub(crate) fn new(peer: PeerId) -> Self {
        Self(peer, Arc::new(AtomicU64::new(1)))
    }

    fn heard(&self) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed)
    }

    async fn listen(
        &self,
        stream: &mut BoxedStream,
        verified: impl FnOnce() + Send,
    ) -> Result<Proposal, HandshakeError> {
        let mut names = [[0; 32]; 2];
        stream.read_exact(names.as_flattened_mut()).await?;
        let heard = self.heard();
        let [theirs, ours] = names.map(PeerId::from_bytes);
        if ours != self.0 || theirs == ours {
            return Err(HandshakeError::Verify { message: 1 });
        }
        verified();
        stream.write_all(self.0.as_bytes()).await?;
        if stream.read_u8().await? != COMMIT {
            return Err(HandshakeError::Verify { message: 3 });
        }
        Ok(Proposal {
            peer: theirs,
            claim: Claim::unstamped(heard),
            instance: 0,
            max_message: MAX_MESSAGE,
            handshake_hash: [0; 32],
            application_payload: Bytes::new(),
        })
    }
}

fn established(
    stream: BoxedStream,
    connection: PlainConnection,
    first: Vec<u8>,
) -> Box<Established> {
    Box::new(Established {
        stream,
        timer: Timer::default(),
        connection: AnyConnection::Plain(connection),
        leftover: first,
        handshake_hash: [0; 32],
        peer_max_message: MAX_MESSAGE,
    })
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
        mut stream: BoxedStream,
    ) -> Result<Answered, HandshakeError> {
        stream.write_all([*self.0.as_bytes(), *peer.as_bytes()].as_flattened()).await?;
        let mut name = [0; 32];
        stream.read_exact(&mut name).await.map_err(|_| HandshakeError::NoAnswer)?;
        if name != *peer.as_bytes() {
            return Err(HandshakeError::Verify { message: 2 });
        }
        let hello = Hello { instance: 0, max_message: MAX_MESSAGE, handshake_hash: [0; 32] };
        Ok(Answered(self.clone(), stream, hello))
    }

    async fn respond(
        &self,
        mut stream: BoxedStream,
        verified: impl FnOnce() + Send,
    ) -> Result<Proposed, Failed> {
        let listened =
            Timer::default().timeout(LISTENS, pin!(self.listen(&mut stream, verified))).await;
        match listened.unwrap_or(Err(HandshakeError::TimedOut)) {
            Ok(proposal) => Ok(Proposed(stream, proposal)),
            Err(error) => Err(Failed { error, stream: Some(stream) }),
        }
    }
}

impl seam::Answered for Answered {
    type Committed = Committed;

    fn hello(&self) -> &Hello {
        &self.2
    }

    async fn commit(mut self, _: u64) -> Result<Committed, HandshakeError> {
        self.1.write_u8(COMMIT).await?;
        Ok(Committed(self.0, self.1))
    }
}

impl seam::Committed for Committed {
    async fn verdict(mut self) -> Result<Verdict, HandshakeError> {
        let first = vec![self.1.read_u8().await?];
        Ok(Verdict::Accepted(Accepted {
            established: established(self.1, PlainConnection::default(), first),
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

    fn accept(self, _: Acceptance) -> Box<Established> {
        established(self.0, PlainConnection::greeting(), Vec::new())
    }

    async fn reject(self, _: RejectReason, _: Option<Duration>) {}
}
