//! What a session does because time has passed: age, drains, stalls, silence, probes, keep-alives.
//!
//! Owns the timing policy of a session, and all of it. A driver tells it what has happened, and does
//! what [`poll`](Liveness::poll) says is due. Each limit is stated once, in
//! [`deadlines`](Liveness::deadlines). It must never read a clock, and never judge by anything but the
//! time it is given: traffic moves deadlines away without touching a timer.

use std::time::{Duration, Instant};

use crate::base::config::Settings;
use crate::base::error::CloseReason;

/// What a driver has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The session has reached its age: retire it.
    Retire,
    /// The leases in hand had `retire_timeout` to return: drain.
    Drain,
    /// The drain has taken `drain_timeout`: end the session.
    DrainTimedOut,
    /// A write has made no progress for `stall_timeout`: end the session.
    Stalled,
    /// We have not read for a while: tell the peer that we are alive.
    KeepAlive,
    /// The peer has sent something, and we have nothing to send: tell it that it gets through.
    Receipt,
    /// The peer has not answered the caller's probe, but it is alive beyond doubt: the probe has an
    /// answer, after this time.
    ProbeAnswered(Duration),
    /// The peer may be gone: another session to it is wanted.
    InDoubt,
    /// The peer is dead: end the session.
    PeerSilent,
    /// The peer was silent for `keepalive`: ping it.
    Ping,
    /// The peer was silent for `ping_after`: probe it before the session is handed out again.
    NeedsProbe,
}

/// Whether the peer can be asked for a sign of life, and has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    /// It cannot: the wire has no ping, or one side has drained. Its silence means nothing.
    Unavailable,
    /// It can.
    Idle,
    /// It is to be asked, and what is written before the question has not left us yet.
    Queued,
    /// It was asked: the question left us then. It has not answered.
    Open(Instant),
}

/// How long a side that has received something may be silent: then it says so by a receipt.
const RECEIPT_AFTER: Duration = Duration::from_secs(2);

/// How long a peer may be silent that has something of ours to receive, before we look for another way to
/// it: its receipt, and a slow round trip. The system sends lost packets again ever more seldom, so that a
/// session comes back late from a cut of some seconds, and a new one at once.
const DOUBTED: Duration = Duration::from_secs(5);

/// On a link that is slow to answer, or on which packets are lost for want of room, so many times the
/// slowest answer of late.
const DOUBTED_ANSWERS: u32 = 4;

/// How long an answer is remembered that was slow.
const OF_LATE: Duration = Duration::from_secs(60);

/// For how long nothing is known of a new session's link: until then silence is not doubted.
const GETTING_TO_KNOW: Duration = Duration::from_secs(10);

/// A write that is blocked for longer, on a session whose successor stands, may be blocked for good.
const STUCK: Duration = Duration::from_secs(1);

/// How long we wait for a word of a peer that has something of ours to receive. WireGuard waits as long.
const UNANSWERED: Duration = Duration::from_secs(15);

/// Bytes that call for no receipt: some life signs. Else two sides would answer each other's for ever.
const SIGNS: usize = 64;

/// Bytes that went one way since the last that went the other.
#[derive(Clone, Copy, Debug, Default)]
struct OneWay {
    bytes: usize,
    /// Since when they are more than signs of life.
    since: Option<Instant>,
}

impl OneWay {
    fn add(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > SIGNS {
            self.since.get_or_insert(now);
        }
    }
}

/// The slowest answer of late, beyond the time that a peer may take for a receipt.
#[derive(Clone, Copy, Debug)]
struct Slowest {
    time: Duration,
    until: Instant,
}

impl Slowest {
    /// On a link that is not known yet.
    fn unknown(now: Instant) -> Self {
        Self { time: UNANSWERED / DOUBTED_ANSWERS, until: now + GETTING_TO_KNOW }
    }

    fn answered(&mut self, time: Duration, now: Instant) {
        if time >= self.time || now > self.until {
            *self = Self { time, until: now + OF_LATE };
        }
    }

    /// When an answer is late that has been awaited since then.
    fn late_at(self, since: Instant) -> Instant {
        let of_late = if since <= self.until { self.time } else { Duration::ZERO };
        since + DOUBTED.max(DOUBTED_ANSWERS * of_late)
    }
}

/// How far the session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Handed out, until it is too old.
    Pooled,
    /// Leases in hand go on, until they have had long enough.
    Retired,
    /// Both sides say goodbye.
    Draining,
}

/// The limits, in the order in which they are looked at.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Stage,
    Stall,
    KeepAlive,
    Receipt,
    Unanswered,
    Doubt,
    Probe,
    Death,
    Ping,
    NeedsProbe,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Liveness {
    stage: Stage,
    /// When it has to go on to the next at the latest.
    step_at: Option<Instant>,
    /// When bytes of the peer's came last.
    heard_at: Instant,
    /// What we have written since.
    unanswered: OneWay,
    slowest: Slowest,
    /// What has come since we wrote.
    unreceipted: OneWay,
    /// When the peer last said that it is alive though it does not read.
    keep_alive_at: Option<Instant>,
    /// While we do not read: when our next keep-alive is due.
    paused: Option<Instant>,
    /// Since when a write makes no progress.
    blocked_since: Option<Instant>,
    /// Since when a caller waits for the answer to a probe.
    probe_since: Option<Instant>,
    /// The session is marked: it is to be probed before it is handed out.
    needs_probe: bool,
    /// It was said since the peer was heard that it may be gone.
    in_doubt: bool,
}

