//! Each limit of a session, alone and against the others, in virtual time.

use super::*;
use crate::base::config::Config;

const SECOND: Duration = Duration::from_secs(1);

/// A session for which time passes as a test says.
struct Timed {
    liveness: Liveness,
    settings: Settings,
    ping: Ping,
    now: Instant,
    begun: Instant,
}

impl Timed {
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
        self.liveness.heard(1, now)
    }
}

#[test]
fn silence_is_doubted_then_broken_and_then_it_is_death() {
    let mut session = Timed::new(None);
    assert_eq!(session.next(), Some((30, Due::NeedsProbe)));
    assert_eq!(session.next(), Some((60, Due::Ping)));
    assert_eq!(session.next(), Some((65, Due::PeerSilent)));
}

#[test]
fn any_frame_is_a_sign_of_life() {
    let mut session = Timed::new(None);
    assert!(!session.heard(20), "it was not in doubt");
    assert_eq!(session.next(), Some((50, Due::NeedsProbe)));
    assert!(session.heard(55), "it was");
    assert_eq!(session.next(), Some((85, Due::NeedsProbe)));
    assert_eq!(session.next(), Some((115, Due::Ping)));
    session.heard(119);
    assert_eq!(session.next(), Some((124, Due::PeerSilent)), "ping_timeout after the last frame");
}

#[test]
fn a_peer_that_cannot_be_asked_is_never_dead_and_never_doubted() {
    let mut session = Timed::new(None);
    session.ping = Ping::Unavailable;
    assert_eq!(session.next(), None);
    let mut session = Timed::new(Some(100 * SECOND));
    session.ping = Ping::Unavailable;
    assert_eq!(session.next(), Some((100, Due::Retire)));
}

#[test]
fn age_leads_to_retirement_and_the_end_within_its_limits() {
    let mut session = Timed::new(Some(10 * SECOND));
    session.ping = Ping::Unavailable;
    assert_eq!(session.next(), Some((10, Due::Retire)));
    assert_eq!(session.next(), None, "once");
    let now = session.at(11);
    session.liveness.retired(CloseReason::Age, &session.settings, now);
    let later = session.at(12);
    session.liveness.retired(CloseReason::Age, &session.settings, later);
    assert_eq!(session.next(), Some((311, Due::Drain)), "retire_timeout after the first");
    assert_eq!(session.next(), None, "once");
    let now = session.at(400);
    session.liveness.draining(&session.settings, now);
    let later = session.at(405);
    session.liveness.draining(&session.settings, later);
    session.liveness.retired(CloseReason::Age, &session.settings, later);
    assert_eq!(session.next(), Some((410, Due::DrainTimedOut)), "drain_timeout after the first");
}

#[test]
fn a_session_that_is_retired_has_no_age_and_a_drained_pool_sets_the_limit_itself() {
    let mut session = Timed::new(Some(10 * SECOND));
    session.ping = Ping::Unavailable;
    let now = session.at(5);
    session.liveness.retired(CloseReason::Drained, &session.settings, now);
    assert_eq!(session.next(), None);
    let now = session.at(7);
    session.liveness.draining(&session.settings, now);
    assert_eq!(session.next(), Some((17, Due::DrainTimedOut)));
}

#[test]
fn a_write_without_progress_stalls_unless_the_peer_says_that_it_is_alive() {
    let mut session = Timed::new(None);
    session.ping = Ping::Unavailable;
    let now = session.at(3);
    session.liveness.blocked(now);
    let later = session.at(9);
    session.liveness.blocked(later);
    assert_eq!(session.next(), Some((33, Due::Stalled)), "since the first");
    let now = session.at(20);
    session.liveness.heard_keep_alive(now);
    assert_eq!(session.next(), Some((50, Due::Stalled)));
    session.liveness.wrote(1, true, now);
    assert_eq!(session.next(), None);
    let now = session.at(60);
    session.liveness.blocked(now);
    assert_eq!(session.next(), Some((90, Due::Stalled)), "an old sign of life is no excuse");
}

