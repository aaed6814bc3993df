//! Who may have which session: the pool.
//!
//! [`handle`] has the public `Pool`, [`state`] its parts. What may happen to a slot is decided in
//! `proto::slot`; what bytes mean, in `proto`; how one session works, in `session`; how a handshake
//! runs, in `transport`. Nothing here runs code of the application, waits, or drops what could under a
//! lock.

pub(crate) mod acquire;
pub(crate) mod builder;
pub(crate) mod carry_over;
pub(crate) mod checks;
pub(crate) mod context;
pub(crate) mod dial;
pub(crate) mod failures;
pub(crate) mod get_or_dial;
pub(crate) mod handle;
pub(crate) mod hooks;
pub(crate) mod inbound;
pub(crate) mod kept;
pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod persistent;
pub(crate) mod pooled;
pub(crate) mod reaper;
pub(crate) mod report;
pub(crate) mod sessions;
pub(crate) mod shutdown;
pub(crate) mod slots;
pub(crate) mod state;
pub(crate) mod stop_signal;
pub(crate) mod suspend;
pub(crate) mod target;

pub use builder::PoolBuilder;
pub use get_or_dial::GetOrDial;
pub use handle::{Pool, Role};