impl Liveness {
    /// A session that begins now, and is too old at `expires_at`.
    pub(crate) fn new(now: Instant, expires_at: Option<Instant>) -> Self {
        Self {
            stage: Stage::Pooled,
            step_at: expires_at,
            heard_at: now,
            unanswered: OneWay::default(),
            slowest: Slowest::unknown(now),
            unreceipted: OneWay::default(),
            keep_alive_at: None,
            paused: None,
            blocked_since: None,
            probe_since: None,
            needs_probe: false,
            in_doubt: false,
        }
    }

    /// The session is retired. Pooled → Retired.
    pub(crate) fn retired(&mut self, why: CloseReason, settings: &Settings, now: Instant) {
        if self.stage == Stage::Pooled {
            self.stage = Stage::Retired;
            // A drain of the pool has a deadline of its own, and orders the drain of each session then.
            let has_limit = why != CloseReason::Drained;
            self.step_at = has_limit.then(|| now + settings.retire_timeout);
        }
    }

    /// The session drains. Pooled, Retired → Draining.
    pub(crate) fn draining(&mut self, settings: &Settings, now: Instant) {
        if self.stage != Stage::Draining {
            self.stage = Stage::Draining;
            self.step_at = Some(now + settings.drain_timeout);
        }
    }

    /// Bytes of the peer's have come, a whole frame or not. Whether the session was marked as to be
    /// probed, and is not any more.
    pub(crate) fn heard(&mut self, bytes: usize, now: Instant) -> bool {
        self.heard_at = now;
        if let Some(since) = std::mem::take(&mut self.unanswered).since {
            self.slowest.answered((now - since).saturating_sub(RECEIPT_AFTER), now);
        }
        self.in_doubt = false;
        self.unreceipted.add(bytes, now);
        std::mem::take(&mut self.needs_probe)
    }

    /// The machine was suspended: the peer is to be probed before the session is handed out.
    pub(crate) fn suspended(&mut self) {
        self.needs_probe = true;
    }

    /// Messages of the peer's have come; the first may have come with its verdict.
    pub(crate) fn received(&mut self, now: Instant) {
        self.unreceipted.since.get_or_insert(now);
    }

    /// The peer said that it is alive, though it may not read.
    pub(crate) fn heard_keep_alive(&mut self, now: Instant) {
        self.keep_alive_at = Some(now);
    }

    /// We do not read for lack of room. The first keep-alive takes the place of a receipt.
    pub(crate) fn paused(&mut self, settings: &Settings, now: Instant) {
        self.paused.get_or_insert(now + RECEIPT_AFTER.min(keep_alive_every(settings)));
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// We read again. Meanwhile the peer's silence and its full pipe said nothing.
    pub(crate) fn resumed(&mut self, now: Instant) {
        self.paused = None;
        self.heard_at = now;
        self.unanswered = OneWay::default();
        if let Some(since) = &mut self.blocked_since {
            *since = now;
        }
    }

    /// A write makes no progress.
    pub(crate) fn blocked(&mut self, now: Instant) {
        self.blocked_since.get_or_insert(now);
    }

    /// Whether a write has been blocked for so long that the connection is hardly of use any more.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.blocked_since.is_some_and(|since| now - since > STUCK)
    }

    /// A write has made progress, of a side that has sent a message or not. If it was blocked, the peer's
    /// system has acknowledged something.
    pub(crate) fn wrote(&mut self, bytes: usize, has_sent: bool, now: Instant) {
        if let Some(since) = self.blocked_since.take() {
            self.unanswered = OneWay::default();
            self.slowest.answered(now - since, now);
        }
        self.unreceipted = OneWay::default();
        // What comes before the first message, the peer's driver does not hear.
        if has_sent {
            self.unanswered.add(bytes, now);
        }
    }

    /// Whether so many bytes of the peer's are more than signs of life: they use the session, though no
    /// message is whole yet.
    pub(crate) const fn are_use(bytes: usize) -> bool {
        bytes > SIGNS
    }

    /// A caller has asked for a probe.
    pub(crate) fn probe_asked(&mut self, now: Instant) {
        self.probe_since.get_or_insert(now);
    }

    /// The probe is over. Whether there was one.
    pub(crate) fn probe_over(&mut self) -> bool {
        self.probe_since.take().is_some()
    }

    pub(crate) fn is_probing(&self) -> bool {
        self.probe_since.is_some()
    }

    /// When something is due next.
    pub(crate) fn next_deadline(&self, settings: &Settings, ping: Ping) -> Option<Instant> {
        self.deadlines(settings, ping).into_iter().filter_map(|(_, at)| at).min()
    }

