//! Each limit of a session, alone and against the others, in virtual time.

use super::*;
use crate::base::config::Config;

const SECOND: Duration = Duration::from_secs(1);

/// A session of which time passes as a test says.
struct Life {
    liveness: Liveness,
    settings: Settings,
    ping: Ping,
    now: Instant,
    begun: Instant,
}

impl Life {
    /// Without a word since it began.
    fn new(max_age: Option<Duration>) -> Self {
        let begun = Instant::now();
        Self {
            liveness: Liveness::new(begun, max_age.map(|age| begun + age)),
            settings: Config::default().validate().unwrap(),
            ping: Ping::Idle,
            now: begun,
            begun,
        }
    }

    /// What is due next, and after how many seconds of the session's life. A ping is sent.
    fn next(&mut self) -> Option<(u64, Due)> {
        let at = self.liveness.next_deadline(&self.settings, self.ping)?;
        let before = at - Duration::from_nanos(1);
        if before > self.now {
            assert_eq!(self.liveness.poll(&self.settings, self.ping, before), None);
        }
        self.now = self.now.max(at);
        let due = self.liveness.poll(&self.settings, self.ping, self.now);
        let due = due.expect("what has a deadline is due then");
        if due == Due::Ping {
            self.ping = Ping::Open(self.now);
        }
        Some(((self.now - self.begun).as_secs(), due))
    }

    fn at(&mut self, seconds: u32) -> Instant {
        self.now = self.begun + seconds * SECOND;
        self.now
    }

    /// A frame comes; a ping is answered by it, if that is what it is.
    fn heard(&mut self, seconds: u32) -> bool {
        let now = self.at(seconds);
        self.liveness.heard(now)
    }
}

#[test]
fn silence_is_doubted_then_broken_and_then_it_is_death() {
    let mut life = Life::new(None);
    assert_eq!(life.next(), Some((30, Due::NeedsProbe)));
    assert_eq!(life.next(), Some((60, Due::Ping)));
    assert_eq!(life.next(), Some((65, Due::PeerSilent)));
}

#[test]
fn any_frame_is_a_sign_of_life() {
    let mut life = Life::new(None);
    assert!(!life.heard(20), "it was not in doubt");
    assert_eq!(life.next(), Some((50, Due::NeedsProbe)));
    assert!(life.heard(55), "it was");
    assert_eq!(life.next(), Some((85, Due::NeedsProbe)));
    assert_eq!(life.next(), Some((115, Due::Ping)));
    life.heard(119);
    assert_eq!(life.next(), Some((124, Due::PeerSilent)), "ping_timeout after the last frame");
}

#[test]
fn a_peer_that_cannot_be_asked_is_never_dead_and_never_doubted() {
    let mut life = Life::new(None);
    life.ping = Ping::Unavailable;
    assert_eq!(life.next(), None);
    let mut life = Life::new(Some(100 * SECOND));
    life.ping = Ping::Unavailable;
    assert_eq!(life.next(), Some((100, Due::Retire)));
}

#[test]
fn age_leads_to_retirement_and_the_end_within_its_limits() {
    let mut life = Life::new(Some(10 * SECOND));
    life.ping = Ping::Unavailable;
    assert_eq!(life.next(), Some((10, Due::Retire)));
    assert_eq!(life.next(), None, "once");
    let now = life.at(11);
    life.liveness.retired(CloseReason::Age, &life.settings, now);
    let later = life.at(12);
    life.liveness.retired(CloseReason::Age, &life.settings, later);
    assert_eq!(life.next(), Some((311, Due::Drain)), "retire_timeout after the first");
    assert_eq!(life.next(), None, "once");
    let now = life.at(400);
    life.liveness.draining(&life.settings, now);
    let later = life.at(405);
    life.liveness.draining(&life.settings, later);
    life.liveness.retired(CloseReason::Age, &life.settings, later);
    assert_eq!(life.next(), Some((410, Due::DrainTimedOut)), "drain_timeout after the first");
}

