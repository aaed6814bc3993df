//! The race of one dial over its addresses, up to the first valid message 2.
//!
//! Owns the connections under way, and the look-up of addresses. Addresses are started one after
//! another, staggered by `dial_stagger` (RFC 8305, section 5), the next one at once when one fails;
//! addresses that later callers bring join, also while the look-up goes on. Dropping the race closes what has not answered: a peer that saw no message 3
//! has accepted nothing.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{DialError, HandshakeError, Refusal};
use crate::id::PeerId;
use crate::pool::dial::{Dial, Opener};
use crate::pool::hooks::contained;
use crate::pool::inner::Inner;
use crate::snapshot::DialPhase;
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
    /// Connections, and perhaps the look-up, which ends without a candidate.
    under_way: JoinSet<Result<Option<Candidate>, DialError>>,
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
        self.run(async move {
            let stream = open(&pool, opener).await?;
            let answered = initiate(&pool, &peer, stream).await?;
            Ok(Some(Candidate { answered, address: None }))
        });
    }

    /// Begins with the addresses that the connector knows; they join those that callers bring.
    pub(crate) fn resolve(&mut self) {
        let (pool, dial, data) = (self.pool.clone(), self.dial.clone(), self.data.clone());
        self.dial.set_phase(DialPhase::Resolving);
        self.run(async move {
            let addresses = resolve(&pool, dial.peer, data.as_ref()).await?;
            dial.add_addresses(&addresses);
            Ok(None)
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
                    Some(Ok(Ok(Some(candidate)))) => return Ok(candidate),
                    Some(Ok(Ok(None))) => {}
                    Some(Ok(Err(failure))) => self.failed(failure),
                    Some(Err(ended)) if ended.is_panic() => self.failed(DialError::Panicked),
                    Some(Err(_)) | None => {}
                },
                () = sleep_until(self.next_start), if waiting => {}
                () = more => {}
            }
        }
    }

    /// Runs one of the race's tasks; a close of the pool waits also for those that are cut.
    fn run(
        &mut self,
        work: impl Future<Output = Result<Option<Candidate>, DialError>> + Send + 'static,
    ) {
        self.under_way.spawn(self.pool.work.track_future(work));
    }

    fn start(&mut self, address: Address) {
        self.dial.set_phase(self.dial.phase().max(DialPhase::Connecting));
        self.next_start = Instant::now() + self.pool.settings.dial_stagger;
        let (pool, peer, data) = (self.pool.clone(), self.dial.peer, self.data.clone());
        self.run(async move {
            let stream = connect(&pool, &address, data.as_ref()).await?;
            let answered = initiate(&pool, &peer, stream).await?;
            Ok(Some(Candidate { answered, address: Some(address) }))
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

async fn resolve(
    pool: &Inner,
    peer: PeerId,
    data: Option<&TargetData>,
) -> Result<Vec<Address>, DialError> {
    let failed = |source| DialError::Resolve { peer, source: Arc::new(source) };
    let resolved =
        contained(pool.settings.hook_timeout, || pool.connector.resolve(&peer, data)).await;
    match resolved {
        Ok(resolved) => resolved.map_err(failed),
        Err(Refusal::TimedOut) => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "the connector did not resolve the peer within hook_timeout",
        ))),
        Err(refusal) => {
            pool.hook_refused(refusal);
            Err(DialError::Panicked)
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
        Err(Refusal::TimedOut) => Err(failed(timed_out())),
        Err(refusal) => {
            pool.hook_refused(refusal);
            Err(DialError::Panicked)
        }
    }
}

async fn open(pool: &Inner, opener: Opener) -> Result<BoxedStream, DialError> {
    let failed = |source| DialError::Open { source: Arc::new(source) };
    match contained(pool.settings.connect_timeout, opener).await {
        Ok(opened) => opened.map_err(failed),
        Err(Refusal::TimedOut) => Err(failed(timed_out())),
        Err(refusal) => {
            pool.hook_refused(refusal);
            Err(DialError::Panicked)
        }
    }
}

async fn initiate(pool: &Inner, peer: &PeerId, stream: BoxedStream) -> Result<Answered, DialError> {
    // Whoever does not know us by that time closes at a moment of its own choice, or never.
    timeout(pool.settings.handshake_timeout, pool.native.initiate(peer, stream))
        .await
        .unwrap_or(Err(HandshakeError::NoAnswer))
        .map_err(DialError::Handshake)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "not connected within connect_timeout")
}
