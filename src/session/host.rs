//! What a session tells the pool.
//!
//! Owns nothing: it is the contract. A session must never ask the pool which session a peer has.

use std::sync::Arc;

use crate::base::error::CloseReason;
use crate::base::io::BoxFuture;
use crate::base::metrics::SessionReport;

use super::send::unsent::Unsent;
use super::state::Session;

/// How a session has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) why: CloseReason,
    /// Why it was not handed out any more before that.
    pub(crate) retired: CloseReason,
    pub(crate) report: SessionReport,
    /// What the report calls unsent.
    pub(crate) unsent: Option<Unsent>,
}

/// What a session tells the pool. Called by the session's driver, outside every lock.
pub(crate) trait Host: Send + Sync + 'static {
    /// The session is not to be handed out any more: its age is reached, the peer drains it, or a
    /// probe failed. Called before the session refuses anything. Idempotent.
    fn retired(&self, session: &Arc<Session>, why: CloseReason);

    /// The session has ended. Called exactly once per driver, last of all, after its last message has
    /// reached the inbox and before the waiters for its end are woken.
    fn ended(&self, session: &Arc<Session>, ended: Ended);

    /// Whether the pool, or the application, can open another session to this peer.
    fn may_redial(&self, session: &Session) -> bool;

    /// The session drains because a newer one has taken its place: these messages it had not begun to
    /// write.
    fn left(&self, session: &Arc<Session>, unsent: Unsent);

    /// The application's own health check, if it has one; run after a probe's pong. The host bounds
    /// its time.
    fn health_check(self: Arc<Self>, session: &Arc<Session>) -> Option<BoxFuture<'static, bool>>;
}