#[test]
fn a_session_that_is_retired_has_no_age_and_a_drained_pool_sets_the_limit_itself() {
    let mut life = Life::new(Some(10 * SECOND));
    life.ping = Ping::Unavailable;
    let now = life.at(5);
    life.liveness.retired(CloseReason::Drained, &life.settings, now);
    assert_eq!(life.next(), None);
    let now = life.at(7);
    life.liveness.draining(&life.settings, now);
    assert_eq!(life.next(), Some((17, Due::DrainTimedOut)));
}

#[test]
fn a_write_without_progress_stalls_unless_the_peer_says_that_it_is_alive() {
    let mut life = Life::new(None);
    life.ping = Ping::Unavailable;
    let now = life.at(3);
    life.liveness.blocked(now);
    let later = life.at(9);
    life.liveness.blocked(later);
    assert_eq!(life.next(), Some((33, Due::Stalled)), "since the first");
    let now = life.at(20);
    life.liveness.heard_keep_alive(now);
    assert_eq!(life.next(), Some((50, Due::Stalled)));
    life.liveness.wrote();
    assert_eq!(life.next(), None);
    let now = life.at(60);
    life.liveness.blocked(now);
    assert_eq!(life.next(), Some((90, Due::Stalled)), "an old sign of life is no excuse");
}

#[test]
fn while_we_do_not_read_only_keep_alives_are_due() {
    let mut life = Life::new(None);
    let now = life.at(10);
    life.liveness.blocked(now);
    life.liveness.paused(&life.settings, now);
    let later = life.at(15);
    life.liveness.paused(&life.settings, later);
    assert_eq!(life.next(), Some((30, Due::KeepAlive)), "a third of keepalive after the first");
    assert_eq!(life.next(), Some((50, Due::KeepAlive)));
    let now = life.at(65);
    life.liveness.resumed(now);
    assert!(!life.liveness.is_paused());
    assert_eq!(life.next(), Some((95, Due::Stalled)), "what was blocked counts anew");
    life.liveness.wrote();
    assert_eq!(life.next(), Some((95, Due::NeedsProbe)), "and so does silence");
}

#[test]
fn a_peer_that_does_not_read_has_a_keepalive_of_grace() {
    let mut life = Life::new(None);
    life.heard(50);
    life.liveness.heard_keep_alive(life.now);
    assert_eq!(life.next(), Some((80, Due::NeedsProbe)));
    assert_eq!(life.next(), Some((110, Due::Ping)));
    assert_eq!(life.next(), Some((115, Due::PeerSilent)), "its grace ended at 110");
    let mut life = Life::new(None);
    let now = life.at(40);
    life.ping = Ping::Open(now);
    life.liveness.heard_keep_alive(now);
    assert_eq!(life.next(), Some((40, Due::NeedsProbe)));
    assert_eq!(life.next(), Some((100, Due::PeerSilent)));
}

/// A session whose caller has asked for a probe at 10 s.
fn probed() -> Life {
    let mut life = Life::new(None);
    let now = life.at(10);
    life.liveness.probe_asked(now);
    life.ping = Ping::Open(now);
    assert!(life.liveness.is_probing());
    life
}

#[test]
fn a_probe_fails_when_nothing_comes_and_ends_with_its_answer() {
    let mut life = probed();
    assert_eq!(life.next(), Some((15, Due::PeerSilent)));
    let mut life = probed();
    assert!(life.liveness.probe_over(), "the pong has come");
    assert!(!life.liveness.probe_over() && !life.liveness.is_probing());
    life.heard(11);
    life.ping = Ping::Idle;
    assert_eq!(life.next(), Some((41, Due::NeedsProbe)));
}

#[test]
fn a_probe_of_a_peer_that_is_alive_has_an_answer_after_ping_timeout() {
    let answered = Some((15, Due::ProbeAnswered(5 * SECOND)));
    let mut heard = probed();
    heard.heard(12);
    assert_eq!(heard.next(), answered);
    let mut paused = probed();
    let now = paused.at(11);
    paused.liveness.paused(&paused.settings, now);
    assert_eq!(paused.next(), answered);
    let mut excused = probed();
    excused.liveness.heard_keep_alive(excused.now);
    assert_eq!(excused.next(), answered);
    assert!(!excused.liveness.is_probing());
}
