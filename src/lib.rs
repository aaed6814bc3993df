//! Exactly one encrypted, authenticated Noise session per peer, shared by all tasks of an overlay
//! router.
//!
//! A [`Pool`] dials each peer once however many tasks ask, pools a session only when its handshake
//! is complete and its ready check has passed, hands out [`Lease`]s on it, probes it after silence,
//! drains it before it closes it, and shows all of it in a [`Snapshot`](snapshot::Snapshot).
//!
//! # The model
//!
//! A *peer* is named by its [`PeerId`], on the native wire its static key, never by an address. What
//! the pool knows of a peer is its *slot*; a slot exists only while there is a dial or a session:
//!
//! ```text
//!            get_or_dial                 message 2,              the peer's verdict:
//!            (first caller)              our checks pass         accept
//!   absent ───────────────▶ Dialing ───────────────▶ Dialing ───────────────▶ Ready
//!     ▲                     (open)                   (committed)                │
//!     │  last caller left,    │   rejected, broken,    │     idle, old, evicted,│
//!     │  failed               │   no verdict           │  superseded, broken    │
//!     └───────────────────────┴────────────────────────┴───────────────────────┘
//!                                                          then it drains: flush,
//!                                                          both say goodbye, close
//! ```
//!
//! The dial belongs to the pool, not to the first caller: any caller may be dropped at any await,
//! and the others get their session. When two peers dial each other at the same moment, both ends
//! keep the same one of the two connections, and no message that was accepted on the other is lost;
//! the rule is on [one page](simultaneous_open).
//!
//! # The shortest embedding
//!
//! ```
//! use bytes::Bytes;
//! use noise_pool::{Identity, Pool, Target};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (alice, _) = Pool::builder(Identity::generate()).build()?;
//! let (bob, mut inbox) = Pool::builder(Identity::generate()).build()?;
//! let address = bob.listen("127.0.0.1:0".parse()?).await?;
//!
//! let lease = alice.get_or_dial(Target::new(bob.id()).address(address)).await?;
//! lease.send(Bytes::from_static(b"hello")).await?;
//!
//! let message = inbox.recv().await.ok_or("the pool has ended")?;
//! assert_eq!((message.peer, &message.body[..]), (alice.id(), &b"hello"[..]));
//!
//! drop(lease);
//! let report = alice.drain(std::time::Duration::from_secs(5)).await;
//! assert_eq!(report.messages.delivered, 1);
//! # bob.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * At most one session per peer is handed out, on both ends the same one.
//! * N callers and a dead peer cost one dial and one timeout; all get one error, which says when to
//!   call again.
//! * Room is reserved before a dial begins; `max_sessions` is never exceeded.
//! * A message that was accepted is delivered once or reported: delivered, unknown, unsent, or expired.
//! * A handle that outlives its session gives an error and never touches a successor.
//! * A stranger who does not know our key gets no byte, and any stranger costs a bounded amount of
//!   memory, time and processor.
//! * Every future may be dropped at any await, and every callback may panic or hang.
//!
//! [`docs::security`] says how each is enforced, and what is not promised; [`docs::wire`] is the wire.
//!
//! # Features
//!
//! * `fast-crypto` (default): X25519 and both AEADs by aws-lc, which needs a C compiler. Without it
//!   the crate is pure Rust.
//! * `serde`: [`Config`] can be deserialised; snapshots, statistics and events serialised.
//! * `snapshot-codec`: snapshots have a binary form.

#![forbid(unsafe_code)]

mod base;
mod pool;
mod proto;
mod session;
mod transport;
#[cfg(any(test, fuzzing, noise_pool_plain_wire))]
mod verify;

/// The README's code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doc)]
pub mod docs {
    //! The pages of the repository that users need: a module each, without items.
    //!
    //! A page links to others by their files; the definition in front of each page comes first, and
    //! leads to the module instead.

    /// [docs/wire.md]: crate::docs::wire
    ///
    #[doc = include_str!("../CHANGELOG.md")]
    pub mod changelog {}

    /// [SECURITY.md]: crate::docs::security#where-each-promise-is-shown
    ///
    #[doc = include_str!("../docs/proof.md")]
    pub mod proof {}

    /// [docs/proof.md]: crate::docs::proof
    ///
    #[doc = include_str!("../SECURITY.md")]
    pub mod security {}

    #[doc = include_str!("../docs/wire.md")]
    pub mod wire {}
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    //! Entry points of the fuzz targets.
    pub use crate::verify::fuzz::*;
}

#[cfg(doc)]
#[doc = include_str!("../docs/simultaneous_open.md")]
pub mod simultaneous_open {}

pub mod config {
    //! What a [`Config`](crate::Config) is made of, and what can be wrong with it.
    pub use crate::base::config::{ConfigError, ConfigValue, Loopback, WhenFull};
    pub use crate::base::environment::{Entropy, OsEntropy, SystemWallClock, WallClock};
    pub use crate::base::suite::{Suite, UnknownSuite};
}

pub mod error {
    //! What can go wrong, one enum per operation; each says whether and when to retry.
    pub use crate::base::address::{AddressError, PeerAddressError};
    pub use crate::base::error::{
        AdoptError, CloseReason, DialError, ErrorKind, GoodbyeReason, HandshakeError, Limit,
        ListenError, PingError, ProtocolError, Refusal, RejectReason, Retry, SendError,
        SendErrorKind, SendToError, SessionClosed,
    };
    pub use crate::base::id::PeerIdError;
    pub use crate::base::identity::{Corruption, IdentityError};
}

pub mod event {
    //! What happens in a pool, as it happens: [`Pool::subscribe`](crate::Pool::subscribe).
    pub use crate::base::error::RejectedBy;
    pub use crate::base::event::{Events, Lagged, PoolEvent};
    pub use crate::base::metrics::{DialFailure, HandshakeFailure};
}

pub mod io {
    //! Streams and futures, as a [`Connector`](crate::Connector) and [`Hooks`](crate::Hooks) pass them.
    pub use crate::base::io::{BoxFuture, BoxedStream, Stream, TargetData};
}

pub mod snapshot {
    //! A pool at one moment, and its counters: [`Pool::snapshot`](crate::Pool::snapshot),
    //! [`Pool::stats`](crate::Pool::stats).
    pub use crate::base::metrics::{
        DialFailures, DialPhase, DialSnapshot, HandshakeFailures, HookStats, InboundRows,
        LateAcceptRows, LimitUse, Limits, Rejections, SessionReport, SessionSnapshot, SessionState,
        Snapshot, Stats,
    };
    #[cfg(feature = "snapshot-codec")]
    pub use crate::base::metrics::{Malformed, SnapshotDecodeError, SnapshotEncodeError};
}

pub use base::address::{Address, PeerAddress};
pub use base::config::Config;
pub use base::id::{AttemptId, Origin, PeerId, SessionId};
pub use base::identity::Identity;
pub use pool::hooks::{Candidate, Hooks, SessionInfo};
pub use pool::shutdown::{CloseMode, Disconnect, DrainReport};
pub use pool::target::Target;
pub use pool::{GetOrDial, Pool, PoolBuilder, Role};
pub use session::{ExclusiveLease, Inbox, Lease, Message, SendOptions};
pub use transport::{Connector, TcpConnector};
