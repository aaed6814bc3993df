//! What passes from a session to the one that takes its place: the messages that it had not sent.
//!
//! Owns who gets them, and in which order: the peer's next session sends what earlier ones have left, and
//! nothing before. Each step changes the slot and the messages under one lock; wakers are called, and
//! messages dropped, when it is gone.

use std::sync::Arc;

use crate::base::error::{CloseReason, ErrorKind};
use crate::base::event::PoolEvent;
use crate::base::id::{Origin, PeerId};
use crate::pool::limits::SlotPermit;
use crate::pool::pooled::PooledSession;
use crate::pool::slots::Open;
use crate::session::{CarriedOver, LeaseHandle, Session, SessionSpec, UncountedRef, Unsent};

use super::SessionTable;

impl SessionTable {
    /// A session for its slot, without a task yet, that sends first what earlier ones have left unsent.
    /// Called under the slot's lock, in which it displaces the session that is there.
    pub(crate) fn build_pooled(
        &self,
        spec: SessionSpec,
        permit: SlotPermit,
        displaced: Option<&PooledSession>,
    ) -> (LeaseHandle, PooledSession) {
        let leases = self.build(spec);
        let session = leases.session();
        if let Some(unsent) = self.carry_over.take(&session.peer()) {
            // Its driver does not run yet.
            let _ = self.carry_to(session, unsent);
        }
        let in_doubt = |old: &&Arc<Session>| old.retired() == Some(CloseReason::InDoubt);
        for old in self.draining.of(&session.peer()).iter().filter(in_doubt) {
            old.succeeded_by(session);
        }
        if let Some(pooled) = displaced {
            pooled.session().succeeded_by(session);
        }
        let pooled = PooledSession { leases: UncountedRef::of(&leases), permit: Some(permit) };
        (leases, pooled)
    }

    /// A session was installed that had taken over so many messages.
    pub(super) fn note_carried(&self, session: &Session, messages: u64) {
        if messages > 0 {
            self.ctx.counters.messages_carried.add(messages);
            let (peer, session) = (session.peer(), session.id());
            self.ctx.events.publish(|| PoolEvent::CarriedOver { peer, session, messages });
        }
        self.carry_over.report();
    }

    /// A session has ended, and was retired for this reason.
    pub(super) fn leave(&self, peer: PeerId, unsent: Option<Unsent>, retired: CloseReason) {
        match unsent {
            Some(unsent) if self.carry_over.applies(retired) => self.carry(peer, unsent),
            Some(unsent) => {
                self.carry_over.give_up(peer, unsent);
                self.carry_over.report();
            }
            None => {}
        }
    }

    /// Gives what a session has left unsent to the session that stands in the peer's slot; if there is
    /// none, it is kept for the next.
    pub(super) fn carry(&self, peer: PeerId, unsent: Unsent) {
        let carried = self.slots.with(&peer, |slot, open| match (slot.session(), open) {
            (Some(pooled), _) => {
                let session = pooled.session();
                self.carry_to(session, unsent).map(|carried| (session.clone(), carried))
            }
            (None, Open::Yes) => {
                self.carry_over.keep(peer, unsent);
                None
            }
            (None, Open::No) => {
                self.carry_over.give_up(peer, unsent);
                None
            }
        });
        if let Some((session, CarriedOver { messages, wake, .. })) = carried {
            if wake {
                session.wake();
            }
            self.note_carried(&session, messages);
        }
        self.carry_over.report();
    }

    /// Has a session send what an earlier one has left. `None`: it takes no more, and these are kept for
    /// the next. Called under the slot's lock.
    fn carry_to(&self, session: &Session, unsent: Unsent) -> Option<CarriedOver> {
        match session.carry_over(unsent) {
            Ok(mut carried) => {
                if let Some(longer) = carried.longer.take() {
                    self.carry_over.give_up(session.peer(), longer);
                }
                Some(carried)
            }
            Err(unsent) => {
                self.carry_over.keep(session.peer(), unsent);
                None
            }
        }
    }

    /// Whether the pool, or the application, can open another session to the peer of this one.
    pub(super) fn can_redial(&self, session: &Session) -> bool {
        let dialled = session.origin() == Origin::Outbound && session.remote().is_some();
        dialled || self.kept.contains(&session.peer())
    }

    /// Notes that the peer's session has left its slot because nothing came from the peer any more.
    pub(super) fn note_lost(&self, session: &Session, why: CloseReason) {
        let is_silence = matches!(
            why,
            CloseReason::PingTimeout
                | CloseReason::InDoubt
                | CloseReason::Stalled
                | CloseReason::Io(ErrorKind::TimedOut | ErrorKind::Unreachable)
        );
        if is_silence {
            self.failures.lost(session.peer(), why);
        }
    }
}
