//! What a move does: how a pool uses the slot machine.
//!
//! Owns the glue: the part of a pool that hears messages, draws stamps, closes connections and acts
//! on what the machine hands back. It decides nothing that the machine decides. The machine is
//! reached through [`super::faults`], which is where a planted fault lies.

use crate::base::error::RejectReason;
use crate::base::id::SessionId;
use crate::proto::slot::{
    AcceptCase, AcceptDecision, Claim, Displaced, DrainCase, Ended, Hearing, InboundCase,
    InboundDecision, Phase, Slot,
};

use super::connection::{Connection, Id, Message, Queue, Refusal, Side, Stage, other};
use super::faults::Moment;
use super::moves::{How, Move};
use super::world::{Dial, First, Lost, Violation, World, attempt};
use super::{Fault, Kind, Row, Rows, Scenario, Wire, faults};

/// One move under way.
pub(super) struct Step<'a> {
    pub(super) world: &'a mut World,
    pub(super) scenario: &'a Scenario,
    pub(super) rows: &'a mut Rows,
}

impl Step<'_> {
    /// Makes the move, and brings the world into its canonical form.
    pub(super) fn make(&mut self, event: Move) {
        match event {
            Move::Deliver(id, side) => self.deliver(id, side, false),
            Move::Refuse(id, side) => {
                self.spend(Kind::Refuse);
                self.deliver(id, side, true);
            }
            Move::Judge(id, side) => self.judge(id, side, Hearing::AfterParking),
            Move::Resume(side, number) => self.resume(side, number),
            Move::Notice(id, side) => {
                if !self.world.at(id).broken {
                    self.world.flag(Violation::Unnoticed);
                }
                self.lost_connection(id, side);
            }
            Move::Return(id, side) => self.drain(id, side),
            Move::Forget(id, side) => {
                let node = &mut self.world.nodes[side];
                node.ended.retain(|ended| *ended != id);
                if faults::remove(self.scenario.fault, &mut node.slot, session(id)).is_none() {
                    self.rows.count(Row::StaleRemove);
                }
            }
            Move::Repeat(side, number) => self.repeat(side, number),
            Move::Dial(side) => self.begin_dial(side),
            Move::Offer(side, number) => {
                let node = &mut self.world.nodes[side];
                let message = node.sent;
                node.sent += 1;
                node.owed |= 1 << message;
                self.dial(side, number).first = Some(First::Waiting(message));
            }
            Move::Race(side, number) => {
                self.dial(side, number).addresses += 1;
                self.connect(side, number);
            }
            Move::Join(side) => {
                self.spend(Kind::Join);
                if self.world.nodes[side].slot.join().is_none() {
                    self.world.flag(Violation::Machine);
                }
            }
            Move::Leave(side) => self.leave(side),
            Move::Send(id, side) => {
                let number = self.world.nodes[side].sent;
                self.world.nodes[side].sent += 1;
                self.send(id, side, Message::Data(number));
            }
            Move::Timeout(id, side) => {
                self.spend(Kind::Timeout);
                self.break_connection(id);
                self.close(id, side, How::Cut);
                self.lost_connection(id, side);
            }
            Move::Confirm(id, side) => {
                self.spend(Kind::Timeout);
                self.confirm(id, side);
            }
            Move::Presume(id, side) => {
                self.spend(Kind::Presume);
                self.accepted(id, side, 0);
            }
            Move::Break(id) => {
                self.spend(Kind::Break);
                self.break_connection(id);
                let c = self.world.at(id);
                for side in 0..2 {
                    c.wire[side].clear();
                    if c.ends[side].stage != Stage::Gone {
                        c.wire[side].push(Message::Reset);
                    }
                }
            }
            Move::Blackhole(id) => {
                self.spend(Kind::Blackhole);
                self.break_connection(id);
                let c = self.world.at(id);
                c.silent = true;
                c.wire.iter_mut().for_each(Queue::clear);
            }
            Move::Close(side, how) => {
                self.spend(if how == How::Drain { Kind::Drain } else { Kind::Cut });
                if let Some(id) = self.remove_session(side) {
                    self.end_session(id, side, how);
                }
            }
            Move::Retire(side) => {
                self.spend(Kind::Retire);
                if let Some(id) = self.remove_session(side)
                    && !self.world.nodes[side].ended.contains(&id)
                {
                    self.world.at(id).ends[side].stage = Stage::Retired;
                }
            }
            Move::Disconnect(side, how) => self.disconnect(side, how),
            Move::Restart(side, how) => self.restart(side, how),
        }
        self.world.settle(self.scenario);
    }

    // ---- callers -------------------------------------------------------------------------------

    fn begin_dial(&mut self, side: Side) {
        let node = &mut self.world.nodes[side];
        let number = node.dialled;
        node.dialled += 1;
        node.dials.push(Dial {
            number,
            connections: 0,
            addresses: 0,
            redials: 0,
            committed: None,
            lost: None,
            again: false,
            stamp: 0,
            disconnected: false,
            harmed: false,
            first: None,
        });
        if !node.slot.dial(attempt(number), number) {
            self.world.flag(Violation::Machine);
        }
        self.connect(side, number);
    }

    fn leave(&mut self, side: Side) {
        self.spend(Kind::Leave);
        let node = &mut self.world.nodes[side];
        let Some((number, phase, waiters)) = node.current() else { return };
        if self.scenario.fault == Some(Fault::CommittedDialCut) && waiters == 1 {
            node.slot.dial_ended(attempt(number));
            self.stop(side, number);
            return;
        }
        match (node.slot.leave(attempt(number)), phase, waiters) {
            (Some(stopped), Phase::Open, 1) => {
                self.rows.count(Row::LastWaiterStops);
                self.stop(side, stopped);
            }
            (None, Phase::Committed, 1) => self.rows.count(Row::GoesOnAlone),
            (None, _, 2..) => {}
            _ => self.world.flag(Violation::Machine),
        }
    }

    fn disconnect(&mut self, side: Side, how: How) {
        self.spend(Kind::Disconnect);
        let node = &mut self.world.nodes[side];
        for dial in &mut node.dials {
            dial.disconnected = true;
        }
        let taken = faults::disconnect(self.scenario.fault, &mut node.slot);
        if let Some((number, Phase::Open)) = taken.dial {
            self.stop(side, number);
        }
        if let Some(id) = taken.session {
            self.end_session(id, side, how);
        }
    }

    fn restart(&mut self, side: Side, how: How) {
        self.spend(Kind::Restart);
        let had: Vec<Id> = self
            .world
            .connections
            .iter()
            .filter(|c| c.ends[side].stage != Stage::Gone)
            .map(|c| c.id)
            .collect();
        for id in had {
            self.break_connection(id);
            self.close(id, side, how);
        }
        let node = &mut self.world.nodes[side];
        node.slot = Slot::default();
        node.dials.clear();
        (node.owed, node.left) = (0, 0);
        node.ended.clear();
        node.epoch += 1;
        node.stamp = 0;
        node.heard = 0;
    }

    // ---- messages ------------------------------------------------------------------------------

    fn deliver(&mut self, id: Id, side: Side, refuse: bool) {
        let Some(message) = self.world.at(id).wire[side].pop() else { return };
        let stage = self.world.at(id).ends[side].stage;
        match (message, stage) {
            (Message::One, Stage::Listens) => {
                self.date(id, side, Moment::MessageOne);
                let epoch = self.world.nodes[side].epoch;
                self.world.at(id).ends[side].stage = Stage::AwaitsCommit;
                self.send(id, side, Message::Two { epoch });
            }
            (Message::Two { epoch }, Stage::AwaitsAnswer) => {
                self.date(id, side, Moment::MessageTwo);
                let end = &mut self.world.at(id).ends[side];
                (end.stage, end.epoch) = (Stage::Spare, epoch);
                if refuse {
                    self.dial(side, id.dial()).harmed = true;
                    self.dial_ended(side, id.dial());
                } else {
                    self.commit_a_spare(side, id.dial());
                }
            }
            (Message::Three { epoch, stamp }, Stage::AwaitsCommit) => {
                self.date(id, side, Moment::MessageThree);
                let end = &mut self.world.at(id).ends[side];
                (end.epoch, end.stamp) = (epoch, stamp);
                if refuse {
                    self.reject(id, side, Refusal::Check);
                } else {
                    self.judge(id, side, Hearing::First);
                }
            }
            (Message::Accept { stamp }, Stage::AwaitsVerdict) => {
                self.date(id, side, Moment::FirstFrame);
                self.accepted(id, side, stamp);
            }
            (Message::Reject(why), Stage::AwaitsVerdict) => self.rejected(id, side, why),
            (
                Message::Data(number),
                Stage::Parked | Stage::Live | Stage::Retired | Stage::Draining,
            ) => {
                if stage == Stage::Draining && self.scenario.fault == Some(Fault::DrainDoesNotRead)
                {
                    self.lose(id, message);
                    return;
                }
                let delivered = &mut self.world.nodes[side].delivered;
                if *delivered & 1 << number != 0 {
                    self.world.flag(Violation::MessageTwice);
                }
                self.world.nodes[side].delivered |= 1 << number;
            }
            (Message::Data(_), _) => self.lose(id, message),
            (Message::Drain, Stage::Live | Stage::Retired) => {
                // Everything accepted is on the wire already: the answer follows it.
                self.send(id, side, Message::Drain);
                self.session_over(id, side);
            }
            (Message::Drain, Stage::Draining) => self.world.at(id).ends[side].stage = Stage::Gone,
            (Message::Reset, _) => self.lost_connection(id, side),
            _ if self.scenario.wire == Wire::Unstamped => self.after_presumption(id, side, message),
            _ => self.world.flag(Violation::Machine),
        }
    }

    /// A message arrives that only comes to an end, or from one, that was presumed to be accepted.
    fn after_presumption(&mut self, id: Id, side: Side, message: Message) {
        let end = &mut self.world.at(id).ends[side];
        match (message, end.stage) {
            // It was right.
            (Message::Accept { .. }, Stage::Live) => self.confirm(id, side),
            (Message::Accept { .. }, Stage::Retired | Stage::Draining) => {}
            // It was wrong.
            (Message::Reject(_), Stage::Live | Stage::Retired) => self.session_over(id, side),
            (Message::Reject(_), Stage::Draining) => end.stage = Stage::Gone,
            // The initiator gives up what it took for a session.
            (Message::Drain, Stage::Parked) => {
                end.stage = Stage::Gone;
                self.send(id, side, Message::Drain);
            }
            _ => self.world.flag(Violation::Machine),
        }
    }

    /// A session's presumption ends.
    fn confirm(&mut self, id: Id, side: Side) {
        let node = &mut self.world.nodes[side];
        let heard = node.hear();
        node.slot.confirm(session(id), Claim::unstamped(u64::from(heard)));
    }

    /// Dates the connection at this end, if the wire does so at this moment.
    fn date(&mut self, id: Id, side: Side, moment: Moment) {
        if faults::dates(self.scenario, moment) {
            self.world.at(id).ends[side].heard = self.world.nodes[side].hear();
        }
    }

    /// Draws a stamp, if the wire has stamps.
    fn stamp(&mut self, side: Side) -> u8 {
        match self.scenario.wire {
            Wire::Stamped => self.world.nodes[side].draw_stamp(),
            Wire::Unstamped => 0,
        }
    }

    /// Puts a message on the wire, if anybody can still get it.
    fn send(&mut self, id: Id, from: Side, message: Message) {
        let c = self.world.at(id);
        if c.silent || c.ends[other(from)].stage == Stage::Gone {
            self.lose(id, message);
        } else {
            c.wire[other(from)].push(message);
        }
    }

    fn lose(&mut self, id: Id, message: Message) {
        let c = self.world.at(id);
        if matches!(message, Message::Data(_)) && !c.broken && !c.refused {
            self.world.flag(Violation::MessageLost);
        }
    }

    // ---- our dials -----------------------------------------------------------------------------

    fn connect(&mut self, side: Side, number: u8) {
        let dial = self.dial(side, number);
        let id = Id::new(side, number, dial.connections);
        dial.connections += 1;
        let at = self.world.connections.partition_point(|c| c.id < id);
        self.world.connections.insert(at, Connection::new(id));
        self.send(id, side, Message::One);
    }

    /// Message 2 decided the race, or the committed connection died and this one is next.
    fn commit(&mut self, id: Id, side: Side) {
        let number = id.dial();
        let fault = self.scenario.fault;
        let node = &mut self.world.nodes[side];
        if !node.slot.commit(attempt(number)) {
            self.rows.count(Row::FalseCommit);
            if faults::dial_ended(fault, &mut node.slot, attempt(number)) != Ended::Forgotten {
                self.world.flag(Violation::Machine);
            }
            self.stop(side, number);
            return;
        }
        let epoch = node.epoch;
        let mut stamp = self.stamp(side);
        self.date(id, side, Moment::MessageThree);
        if std::mem::replace(&mut self.dial(side, number).again, true) {
            self.rows.count(Row::CommitAgain);
        }
        let dial = self.dial(side, number);
        dial.committed = Some(id);
        if fault == Some(Fault::OneStampPerDial) {
            if dial.stamp > 0 {
                stamp = dial.stamp;
            }
            dial.stamp = stamp;
        }
        self.world.at(id).ends[side].stage = Stage::AwaitsVerdict;
        self.send(id, side, Message::Three { epoch, stamp });
        if let Some(First::Waiting(message)) = self.dial(side, number).first {
            self.dial(side, number).first = Some(First::Left(message));
            self.send(id, side, Message::Data(message));
        }
    }

    /// What has left with a dial is settled: it was sent, or nobody knows.
    fn first_settled(&mut self, side: Side, number: u8) {
        let dial = self.dial(side, number);
        if let Some(First::Left(message)) = dial.first {
            dial.first = None;
            self.world.nodes[side].owed &= !(1 << message);
        }
    }

    /// A caller whose dial did not send its message sends it on the slot's session; without one, it has
    /// its message back.
    fn repeat(&mut self, side: Side, message: u8) {
        let node = &mut self.world.nodes[side];
        node.left &= !(1 << message);
        node.owed &= !(1 << message);
        let ended = |id: &Id| self.world.nodes[side].ended.contains(id);
        let held = self.world.nodes[side].slot.session().copied().filter(|id| !ended(id));
        if let Some(id) = held {
            self.send(id, side, Message::Data(message));
        }
    }

    fn accepted(&mut self, id: Id, side: Side, stamp: u8) {
        let number = id.dial();
        let fault = self.scenario.fault;
        self.first_settled(side, number);
        let claim = faults::claim(self.scenario, &self.world.at(id).ends[side], stamp);
        let slot = &self.world.nodes[side].slot;
        let verdict = faults::accepted(fault, slot, attempt(number), &claim);
        self.rows.count(match verdict {
            AcceptDecision::Adopt(AcceptCase::Current) => Row::Current,
            AcceptDecision::Adopt(AcceptCase::LateVacant) => Row::LateVacant,
            AcceptDecision::Adopt(AcceptCase::LateAbortsDial) => Row::LateAbortsDial,
            AcceptDecision::Adopt(AcceptCase::LateSupersedesDial) => Row::LateSupersedesDial,
            AcceptDecision::Adopt(AcceptCase::LateRetiresSession) => Row::LateRetiresSession,
            AcceptDecision::Drain(DrainCase::Cancelled) => Row::DrainCancelled,
            AcceptDecision::Drain(DrainCase::Stale) => Row::DrainStale,
        });
        match verdict {
            AcceptDecision::Adopt(_) => {
                if self.dial(side, number).disconnected {
                    self.world.flag(Violation::CameBack);
                }
                self.check_ghost(id, side);
                let slot = &mut self.world.nodes[side].slot;
                let mut displaced = slot.install_outbound(attempt(number), session(id), claim, id);
                displaced.dial = displaced.dial.filter(|(dial, _)| *dial != number);
                self.world.at(id).ends[side].stage = Stage::Live;
                self.stop(side, number);
                self.act_on(displaced, side);
            }
            AcceptDecision::Drain(_) => {
                let slot = &mut self.world.nodes[side].slot;
                if faults::dial_ended(fault, slot, attempt(number)) != Ended::Forgotten {
                    self.world.flag(Violation::Machine);
                }
                self.drain(id, side);
                self.stop(side, number);
            }
        }
    }

    fn rejected(&mut self, id: Id, side: Side, why: Refusal) {
        let number = id.dial();
        self.world.at(id).ends[side].stage = Stage::Gone;
        let forgets = self.scenario.fault == Some(Fault::FirstMessageForgotten);
        let dial = self.dial(side, number);
        dial.harmed |= why == Refusal::Check;
        if let Some(First::Left(message)) = dial.first {
            dial.first = (!forgets).then_some(First::Waiting(message));
        }
        // A termination does not say why.
        let lost = match (self.scenario.wire, why) {
            (Wire::Stamped, Refusal::Check) => Lost::Refused,
            _ => Lost::Other,
        };
        self.lost_committed(side, number, lost);
    }

    /// The committed connection ended without a session.
    fn lost_committed(&mut self, side: Side, number: u8, why: Lost) {
        if !self.world.nodes[side].slot.reopen(attempt(number)) {
            return self.dial_ended(side, number);
        }
        self.rows.count(Row::Reopen);
        let dial = self.dial(side, number);
        (dial.committed, dial.lost) = (None, Some(why));
        if why != Lost::Broken {
            self.close_undecided(side, number);
        }
    }

    /// A reopened dial goes on: with another connection of its race, by connecting anew, or not at
    /// all.
    fn resume(&mut self, side: Side, number: u8) {
        let holds = self.world.nodes[side].current().is_some_and(|(n, ..)| n == number);
        let undecided = self.world.undecided(side, number).next().is_some();
        let max = self.scenario.redials;
        let dial = self.dial(side, number);
        match dial.lost.take() {
            Some(Lost::Other) if holds && dial.redials < max => {
                dial.redials += 1;
                self.rows.count(Row::Redial);
                self.connect(side, number);
            }
            Some(Lost::Broken) if holds && undecided => self.commit_a_spare(side, number),
            _ => self.dial_ended(side, number),
        }
    }

    /// Commits a connection that has been answered, if none is committed and the dial goes on.
    fn commit_a_spare(&mut self, side: Side, number: u8) {
        let dial = self.dial(side, number);
        if dial.committed.is_some() || dial.lost.is_some() {
            return;
        }
        let mut spares = self.world.undecided(side, number);
        let spare = spares.find(|c| c.ends[side].stage == Stage::Spare).map(|c| c.id);
        drop(spares);
        if let Some(spare) = spare {
            self.commit(spare, side);
        }
    }

    /// The dial failed: its waiters, if it has any, are told.
    fn dial_ended(&mut self, side: Side, number: u8) {
        let node = &mut self.world.nodes[side];
        let waiters = node.current().map_or(0, |(.., waiters)| waiters);
        let harmed = node.dial(number).is_some_and(|dial| dial.harmed);
        match faults::dial_ended(self.scenario.fault, &mut node.slot, attempt(number)) {
            Ended::Current(_) if waiters > 0 && !harmed => {
                self.world.flag(Violation::WaiterFailed);
            }
            Ended::Current(dial) if dial != number => self.world.flag(Violation::Machine),
            _ => {}
        }
        self.stop(side, number);
    }

    /// The dial's task ends: what it had not committed is closed.
    fn stop(&mut self, side: Side, number: u8) {
        self.close_undecided(side, number);
        let node = &mut self.world.nodes[side];
        let ended: Vec<_> = node.dials.extract_if(.., |d| d.number == number).collect();
        ended.iter().for_each(|dial| node.dial_over(dial));
    }

    fn close_undecided(&mut self, side: Side, number: u8) {
        let undecided: Vec<Id> = self.world.undecided(side, number).map(|c| c.id).collect();
        for id in undecided {
            self.close(id, side, How::Cut);
        }
    }

    // ---- inbound connections -------------------------------------------------------------------

    fn judge(&mut self, id: Id, side: Side, hearing: Hearing) {
        let end = self.world.at(id).ends[side];
        let claim = faults::claim(self.scenario, &end, end.stamp);
        let slot = &self.world.nodes[side].slot;
        match faults::judge(self.scenario.fault, slot, side, &claim, hearing) {
            InboundDecision::Accept(row) => {
                self.rows.count(match row {
                    InboundCase::Vacant => Row::Vacant,
                    InboundCase::AbortsDial => Row::AbortsDial,
                    InboundCase::SupersedesDial => Row::SupersedesDial,
                    InboundCase::RetiresSession => Row::RetiresSession,
                });
                self.check_ghost(id, side);
                let stamp = self.stamp(side);
                let slot = &mut self.world.nodes[side].slot;
                let displaced = slot.install_inbound(session(id), claim, id);
                self.world.at(id).ends[side].stage = Stage::Live;
                self.send(id, side, Message::Accept { stamp });
                self.act_on(displaced, side);
            }
            InboundDecision::Park => {
                self.rows.count(Row::Park);
                self.world.at(id).ends[side].stage = Stage::Parked;
            }
            InboundDecision::Reject(why) => {
                let (row, refusal) = match why {
                    RejectReason::Simultaneous => (Row::Simultaneous, Refusal::Simultaneous),
                    _ => (Row::Duplicate, Refusal::Duplicate),
                };
                self.rows.count(row);
                self.check_dead_preferred(id, side);
                self.reject(id, side, refusal);
            }
        }
    }

    fn reject(&mut self, id: Id, side: Side, why: Refusal) {
        self.world.at(id).refused = true;
        self.send(id, side, Message::Reject(why));
        self.close(id, side, How::Silent);
    }

    // ---- what the machine hands back -----------------------------------------------------------

    fn act_on(&mut self, displaced: Displaced<u8, Id>, side: Side) {
        // An open dial learns at its next message 2, when its commit is refused.
        if displaced.conflict {
            self.world.flag(Violation::Conflict);
        }
        if let Some(id) = displaced.session {
            self.end_session(id, side, How::Drain);
        }
    }

    /// A session may be about to be retired for a connection: a dead incarnation of the peer must
    /// not win against the living one.
    fn check_ghost(&mut self, id: Id, side: Side) {
        if self.scenario.wire == Wire::Unstamped {
            // A restarted peer looks like its past, and a late first frame of that past is new.
            return;
        }
        let alive = self.world.nodes[other(side)].epoch;
        if let Some(&held) = self.world.nodes[side].slot.session()
            && let Some(held) = self.world.connection(held)
            && held.ends[side].stage == Stage::Live
            && held.ends[side].epoch == alive
            && self.world.at(id).ends[side].epoch != alive
        {
            self.world.flag(Violation::GhostWon);
        }
    }

    /// A connection is about to be refused for the session that we hold: it must not be the
    /// peer's one living hope, and our session dead at the peer's end.
    fn check_dead_preferred(&mut self, id: Id, side: Side) {
        if self.scenario.wire == Wire::Unstamped {
            // The first frame of a dead session may come after message 1 of the live dial, which
            // connects anew.
            return;
        }
        let peer = other(side);
        let hoped = self.world.at(id).ends[peer].stage == Stage::AwaitsVerdict
            && self.world.nodes[peer].current().is_some_and(|(number, ..)| number == id.dial());
        let dead = self.world.nodes[side].slot.session().copied().is_some_and(|held| {
            self.world.connection(held).is_none_or(|c| c.ends[peer].stage == Stage::Gone)
        });
        if hoped && dead {
            self.world.flag(Violation::DeadPreferred);
        }
    }

    // ---- connections ---------------------------------------------------------------------------

    /// This end learns that the connection is dead.
    fn lost_connection(&mut self, id: Id, side: Side) {
        let c = self.world.at(id);
        c.wire[side].clear();
        let stage = c.ends[side].stage;
        self.session_over(id, side);
        // A timeout has closed the end already.
        let dialling = matches!(
            stage,
            Stage::AwaitsAnswer | Stage::Spare | Stage::AwaitsVerdict | Stage::Gone
        );
        if dialling && id.initiator() == side {
            self.dial_lost_connection(id, side);
        }
    }

    fn dial_lost_connection(&mut self, id: Id, side: Side) {
        let number = id.dial();
        let Some(dial) = self.world.nodes[side].dial(number) else { return };
        let (committed, waits) = (dial.committed, dial.lost.is_some());
        if committed == Some(id) {
            self.first_settled(side, number);
            self.lost_committed(side, number, Lost::Broken);
        } else if committed.is_none()
            && !waits
            && self.world.undecided(side, number).next().is_none()
        {
            self.dial_ended(side, number);
        }
    }

    /// This end's driver is done; the slot learns it a little later, if it held the session.
    fn session_over(&mut self, id: Id, side: Side) {
        let stage = &mut self.world.at(id).ends[side].stage;
        if std::mem::replace(stage, Stage::Gone) == Stage::Live {
            let node = &mut self.world.nodes[side];
            node.ended.push(id);
            node.ended.sort_unstable();
            if self.scenario.fault == Some(Fault::BlindRepeat) {
                node.sent = node.sent.saturating_sub(1);
            }
        }
    }

    fn remove_session(&mut self, side: Side) -> Option<Id> {
        let slot = &mut self.world.nodes[side].slot;
        let id = slot.session().copied()?;
        slot.remove(session(id))
    }

    /// Ends a session that the slot no longer holds, unless it has ended already.
    fn end_session(&mut self, id: Id, side: Side, how: How) {
        if self.world.nodes[side].ended.contains(&id) {
            return;
        }
        match how {
            How::Drain => self.drain(id, side),
            How::Cut | How::Silent => {
                self.break_connection(id);
                self.close(id, side, how);
            }
        }
    }

    /// Flushes and half-closes; reading goes on.
    fn drain(&mut self, id: Id, side: Side) {
        self.world.at(id).ends[side].stage = Stage::Draining;
        self.send(id, side, Message::Drain);
    }

    /// Closes this end, with what has arrived unread.
    fn close(&mut self, id: Id, side: Side, how: How) {
        let c = self.world.at(id);
        c.ends[side].stage = Stage::Gone;
        let unread = std::mem::replace(&mut c.wire[side], Queue::EMPTY);
        for message in unread.iter() {
            self.lose(id, message);
        }
        if how == How::Cut {
            self.send(id, side, Message::Reset);
        }
    }

    fn break_connection(&mut self, id: Id) {
        self.world.at(id).broken = true;
        if let Some(dial) = self.world.nodes[id.initiator()].dial(id.dial()) {
            dial.harmed = true;
        }
    }

    // ---- helpers -------------------------------------------------------------------------------

    fn spend(&mut self, kind: Kind) {
        self.world.spent[kind as usize] += 1;
    }

    /// The task of a dial that is under way.
    fn dial(&mut self, side: Side, number: u8) -> &mut Dial {
        let Some(dial) = self.world.nodes[side].dial(number) else {
            panic!("dial {number} of node {side} has no task any more");
        };
        dial
    }
}

fn session(id: Id) -> SessionId {
    SessionId::from_raw(id.raw())
}
