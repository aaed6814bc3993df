//! Entry function for fuzzing the slot machine.
//!
//! Owns a second account of what one slot holds, kept from the events alone, and compares the two
//! after each. It plays the pool faithfully: a dial asks before it commits, is accepted at most once
//! and only when it is committed, and leaves when it is told to; who comes when is the input's.

#![expect(clippy::expect_used, reason = "a failed assertion is the finding")]

use super::input::Input;
use crate::base::error::RejectReason;
use crate::base::id::{AttemptId, SessionId};
use crate::proto::slot::{
    AcceptCase, AcceptDecision, Claim, Displaced, DrainCase, Ended, Hearing, InboundCase,
    InboundDecision, KeyOrder, Phase, Slot, View,
};

/// Where a dial's task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It holds the slot.
    Current { phase: Phase, waiters: u32 },
    /// It was committed when it lost the slot, and awaits its verdict.
    Superseded { cancelled: bool },
    /// It has ended, or was open when it lost the slot and must end without a word.
    Over,
}

/// The dial's handle is its place in the list.
struct Dial {
    attempt: AttemptId,
    stand: Stand,
    /// Its waiters were given to somebody to be told.
    told: bool,
}

/// A claim as the account sees it.
#[derive(Clone, Copy)]
struct Dated {
    /// Instance and stamp.
    stamped: Option<(u64, u64)>,
    heard: u64,
}

impl Dated {
    fn claim(&self) -> Claim {
        match self.stamped {
            Some((instance, stamp)) => Claim::stamped(instance, stamp, self.heard),
            None if self.is_presumed() => Claim::presumed(),
            None => Claim::unstamped(self.heard),
        }
    }

    fn is_presumed(&self) -> bool {
        self.stamped.is_none() && self.heard == 0
    }

    fn instance(&self) -> Option<u64> {
        self.stamped.map(|(instance, _)| instance)
    }
}

#[derive(Clone, Copy)]
struct Session {
    id: SessionId,
    claim: Dated,
    /// The instance that its own displaced.
    displaced: Option<u64>,
}

#[derive(Default)]
struct Account {
    slot: Slot<usize, SessionId>,
    dials: Vec<Dial>,
    /// All that ever were.
    sessions: Vec<SessionId>,
    held: Option<Session>,
}

/// Plays events on one slot. Each is a byte that says what, one that says to whom, and what the event
/// needs.
pub fn slot_model(data: &[u8]) {
    let mut input = Input(data);
    let order = match input.byte() & 1 {
        0 => KeyOrder::PeerLarger,
        _ => KeyOrder::PeerSmaller,
    };
    let mut account = Account::default();
    while !input.is_empty() {
        let what = input.byte();
        let who = usize::from(input.byte());
        match what % 11 {
            0 => account.dial(),
            1 => account.join(),
            2 => account.leave(who),
            3 => account.commit(who),
            4 => account.reopen(who),
            5 => account.dial_ended(who),
            6 | 7 => {
                let claim = claim(&mut input);
                let hearing = match what & 0x80 {
                    0 => Hearing::First,
                    _ => Hearing::AfterParking,
                };
                account.inbound(claim, order, hearing);
            }
            8 => {
                let claim = claim(&mut input);
                account.accepted(who, claim);
            }
            9 => account.remove(who),
            _ if what & 0x80 == 0 => account.disconnect(),
            _ => account.confirm(who, u64::from(input.byte())),
        }
        account.compare();
    }
    account.end();
}

/// Few instances and stamps, so that all relations occur; one claim in four has none.
fn claim(input: &mut Input<'_>) -> Dated {
    let (which, heard) = (input.byte(), input.byte());
    let (instance, stamp) = (u64::from(which & 3), u64::from(which >> 2));
    Dated { stamped: (instance != 3).then_some((instance, stamp)), heard: u64::from(heard) }
}

impl Account {
    fn current(&self) -> Option<usize> {
        self.dials.iter().position(|dial| matches!(dial.stand, Stand::Current { .. }))
    }

    /// The dial that the input means, if there is any.
    fn pick(&self, who: usize) -> Option<usize> {
        (!self.dials.is_empty()).then(|| who % self.dials.len())
    }

    /// Waiters are told once, by whoever got the dial's handle.
    fn tell(&mut self, dial: usize) {
        assert!(!self.dials[dial].told, "the waiters were told already");
        self.dials[dial].told = true;
    }

    // ---- events --------------------------------------------------------------------------------

    fn dial(&mut self) {
        let attempt = AttemptId::next();
        let vacant = self.current().is_none() && self.held.is_none();
        assert_eq!(self.slot.dial(attempt, self.dials.len()), vacant);
        if vacant {
            let stand = Stand::Current { phase: Phase::Open, waiters: 1 };
            self.dials.push(Dial { attempt, stand, told: false });
        }
    }

    fn join(&mut self) {
        let current = self.current();
        assert_eq!(self.slot.join(), current);
        if let Some(current) = current
            && let Stand::Current { waiters, .. } = &mut self.dials[current].stand
        {
            *waiters += 1;
        }
    }