#[test]
fn while_we_do_not_read_only_keep_alives_are_due() {
    let mut session = Timed::new(None);
    let now = session.at(10);
    session.liveness.blocked(now);
    session.liveness.paused(&session.settings, now);
    let later = session.at(11);
    session.liveness.paused(&session.settings, later);
    assert_eq!(session.next(), Some((12, Due::KeepAlive)), "soon after the pause began");
    assert_eq!(session.next(), Some((32, Due::KeepAlive)), "a third of keepalive later");
    assert_eq!(session.next(), Some((52, Due::KeepAlive)));
    let now = session.at(65);
    session.liveness.resumed(now);
    assert!(!session.liveness.is_paused());
    assert_eq!(session.next(), Some((95, Due::Stalled)), "what was blocked counts anew");
    session.liveness.wrote(1, true, now);
    assert_eq!(session.next(), Some((95, Due::NeedsProbe)), "and so does silence");
}

#[test]
fn silence_is_doubted_as_soon_as_the_link_is_known_to_answer_faster() {
    let mut session = Timed::new(None);
    let now = session.at(1);
    session.liveness.wrote(1_000, true, now);
    assert_eq!(session.next(), Some((16, Due::PeerSilent)), "nothing is known of the link yet");
    session.heard(17);

    // An answer after 4 s, of which a receipt may take 2; then none.
    let write = |session: &mut Timed, seconds| {
        let now = session.at(seconds);
        session.liveness.wrote(1_000, true, now);
    };
    let mut session = Timed::new(None);
    write(&mut session, 20);
    session.heard(24);
    write(&mut session, 30);
    assert_eq!(session.next(), Some((38, Due::InDoubt)), "four times two");
    session.heard(39);
    // It had taken 9 s, and four times seven is later than death.
    write(&mut session, 50);
    assert_eq!(session.next(), Some((65, Due::PeerSilent)));
    session.heard(66);
    session.heard(139);
    write(&mut session, 140);
    assert_eq!(session.next(), Some((145, Due::InDoubt)), "that was long ago");
}

#[test]
fn a_blocked_write_that_makes_progress_is_a_sign_of_life() {
    let mut session = Timed::new(None);
    session.heard(19);
    for seconds in [20, 21, 22, 23, 24] {
        let now = session.at(seconds);
        session.liveness.wrote(1_000, true, now);
        session.liveness.blocked(now);
    }
    assert_eq!(session.next(), Some((29, Due::InDoubt)));
    let now = session.at(33);
    session.liveness.wrote(1_000, true, now);
    session.liveness.blocked(now);
    assert_eq!(session.next(), Some((48, Due::PeerSilent)), "it was slow, and is not dead");
}

#[test]
fn a_peer_that_has_something_of_ours_to_receive_is_dead_after_fifteen_seconds_of_silence() {
    let mut session = Timed::new(None);
    session.heard(15);
    for seconds in [17, 19] {
        let now = session.at(seconds);
        session.liveness.wrote(SIGNS, true, now);
    }
    // The first bytes were a sign of life and called for nothing.
    assert_eq!(session.next(), Some((24, Due::InDoubt)));
    assert_eq!(session.next(), Some((34, Due::PeerSilent)));

    let mut heard = Timed::new(None);
    let now = heard.at(20);
    heard.liveness.wrote(1_000, true, now);
    assert_eq!(heard.next(), Some((25, Due::InDoubt)));
    heard.heard(30);
    assert_eq!(heard.next(), Some((60, Due::NeedsProbe)), "it has answered all");

    let mut slow = Timed::new(None);
    let now = slow.at(10);
    slow.liveness.wrote(1_000, true, now);
    slow.liveness.heard_keep_alive(now);
    assert_eq!(slow.next(), Some((30, Due::NeedsProbe)));
    assert_eq!(slow.next(), Some((60, Due::Ping)));
    assert_eq!(slow.next(), Some((70, Due::PeerSilent)), "it does not read, and has a grace");

    let mut unable = Timed::new(None);
    unable.ping = Ping::Unavailable;
    let now = unable.at(10);
    unable.liveness.wrote(1_000, true, now);
    assert_eq!(unable.next(), None, "its wire has no receipts");
}

