//! Steps that send messages.
//!
//! Owns what becomes of messages when they are offered; what comes of them later is in `book`.

use std::sync::Arc;
use std::time::Duration;

use noise_pool::Target;
use noise_pool::error::{SendErrorKind, SendToError};
use noise_pool::snapshot::SessionReport;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::{Dialled, is_denied};
use crate::laws;
use crate::model::{Forecast, LeaseNo, Model, Sending, SessionNo, pair};
use crate::world::{PATIENCE, World};
use crate::world::{name, who};

impl World {
    pub(super) async fn send(
        &mut self,
        model: &Model,
        lease: LeaseNo,
        count: u8,
        length: u16,
        pauses: bool,
    ) {
        let mut outcomes = Vec::new();
        for _ in 0..count {
            {
                let leases = self.shared.leases.lock().unwrap();
                // Whether there is one may not have been known.
                let Some(grip) = leases.get(&lease) else { return };
                let holder = grip.is_exclusive().then_some(lease);
                outcomes.push(self.shared.offer(grip.node, grip.lease(), holder, length.into()));
            }
            for _ in 0..if pauses { 4 } else { 0 } {
                yield_now().await;
            }
        }
        let Forecast::Sent(sending) = &model.forecast else { panic!("a message was to be sent") };
        for outcome in outcomes {
            let kind = outcome.map_err(|error| error.kind);
            let as_foretold = match sending {
                Sending::Accepted => kind.is_ok(),
                Sending::Refused => matches!(
                    kind,
                    Err(SendErrorKind::Closed(_)
                        | SendErrorKind::Retired(_)
                        | SendErrorKind::TooLarge { .. })
                ),
                Sending::TooLarge => matches!(kind, Err(SendErrorKind::TooLarge { .. })),
                Sending::Unsure => true,
            };
            assert!(as_foretold, "{sending:?} was foretold, not {kind:?}");
        }
    }