    fn leave(&mut self, who: usize) {
        let Some(who) = self.pick(who) else { return };
        let dial = &mut self.dials[who];
        let mut stopped = None;
        if let Stand::Current { phase, waiters } = &mut dial.stand
            && *waiters > 0
        {
            *waiters -= 1;
            if *waiters == 0 && *phase == Phase::Open {
                stopped = Some(who);
                dial.stand = Stand::Over;
                dial.told = true;
            }
        } else if matches!(dial.stand, Stand::Current { .. }) {
            // Nobody is there to leave.
            return;
        }
        assert_eq!(self.slot.leave(self.dials[who].attempt), stopped);
    }

    fn commit(&mut self, who: usize) {
        let Some(who) = self.pick(who) else { return };
        let dial = &mut self.dials[who];
        let holds = match &mut dial.stand {
            Stand::Current { phase, .. } => {
                *phase = Phase::Committed;
                true
            }
            _ => false,
        };
        assert_eq!(self.slot.commit(dial.attempt), holds, "a dial that lost its slot must not");
    }

    fn reopen(&mut self, who: usize) {
        let Some(who) = self.pick(who) else { return };
        let dial = &mut self.dials[who];
        if matches!(dial.stand, Stand::Current { phase: Phase::Open, .. }) {
            // Only a verdict reopens, and an open dial has asked for none.
            return;
        }
        let reopens = match &mut dial.stand {
            Stand::Current { phase, waiters } if *waiters > 0 => {
                *phase = Phase::Open;
                true
            }
            _ => false,
        };
        assert_eq!(self.slot.reopen(dial.attempt), reopens);
    }

    fn dial_ended(&mut self, who: usize) {
        let Some(who) = self.pick(who) else { return };
        let holds = matches!(self.dials[who].stand, Stand::Current { .. });
        let ended = self.slot.dial_ended(self.dials[who].attempt);
        assert_eq!(ended, if holds { Ended::Current(who) } else { Ended::Forgotten });
        self.dials[who].stand = Stand::Over;
        if holds {
            self.tell(who);
        }
    }

    fn inbound(&mut self, claim: Dated, order: KeyOrder, hearing: Hearing) {
        let expected = match (self.current().map(|dial| self.dials[dial].stand), &self.held) {
            (Some(Stand::Current { phase: Phase::Open, .. }), _) => {
                InboundDecision::Accept(InboundCase::AbortsDial)
            }
            (Some(_), _) if order == KeyOrder::PeerLarger => {
                InboundDecision::Accept(InboundCase::SupersedesDial)
            }
            (Some(_), _) => InboundDecision::Park,
            (None, None) => InboundDecision::Accept(InboundCase::Vacant),
            (None, Some(held)) if held.claim.is_presumed() && order == KeyOrder::PeerSmaller => {
                InboundDecision::Park
            }
            (None, Some(held)) if newer(&claim, &held.claim) => {
                InboundDecision::Accept(InboundCase::RetiresSession)
            }
            (None, Some(_)) => InboundDecision::Reject(match hearing {
                Hearing::First => RejectReason::Duplicate,
                Hearing::AfterParking => RejectReason::Simultaneous,
            }),
        };
        let judgement = self.slot.judge(&claim.claim(), order, hearing);
        assert_eq!(judgement, expected);
        if let InboundDecision::Accept(_) = judgement {
            let id = self.new_session();
            let displaced = self.slot.install_inbound(id, claim.claim(), id);
            self.installed(id, claim, None, displaced);
        }
    }

    fn accepted(&mut self, who: usize, claim: Dated) {
        let Some(who) = self.pick(who) else { return };
        let held = self.held;
        let expected = match self.dials[who].stand {
            Stand::Current { phase: Phase::Committed, .. } => {
                AcceptDecision::Adopt(AcceptCase::Current)
            }
            // The peer has nothing to accept.
            Stand::Current { phase: Phase::Open, .. } | Stand::Over => return,
            Stand::Superseded { cancelled: true } => AcceptDecision::Drain(DrainCase::Cancelled),
            Stand::Superseded { cancelled: false } => {
                match (self.current().map(|dial| self.dials[dial].stand), held) {
                    (Some(Stand::Current { phase: Phase::Open, .. }), _) => {
                        AcceptDecision::Adopt(AcceptCase::LateAbortsDial)
                    }
                    (Some(_), _) => AcceptDecision::Adopt(AcceptCase::LateSupersedesDial),
                    (None, None) => AcceptDecision::Adopt(AcceptCase::LateVacant),
                    (None, Some(held)) if newer(&claim, &held.claim) => {
                        AcceptDecision::Adopt(AcceptCase::LateRetiresSession)
                    }
                    (None, Some(_)) => AcceptDecision::Drain(DrainCase::Stale),
                }
            }
        };
        let attempt = self.dials[who].attempt;
        let acceptance = self.slot.accepted(attempt, &claim.claim());
        assert_eq!(acceptance, expected);
        match acceptance {
            AcceptDecision::Adopt(_) => {
                let id = self.new_session();
                let displaced = self.slot.install_outbound(attempt, id, claim.claim(), id);
                self.installed(id, claim, Some(who), displaced);
            }
            AcceptDecision::Drain(_) => {
                assert_eq!(self.slot.dial_ended(attempt), Ended::Forgotten);
                self.dials[who].stand = Stand::Over;
            }
        }
    }