    /// What is due, one thing at a time; none when nothing is.
    pub(crate) fn poll(&mut self, settings: &Settings, ping: Ping, now: Instant) -> Option<Due> {
        let is_due = |(_, at): &(Limit, Option<Instant>)| at.is_some_and(|at| at <= now);
        let (limit, _) = self.deadlines(settings, ping).into_iter().find(is_due)?;
        Some(match limit {
            Limit::Stage => self.next_step(),
            Limit::Stall => Due::Stalled,
            Limit::KeepAlive => {
                self.paused = Some(now + keep_alive_every(settings));
                Due::KeepAlive
            }
            Limit::Receipt => {
                self.unreceipted = OneWay::default();
                Due::Receipt
            }
            Limit::Doubt => {
                self.in_doubt = true;
                Due::InDoubt
            }
            Limit::Unanswered => Due::PeerSilent,
            Limit::Probe => self.judge_probe(settings, ping, now),
            Limit::Death => Due::PeerSilent,
            Limit::Ping => Due::Ping,
            Limit::NeedsProbe => {
                self.needs_probe = true;
                Due::NeedsProbe
            }
        })
    }

    /// When each limit is reached, as things are.
    fn deadlines(&self, settings: &Settings, ping: Ping) -> [(Limit, Option<Instant>); 10] {
        // While we do not read, silence means nothing.
        let ping = if self.is_paused() { Ping::Unavailable } else { ping };
        let after_silence = |limit: Duration| match ping {
            Ping::Unavailable => None,
            Ping::Idle | Ping::Queued | Ping::Open(_) => Some(self.heard_at + limit),
        };
        // A peer that says that it is alive has an application that is slow; while we do not read, it
        // may have said so unheard.
        let blocked_since = self.blocked_since.filter(|_| !self.is_paused());
        let stall = blocked_since.map(|since| {
            let excused = self.keep_alive_at.map_or(since, |heard| heard.max(since));
            excused + settings.stall_timeout
        });
        let excused = |at: Instant| self.grace_until(settings).map_or(at, |grace| grace.max(at));
        // Any byte since is an answer.
        let death = match ping {
            Ping::Open(asked) => Some(excused(asked.max(self.heard_at) + settings.ping_timeout)),
            Ping::Idle | Ping::Queued | Ping::Unavailable => None,
        };
        let unanswered = match ping {
            Ping::Unavailable => None,
            Ping::Idle | Ping::Queued | Ping::Open(_) => self.unanswered.since,
        };
        let probe_since = match ping {
            // Its question has not left us. It waits for that, unless the peer is known to be alive.
            Ping::Queued => self
                .probe_since
                .filter(|since| self.is_alive(settings, *since, *since + settings.ping_timeout)),
            Ping::Open(asked) => self.probe_since.map(|since| since.max(asked)),
            Ping::Idle | Ping::Unavailable => self.probe_since,
        };
        [
            (Limit::Stage, self.step_at),
            (Limit::Stall, stall),
            (Limit::KeepAlive, self.paused),
            (Limit::Receipt, self.unreceipted.since.map(|since| since + RECEIPT_AFTER)),
            (Limit::Unanswered, unanswered.map(|since| excused(since + UNANSWERED))),
            (
                Limit::Doubt,
                unanswered
                    .filter(|_| !self.in_doubt)
                    .map(|since| excused(self.slowest.late_at(since))),
            ),
            (Limit::Probe, probe_since.map(|since| since + settings.ping_timeout)),
            (Limit::Death, death),
            (Limit::Ping, after_silence(settings.keepalive).filter(|_| ping == Ping::Idle)),
            (Limit::NeedsProbe, after_silence(settings.ping_after).filter(|_| !self.needs_probe)),
        ]
    }

    /// The session's time is up, which is said once: the driver takes the step, and tells of it.
    fn next_step(&mut self) -> Due {
        self.step_at = None;
        match self.stage {
            Stage::Pooled => Due::Retire,
            Stage::Retired => Due::Drain,
            Stage::Draining => Due::DrainTimedOut,
        }
    }

    /// The caller of a probe has waited long enough for the peer.
    fn judge_probe(&mut self, settings: &Settings, ping: Ping, now: Instant) -> Due {
        let since = self.probe_since.take().unwrap_or(now);
        // While its ping is queued, the probe is due only if the peer was alive by then.
        let alive = ping == Ping::Queued || self.is_alive(settings, since, now);
        if alive { Due::ProbeAnswered(now - since) } else { Due::PeerSilent }
    }

    /// Whether something says that the peer has been alive after `since`, or excuses it at `now`.
    fn is_alive(&self, settings: &Settings, since: Instant, now: Instant) -> bool {
        self.is_paused()
            || self.heard_at > since
            || self.grace_until(settings).is_some_and(|grace| grace > now)
    }

    /// Until when a peer that has said that it does not read need not answer pings.
    fn grace_until(&self, settings: &Settings) -> Option<Instant> {
        Some(self.keep_alive_at? + settings.keepalive)
    }
}

/// While paused: three in a peer's `keepalive`, so that one may come late.
fn keep_alive_every(settings: &Settings) -> Duration {
    settings.keepalive / 3
}

#[cfg(test)]
#[path = "../verify/proto/liveness.rs"]
mod tests;
