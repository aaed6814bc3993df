//! What a run has seen: messages, ends of sessions, and a log whose hash names the run.
//!
//! Every router of a run writes here, in the order in which the simulation lets them run. It judges
//! what may be lost; nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};

use noise_pool::SessionId;
use noise_pool::error::CloseReason;
use noise_pool::snapshot::SessionReport;

/// One end of a session: the router, which of its pools, and the session's number there.
pub(crate) type End = (usize, u64, SessionId);

/// What became of a message at its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The call had not returned when its router was crashed, or has not yet.
    Unknown,
    Accepted,
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    on: End,
    to: usize,
    fate: Fate,
    arrivals: u32,
}

/// What one end of a session sent.
#[derive(Clone, Copy, Default)]
struct Sum {
    accepted: u64,
    arrived: u64,
    /// Not seen, to a router that crashed before it read.
    unread: u64,
}

#[derive(Default)]
struct Pages {
    messages: Vec<Entry>,
    ends: BTreeMap<End, (CloseReason, SessionReport)>,
    reasons: BTreeMap<String, u64>,
    /// Pairs of routers (the smaller number first) whose connections the scenario broke.
    disturbed: BTreeSet<(usize, usize)>,
    /// Routers that crashed while they did not read: what had arrived at the pool died with them.
    unread: BTreeSet<usize>,
    log: DefaultHasher,
    /// Ids are unique in the process, so a run counts them from one again.
    ids: BTreeMap<String, usize>,
}

impl Pages {
    /// The text, with the ids of sessions and attempts numbered in the order of their appearance.
    fn renumbered(&mut self, text: &str) -> String {
        let mut parts = text.split("Id(");
        let mut out = parts.next().unwrap().to_owned();
        for part in parts {
            let (id, rest) = part.split_once(')').unwrap();
            let kind = if out.ends_with("Session") { 's' } else { 'a' };
            let next = self.ids.len() + 1;
            let number = self.ids.entry(format!("{kind}{id}")).or_insert(next);
            out.push_str(&format!("Id({number}){rest}"));
        }
        out
    }
}

/// The book of one run.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

impl Book {
    /// A line in the log of the run, which `SIMULATION_LOG=1` shows.
    pub(crate) fn log(&self, router: usize, what: &str) {
        let time = turmoil::sim_elapsed().unwrap_or_default();
        let mut pages = self.pages();
        let line = pages.renumbered(&format!("{time:?} r{router} {what}"));
        if std::env::var_os("SIMULATION_LOG").is_some() {
            println!("{line}");
        }
        line.hash(&mut pages.log);
    }

    /// A message is about to be sent; its number.
    pub(crate) fn sending(&self, on: End, to: usize) -> u64 {
        let mut pages = self.pages();
        pages.messages.push(Entry { on, to, fate: Fate::Unknown, arrivals: 0 });
        pages.messages.len() as u64 - 1
    }

    /// The pool has taken the message, or given it back.
    pub(crate) fn sent(&self, message: u64, accepted: bool) {
        let fate = if accepted { Fate::Accepted } else { Fate::Refused };
        self.pages().messages[message as usize].fate = fate;
    }

    pub(crate) fn arrived(&self, at: usize, message: u64) {
        self.log(at, &format!("message {message}"));
        let mut pages = self.pages();
        let entry = &mut pages.messages[message as usize];
        assert_eq!(entry.to, at, "message {message} went to the wrong router");
        entry.arrivals += 1;
    }

    pub(crate) fn ended(&self, end: End, reason: CloseReason, report: SessionReport) {
        let mut pages = self.pages();
        *pages.reasons.entry(named(reason)).or_default() += 1;
        let before = pages.ends.insert(end, (reason, report));
        assert!(before.is_none(), "{end:?} ended twice");
    }

    /// From now on connections between the two may break.
    pub(crate) fn disturb(&self, a: usize, b: usize) {
        self.pages().disturbed.insert((a.min(b), a.max(b)));
    }

    /// The router crashes, and messages may lie in its inbox.
    pub(crate) fn crashed_unread(&self, router: usize) {
        self.pages().unread.insert(router);
    }

    pub(crate) fn reasons(&self) -> BTreeMap<String, u64> {
        self.pages().reasons.clone()
    }

    pub(crate) fn messages(&self) -> usize {
        self.pages().messages.len()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.pages().log.finish()
    }

    /// What the run did wrong with messages; nothing, if all is well.
    pub(crate) fn faults(&self) -> Vec<String> {
        let pages = self.pages();
        let mut faults = Vec::new();
        let mut sums: BTreeMap<End, Sum> = BTreeMap::new();
        for (number, entry) in pages.messages.iter().enumerate() {
            let sum = sums.entry(entry.on).or_default();
            if entry.fate == Fate::Accepted {
                let unread = entry.arrivals == 0 && pages.unread.contains(&entry.to);
                sum.accepted += 1;
                sum.arrived += u64::from(entry.arrivals.min(1));
                sum.unread += u64::from(unread);
            }
            let pair = (entry.on.0.min(entry.to), entry.on.0.max(entry.to));
            if entry.arrivals > 1 || (entry.arrivals == 1 && entry.fate == Fate::Refused) {
                faults.push(format!("message {number} arrived once too often: {entry:?}"));
            }
            if entry.fate == Fate::Accepted
                && entry.arrivals == 0
                && !pages.disturbed.contains(&pair)
            {
                faults.push(format!("message {number} was lost and nothing broke: {entry:?}"));
            }
        }
        for (end, (reason, report)) in &pages.ends {
            let Sum { accepted, arrived, unread } = sums.get(end).copied().unwrap_or_default();
            if report.accepted != accepted {
                faults.push(format!("{end:?} accepted {accepted} messages: {report:?}"));
            }
            if report.delivered > arrived + unread + report.carried {
                faults.push(format!("{end:?} delivered {arrived} messages: {report:?}"));
            }
            let is_settled = report.unknown == 0 && arrived + unread + report.unsent >= accepted;
            if graceful(*reason) && !is_settled {
                faults.push(format!(
                    "{end:?} ended in good order ({reason}), {arrived} arrived of {report:?}"
                ));
            }
        }
        faults
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap()
    }
}

/// Whether a session that ends for this reason has exchanged goodbyes. `Disconnected` may be a cut.
fn graceful(reason: CloseReason) -> bool {
    use CloseReason as R;
    matches!(
        reason,
        R::Idle | R::Age | R::Evicted | R::Superseded | R::Drained | R::Peer(_) | R::PeerDrains
    )
}

/// The reason's name, without what it carries.
fn named(reason: CloseReason) -> String {
    let text = format!("{reason:?}");
    text.split(['(', '{', ' ']).next().unwrap().to_owned()
}
