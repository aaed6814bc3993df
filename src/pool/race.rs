//! The race of one dial over its addresses, up to the first valid message 2.
//!
//! Owns the connections under way. Addresses are started one after another, staggered by
//! `dial_stagger` (RFC 8305, section 5), the next one at once when one fails; addresses that later
//! callers bring join. Dropping the race closes what has not answered: a peer that saw no message 3
//! has accepted nothing.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{DialError, HandshakeError};
use crate::pool::dial::{Dial, Opener};
use crate::pool::hooks::contained;
use crate::pool::inner::Inner;
use crate::transport::native::Answered;
use crate::transport::{Address, BoxedStream, TargetData};

/// A connection on which the peer has answered, and where it leads.
pub(crate) struct Candidate {
    pub(crate) answered: Answered,
    pub(crate) address: Option<Address>,
}

/// The connections of one dial that are under way.
pub(crate) struct Race {
    pool: Arc<Inner>,
    dial: Arc<Dial>,
    data: Option<TargetData>,
    under_way: JoinSet<Result<Candidate, DialError>>,
    next_start: Instant,
    /// The most telling failure so far.
    failure: Option<DialError>,
}

impl Race {
    pub(crate) fn new(pool: Arc<Inner>, dial: Arc<Dial>, data: Option<TargetData>) -> Self {
        Self {
            pool,
            dial,
            data,
            under_way: JoinSet::new(),
            next_start: Instant::now(),
            failure: None,
        }
    }

    /// Begins with a stream that the caller opens or has brought.
    pub(crate) fn open_with(&mut self, opener: Opener) {
        let (pool, peer) = (self.pool.clone(), self.dial.peer);
        self.next_start = Instant::now() + self.pool.settings.dial_stagger;
        self.under_way.spawn(async move {
            let opened = timeout(pool.settings.connect_timeout, opener()).await;
            let stream = match opened {
                Ok(Ok(stream)) => stream,
                Ok(Err(source)) => return Err(DialError::Open { source: Arc::new(source) }),
                Err(_elapsed) => {
                    return Err(DialError::Open { source: Arc::new(timed_out()) });
                }
            };
            let answered = initiate(&pool, &peer, stream).await?;
            Ok(Candidate { answered, address: None })
        });
    }

    /// The next connection on which a valid message 2 arrives.
    ///
    /// # Errors
    /// The most telling failure, when every address has failed.
    ///
    /// # Cancel safety
    /// Safe: connections under way stay under way.
    pub(crate) async fn answer(&mut self) -> Result<Candidate, DialError> {
        loop {
            let due = self.under_way.is_empty() || Instant::now() >= self.next_start;
            if due && let Some(address) = self.dial.next_address() {
                self.start(address);
                continue;
            }
            if self.under_way.is_empty() {
                return Err(self.failure.take().unwrap_or(DialError::NoAddress(self.dial.peer)));
            }
            let more = self.dial.more_addresses();
            let waiting = self.dial.has_address();
            tokio::select! {
                biased;
                ended = self.under_way.join_next() => match ended {
                    Some(Ok(Ok(candidate))) => return Ok(candidate),
                    Some(Ok(Err(failure))) => self.failed(failure),
                    Some(Err(ended)) if ended.is_panic() => self.failed(DialError::Panicked),
                    Some(Err(_)) | None => {}
                },
                () = sleep_until(self.next_start), if waiting => {}
                () = more => {}
            }
        }
    }

    fn start(&mut self, address: Address) {
        self.next_start = Instant::now() + self.pool.settings.dial_stagger;
        let (pool, peer, data) = (self.pool.clone(), self.dial.peer, self.data.clone());
        self.under_way.spawn(async move {
            let stream = connect(&pool, &address, data.as_ref()).await?;
            let answered = initiate(&pool, &peer, stream).await?;
            Ok(Candidate { answered, address: Some(address) })
        });
    }

    fn failed(&mut self, failure: DialError) {
        self.next_start = Instant::now();
        // A handshake that failed tells more than a connection that did.
        if !matches!(self.failure, Some(DialError::Handshake(_))) {
            self.failure = Some(failure);
        }
    }
}

async fn connect(
    pool: &Inner,
    address: &Address,
    data: Option<&TargetData>,
) -> Result<BoxedStream, DialError> {
    let failed = |source| DialError::Connect { address: address.clone(), source: Arc::new(source) };
    let connected =
        contained(pool.settings.connect_timeout, || pool.connector.connect(address, data)).await;
    match connected {
        Ok(connected) => connected.map_err(failed),
        Err(crate::error::Refusal::TimedOut) => Err(failed(timed_out())),
        Err(_panicked) => Err(DialError::Panicked),
    }
}

async fn initiate(
    pool: &Inner,
    peer: &crate::PeerId,
    stream: BoxedStream,
) -> Result<Answered, DialError> {
    timeout(pool.settings.handshake_timeout, pool.native.initiate(peer, stream))
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
        .map_err(DialError::Handshake)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "not connected within connect_timeout")
}