#[test]
fn what_is_received_calls_for_a_receipt_unless_something_else_is_written() {
    let mut session = Timed::new(None);
    let now = session.at(10);
    session.liveness.heard(SIGNS, now);
    assert_eq!(session.next(), Some((40, Due::NeedsProbe)), "signs of life call for none");
    let now = session.at(50);
    session.liveness.heard(1, now);
    assert_eq!(session.next(), Some((52, Due::Receipt)));
    assert_eq!(session.next(), Some((80, Due::NeedsProbe)), "one is enough");
    let now = session.at(85);
    session.liveness.heard(1_000, now);
    let now = session.at(86);
    session.liveness.wrote(1, true, now);
    assert_eq!(session.next(), Some((115, Due::NeedsProbe)));
}

#[test]
fn a_ping_that_has_not_left_us_is_not_late() {
    let mut session = Timed::new(None);
    let now = session.at(10);
    session.liveness.probe_asked(now);
    session.ping = Ping::Queued;
    assert_eq!(session.next(), Some((30, Due::NeedsProbe)));
    session.ping = Ping::Open(session.at(40));
    assert_eq!(session.next(), Some((45, Due::PeerSilent)));

    // Behind much that waits, its caller has an answer once the peer is known to be alive.
    let queued = || {
        let mut session = probed();
        session.ping = Ping::Queued;
        session
    };
    let mut heard = queued();
    heard.heard(20);
    assert_eq!(heard.next(), Some((20, Due::ProbeAnswered(10 * SECOND))));
    let mut slow = queued();
    let now = slow.at(12);
    slow.liveness.heard_keep_alive(now);
    assert_eq!(slow.next(), Some((15, Due::ProbeAnswered(5 * SECOND))));
    let mut excused = Timed::new(None);
    excused.liveness.heard_keep_alive(excused.begun);
    let now = excused.at(55);
    excused.liveness.probe_asked(now);
    excused.ping = Ping::Queued;
    assert_eq!(excused.next(), Some((55, Due::NeedsProbe)));
    assert_eq!(
        excused.next(),
        None,
        "its grace ends with the probe, and a ping that waits is no doubt"
    );
}

#[test]
fn a_peer_that_does_not_read_has_a_keepalive_of_grace() {
    let mut session = Timed::new(None);
    session.heard(50);
    session.liveness.heard_keep_alive(session.now);
    assert_eq!(session.next(), Some((80, Due::NeedsProbe)));
    assert_eq!(session.next(), Some((110, Due::Ping)));
    assert_eq!(session.next(), Some((115, Due::PeerSilent)), "its grace ended at 110");
    let mut session = Timed::new(None);
    let now = session.at(40);
    session.ping = Ping::Open(now);
    session.liveness.heard_keep_alive(now);
    assert_eq!(session.next(), Some((40, Due::NeedsProbe)));
    assert_eq!(session.next(), Some((100, Due::PeerSilent)));
}

/// A session whose caller has asked for a probe at 10 s.
fn probed() -> Timed {
    let mut session = Timed::new(None);
    let now = session.at(10);
    session.liveness.probe_asked(now);
    session.ping = Ping::Open(now);
    assert!(session.liveness.is_probing());
    session
}

#[test]
fn a_probe_fails_when_nothing_comes_and_ends_with_its_answer() {
    let mut session = probed();
    assert_eq!(session.next(), Some((15, Due::PeerSilent)));
    let mut session = probed();
    assert!(session.liveness.probe_over(), "the pong has come");
    assert!(!session.liveness.probe_over() && !session.liveness.is_probing());
    session.heard(11);
    session.ping = Ping::Idle;
    assert_eq!(session.next(), Some((41, Due::NeedsProbe)));
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
    assert_eq!(paused.next(), Some((13, Due::KeepAlive)));
    assert_eq!(paused.next(), answered);
    let mut excused = probed();
    excused.liveness.heard_keep_alive(excused.now);
    assert_eq!(excused.next(), answered);
    assert!(!excused.liveness.is_probing());
}