    fn new_session(&mut self) -> SessionId {
        let id = SessionId::next();
        self.sessions.push(id);
        id
    }

    /// A session took the slot: by `dial`, or from outside.
    fn installed(
        &mut self,
        id: SessionId,
        claim: Dated,
        dial: Option<usize>,
        displaced: Displaced<usize, SessionId>,
    ) {
        let mut expected = None;
        if let Some(current) = self.current()
            && let Stand::Current { phase, .. } = self.dials[current].stand
        {
            expected = Some((current, phase));
            self.dials[current].stand = match phase {
                Phase::Open => Stand::Over,
                Phase::Committed => Stand::Superseded { cancelled: false },
            };
            self.tell(current);
        }
        if let Some(dial) = dial {
            self.dials[dial].stand = Stand::Over;
        }
        assert_eq!(displaced.dial, expected);
        assert_eq!(displaced.session, self.held.map(|held| held.id));
        let reborn = self.held.filter(|held| held.claim.instance() != claim.instance());
        let back = |instance| reborn.is_some_and(|held| held.displaced == Some(instance));
        assert_eq!(displaced.conflict, claim.instance().is_some_and(back));
        let displaced = match reborn {
            Some(held) => held.claim.instance(),
            None => self.held.and_then(|held| held.displaced),
        };
        self.held = Some(Session { id, claim, displaced });
    }

    fn remove(&mut self, who: usize) {
        if self.sessions.is_empty() {
            return;
        }
        let id = self.sessions[who % self.sessions.len()];
        let held = self.held.is_some_and(|held| held.id == id);
        assert_eq!(self.slot.remove(id), held.then_some(id), "only the session itself");
        if held {
            self.held = None;
        }
    }

    fn confirm(&mut self, who: usize, heard: u64) {
        if self.sessions.is_empty() {
            return;
        }
        let id = self.sessions[who % self.sessions.len()];
        self.slot.confirm(id, Claim::unstamped(heard));
        if let Some(held) = &mut self.held
            && held.id == id
            && held.claim.is_presumed()
        {
            held.claim.heard = heard;
        }
    }

    fn disconnect(&mut self) {
        let taken = self.slot.disconnect();
        assert_eq!(taken.session, self.held.take().map(|held| held.id));
        let mut expected = None;
        for (place, dial) in self.dials.iter_mut().enumerate() {
            match dial.stand {
                Stand::Current { phase, .. } => {
                    expected = Some((place, phase));
                    dial.stand = match phase {
                        Phase::Open => Stand::Over,
                        Phase::Committed => Stand::Superseded { cancelled: true },
                    };
                }
                Stand::Superseded { .. } => dial.stand = Stand::Superseded { cancelled: true },
                Stand::Over => {}
            }
        }
        assert_eq!(taken.dial, expected);
        if let Some((dial, _)) = expected {
            self.tell(dial);
        }
    }

    // ---- what must hold ------------------------------------------------------------------------

    fn compare(&self) {
        let awaited = |dial: &&Dial| matches!(dial.stand, Stand::Superseded { .. });
        let superseded = self.dials.iter().filter(awaited).count();
        assert_eq!(self.slot.superseded().len(), superseded, "a committed dial is never forgotten");
        let current = self.current();
        assert!(current.is_none() || self.held.is_none(), "a dial beside a session");
        let vacant = current.is_none() && self.held.is_none() && superseded == 0;
        assert_eq!(self.slot.is_vacant(), vacant);
        assert_eq!(self.slot.session().copied(), self.held.map(|held| held.id));
        match self.slot.view() {
            View::Vacant => assert!(current.is_none() && self.held.is_none()),
            View::Dialing { dial, phase, waiters } => {
                assert_eq!(current, Some(*dial));
                assert_eq!(self.dials[*dial].stand, Stand::Current { phase, waiters });
            }
            View::Ready { id, session } => {
                assert_eq!((id, Some(*session)), (*session, self.held.map(|held| held.id)));
            }
        }
    }

    /// When every dial has had its verdict and every session its end, nothing is left.
    fn end(&mut self) {
        for dial in 0..self.dials.len() {
            self.dial_ended(dial);
        }
        if let Some(held) = self.held.take() {
            self.slot.remove(held.id).expect("it is there");
        }
        self.compare();
        assert!(self.slot.is_vacant());
        assert!(self.dials.iter().all(|dial| dial.told), "nobody waits for ever");
    }
}

/// Whether the peer made the connection `c` after it gave `s` up, as the design words it.
fn newer(c: &Dated, s: &Dated) -> bool {
    let (claim, held) = (c.claim(), s.claim());
    assert!(!(claim.supersedes(&held) && held.supersedes(&claim)));
    match (c.stamped, s.stamped) {
        (Some((one, c)), Some((other, s))) if one == other => c > s,
        _ => c.heard > s.heard,
    }
}
