//! What was measured: printed, and held against what is promised.

use std::time::Duration;

use noise_pool::snapshot::{Limits, Stats};

use super::honest::{Dials, PEERS};
use super::stranger::{Crowd, Kind, Tally, counted};

/// Of the messages that are delivered without strangers.
const MIN_THROUGHPUT: f64 = 0.80;

/// Of the newcomers who come in without strangers.
const MIN_DIALS: f64 = 0.99;

/// One round.
pub(crate) struct Round {
    pub(crate) abused: bool,
    /// Messages delivered, per second.
    pub(crate) rate: f64,
    pub(crate) dials: Dials,
    /// The most that the pool's process had to itself, in bytes.
    pub(crate) memory: u64,
    /// Processor time of the honest peers, the strangers and the pool.
    pub(crate) used: [Duration; 3],
}

/// One pool, in all its rounds.
pub(crate) struct Variant {
    name: &'static str,
    /// What the pool's memory may grow by, in bytes.
    bound: u64,
    pub(crate) rounds: Vec<Round>,
    pub(crate) tally: Tally,
    pub(crate) stats: Stats,
    pub(crate) limits: Limits,
}

impl Variant {
    pub(crate) fn new(name: &'static str, bound: u64) -> Self {
        let (tally, stats, limits) = Default::default();
        Self { name, bound, rounds: Vec::new(), tally, stats, limits }
    }

    pub(crate) fn report(&self) {
        println!("--- {}: {} strangers", self.name, self.tally.connected());
        println!(
            "round     messages/s   dials failed slowest    memory  processor: peers, strangers, pool"
        );
        for Round { abused, rate, dials, memory, used } in &self.rounds {
            println!(
                "{:8} {rate:11.0} {:7} {:6} {:4} ms {:5.1} MiB  {:.2} s, {:.2} s, {:.2} s",
                if *abused { "abused" } else { "quiet" },
                dials.tried,
                dials.failed,
                dials.slowest.as_millis(),
                mib(*memory),
                used[0].as_secs_f64(),
                used[1].as_secs_f64(),
                used[2].as_secs_f64(),
            );
        }
        for (kind, fates) in Kind::ALL.iter().zip(&self.tally.0) {
            println!("{:14} {fates:?}", format!("{kind:?}"));
        }
        println!("{:?}", self.stats.handshake_failures);
        println!(
            "{}: throughput {:.2} of quiet (rounds {:.2?}), dials {:.3} of quiet, memory {:+.1} MiB of \
             {:.1} MiB, {} connections of {} counted",
            self.name,
            median(&self.ratios()),
            self.ratios(),
            self.dials(),
            mib(self.growth()),
            mib(self.bound),
            counted(&self.stats),
            self.connections(),
        );
    }

    pub(crate) fn check(&self) {
        self.tally.check_silence();
        assert_eq!(counted(&self.stats), self.connections(), "{:?}", self.stats);
        assert!(self.dials() >= MIN_DIALS, "{}: honest dials fail", self.name);
        assert!(self.growth() <= self.bound, "{}: memory grows beyond its bound", self.name);
        for limit in [self.limits.pending_handshakes, self.limits.discarding] {
            assert!(limit.high_water <= limit.limit, "{}: {limit:?}", self.name);
        }
        let throughput = median(&self.ratios());
        assert!(throughput >= MIN_THROUGHPUT, "{}: honest peers are slowed", self.name);
    }

    /// Throughput with strangers as a part of that without, of each two rounds that are neighbours.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.rounds.chunks_exact(2);
        let ratio = |pair: &[Round]| match pair[0].abused {
            true => pair[0].rate / pair[1].rate,
            false => pair[1].rate / pair[0].rate,
        };
        pairs.map(ratio).collect()
    }

    /// Part of the newcomers who came in with strangers, as a part of that without.
    fn dials(&self) -> f64 {
        let of = |abused: bool| {
            let mut all = Dials::default();
            for round in self.rounds.iter().filter(|round| round.abused == abused) {
                all += round.dials;
            }
            1.0 - all.failed as f64 / all.tried as f64
        };
        of(true) / of(false)
    }

    /// What the process took beyond its first round, which is a quiet one, in bytes.
    fn growth(&self) -> u64 {
        let max = self.rounds.iter().map(|round| round.memory).max();
        max.unwrap_or_default().saturating_sub(self.rounds[0].memory)
    }

    /// Connections that were made to the pool.
    fn connections(&self) -> u64 {
        let newcomers: u64 = self.rounds.iter().map(|round| round.dials.tried).sum();
        self.tally.connected() + Crowd::GATHERING + newcomers + u64::from(PEERS)
    }
}

/// The one in the middle; of two, the lower.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