    pub(super) async fn send_to(
        &mut self,
        model: &Model,
        from: usize,
        to: usize,
        count: u8,
        length: u16,
    ) {
        let before = Dialled::now(self, from, to);
        let messages: Vec<_> =
            (0..count).map(|_| self.shared.write(from, to, length.into())).collect();
        let (pool, shared) = (self.pool(from), Arc::clone(&self.shared));
        let mut call = tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for (number, message) in messages {
                let target = Target::new(name(to)).timeout(PATIENCE);
                let outcome = pool.send(target, message).await;
                if outcome.is_err() {
                    shared.book.lock().unwrap().given_back(number);
                }
                outcomes.push((number, outcome));
            }
            outcomes
        });
        if matches!(model.forecast, Forecast::Unknown) {
            let call = tokio::spawn(async move { drop(call.await.unwrap()) });
            self.leave(pair(from, to), true, call);
            return;
        }
        let outcomes = self.meanwhile("sending", &mut call).await.unwrap();
        match &model.forecast {
            Forecast::Calls { session, denial, connects, .. } => {
                for (number, outcome) in outcomes {
                    match (session, outcome) {
                        (Some(session), Ok(())) => self.attribute(from, to, *session, number),
                        (None, Err(SendToError::Dial { source, .. })) => {
                            assert!(is_denied(*denial, &source), "{denial:?}, not {source:?}");
                        }
                        (session, outcome) => panic!("{session:?} was foretold, not {outcome:?}"),
                    }
                }
                let begun = before.until(Dialled::now(self, from, to));
                laws::single_flight(begun, connects, session.map(|_| 0));
            }
            Forecast::Sent(Sending::TooLarge) => {
                let too_large = |error: &SendToError| matches!(error, SendToError::Send(error) if matches!(error.kind, SendErrorKind::TooLarge { .. }));
                let all = outcomes.iter().all(|(_, o)| o.as_ref().is_err_and(too_large));
                assert!(all, "too large messages: {outcomes:?}");
            }
            other => panic!("messages, and {other:?}"),
        }
    }

    /// A message that the pool sent on the one session that there was.
    fn attribute(&mut self, from: usize, to: usize, session: SessionNo, number: u64) {
        let id = self.known.get(&(from, session)).copied();
        let id = id.or_else(|| self.nodes[from].ready_session(to)).expect("the session is there");
        self.shared.book.lock().unwrap().sent_on(number, id);
    }

    /// PROMISE "exclusive never interleaved": while one holds all leases, nobody else gets one, and
    /// what others have to say comes before or after what the holder says. That it does is seen at the
    /// other end, in `Book::holders_are_not_interrupted`.
    pub(super) async fn contend(&mut self, model: &Model, lease: LeaseNo, words: u8, rivals: u8) {
        let Some(holder) = self.let_go(lease) else { return };
        let (node, session) = (holder.node, holder.lease().session_id());
        let (pool, peer) = (self.pool(node), holder.lease().peer());
        let rivals: Vec<_> = (0..rivals)
            .map(|_| {
                let (pool, shared) = (pool.clone(), Arc::clone(&self.shared));
                tokio::spawn(async move {
                    let target = Target::new(peer).timeout(PATIENCE);
                    let lease = pool.get_or_dial(target).await.ok()?;
                    Some((lease.session_id(), shared.offer(node, &lease, None, 40).is_ok()))
                })
            })
            .collect();
        let sure = matches!(model.forecast, Forecast::Sent(_));
        let mut spoken = 0;
        for _ in 0..words {
            spoken += u8::from(self.shared.offer(node, holder.lease(), Some(lease), 40).is_ok());
            let other = pool.get(&peer).map(|lease| lease.session_id());
            assert_ne!(other, Some(session), "exclusive: a lease was given out beside it");
            assert!(holder.lease().try_clone().is_none(), "exclusive: it was cloned");
            self.meanwhile("a word", sleep(Duration::from_millis(1))).await;
        }
        if sure {
            assert_eq!(spoken, words, "the holder's words are accepted");
        }
        assert!(
            !sure || !model.setup.waits || !rivals.iter().any(JoinHandle::is_finished),
            "exclusive: a rival got its turn before the lease was returned"
        );
        drop(holder);
        let mut heard = 0;
        for rival in rivals {
            let rival = self.meanwhile("a rival", rival).await.unwrap();
            heard += usize::from(rival == Some((session, true)));
        }
        if let Some(number) = model.session(node, who(peer)).filter(|_| sure) {
            let id = self.known[&(node, number)];
            assert_eq!(id, session, "the lease was of the known session");
            // The model knows how many of the rivals were to be heard: it is checked with the rest.
            assert!(model.setup.waits || heard == 0, "a rival had no turn to wait for");
        }
    }

    pub(super) async fn probe(&mut self, model: &Model, lease: LeaseNo) {
        let Some(grip) = self.let_go(lease) else { return };
        let probe = async {
            let flushed = grip.lease().flush().await.is_ok();
            (flushed, grip.lease().ping().await.is_ok())
        };
        let alive = self.meanwhile("a flush and a ping", probe).await;
        match &model.forecast {
            Forecast::Sent(Sending::Accepted) => assert_eq!(alive, (true, true), "it lives"),
            Forecast::Sent(Sending::Refused) => assert!(!alive.1, "it has ended"),
            _ => {}
        }
        self.shared.leases.lock().unwrap().insert(lease, grip);
    }

    /// A lease is returned. Nobody reads what its peer says just before.
    pub(super) async fn give_back(&mut self, lease: LeaseNo, words: u8) {
        let Some(grip) = self.let_go(lease) else { return };
        self.last_words(who(grip.lease().peer()), grip.node, words);
        for _ in 0..20 {
            yield_now().await;
        }
        drop(grip);
    }

    /// Messages that are accepted just before a drain begins.
    pub(super) fn last_words(&self, from: usize, to: usize, words: u8) {
        let Some(lease) = self.nodes[from].pool.get(&name(to)) else { return };
        for _ in 0..words {
            // What the model counts of them is compared with the book.
            let _ = self.shared.offer(from, &lease, None, 16);
        }
    }

    pub(super) fn all_delivered(
        &self,
        node: usize,
        sessions: &[SessionNo],
        messages: SessionReport,
    ) {
        let book = self.shared.book.lock().unwrap();
        let (mut accepted, mut received) = (0, 0);
        for number in sessions {
            for (end, id) in &self.accounts[number] {
                let count = book.accepted_on(*id).len() as u64;
                *if *end == node { &mut accepted } else { &mut received } += count;
            }
        }
        assert_eq!(messages.accepted, accepted, "the drain reports what was accepted");
        assert_eq!(messages.delivered, accepted, "exactly once: the drain delivered all");
        assert_eq!(messages.received, received, "exactly once: the drain took all in");
    }
}
