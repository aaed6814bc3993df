//! Exactly one encrypted, authenticated Noise session per peer, shared by all tasks of an overlay
//! router.
//!
//! A [`Pool`] dials each peer once however many tasks ask, pools a session only when its handshake
//! is complete and its ready check has passed, hands out [`Lease`]s on it, probes it when it was
//! silent, drains it before it closes it, and shows everything through [`Snapshot`]s.
//!
//! # The model
//!
//! A *peer* is named by its static key, its [`PeerId`], never by an address. What the pool knows of
//! a peer is its *slot*; a slot exists only while there is a dial or a session:
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
//! keep the same one of the two connections, and no message that was accepted on the other is lost.
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
//!   ask again.
//! * Room is reserved before a dial begins; `max_sessions` is never exceeded.
//! * A message that was accepted is delivered once or reported: delivered, unknown, or expired.
//! * A handle that outlives its session gives an error and never touches a successor.
//! * A stranger gets not one byte, and costs a bounded amount of memory, time and processor.
//! * Every future may be dropped at any await, and every callback may panic or hang.
//!
//! `SECURITY.md` says how each is enforced, and what is not promised.
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
#[cfg(any(test, fuzzing))]
mod verify;

/// The README's code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    //! Entry points of the fuzz targets.
    pub use crate::verify::fuzz::*;
}

pub mod error {
    //! What can go wrong, one enum per operation; each says whether and when to retry.
    pub use crate::base::error::*;
}

pub use base::address::{Address, AddressError, PeerAddress, PeerAddressError};
pub use base::config::{Config, ConfigError, ConfigValue, Loopback, WhenFull};
pub use base::environment::{Entropy, OsEntropy, SystemWallClock, WallClock};
pub use base::error::{
    AdoptError, CloseReason, DialError, GoodbyeReason, HandshakeError, Limit, ListenError,
    PingError, ProtocolError, Refusal, RejectReason, Retry, SendError, SendErrorKind, SendToError,
    SessionClosed,
};
pub use base::event::{DialFailure, Events, HandshakeFailure, Lagged, PoolEvent, RejectedBy};
pub use base::id::{AttemptId, Origin, PeerId, PeerIdError, SessionId};
pub use base::identity::{Corruption, Identity, IdentityError};
pub use base::io::{BoxFuture, BoxedStream, Stream, TargetData};
pub use base::metrics::{
    DialFailures, HandshakeFailures, HookStats, InboundRows, LateAcceptRows, Rejections, Stats,
};
pub use base::metrics::{
    DialPhase, DialSnapshot, LimitUse, Limits, SessionReport, SessionSnapshot, SessionState,
    Snapshot,
};
#[cfg(feature = "snapshot-codec")]
pub use base::metrics::{Malformed, SnapshotDecodeError, SnapshotEncodeError};
pub use base::suite::{Suite, UnknownSuite};
pub use pool::builder::PoolBuilder;
pub use pool::get_or_dial::GetOrDial;
pub use pool::hooks::{Candidate, Hooks, SessionInfo};
pub use pool::shutdown::{Disconnect, DrainReport, How};
pub use pool::target::Target;
pub use pool::{Pool, Role};
pub use session::{ExclusiveLease, Inbox, Lease, Message, SendOptions};
pub use transport::{Connector, TcpConnector};
