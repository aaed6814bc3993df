//! How cases are measured: all of a group in interleaved rounds of one process, in rotating order.
//!
//! Owns rounds, medians, spreads and ratios. What disturbs the machine then disturbs all cases alike,
//! and a ratio of two cases is the median of the ratios of their rounds, never that of two runs.

use std::time::{Duration, Instant};

use crate::alloc::{Allocated, counted};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A run of minutes that shows that all works; its figures are rough.
    pub quick: bool,
    /// Only messages of this size, where a group has several.
    pub size: Option<usize>,
}

impl Settings {
    /// Timed rounds per case.
    pub fn rounds(&self) -> usize {
        if self.quick { 5 } else { 21 }
    }

    /// What one case may take in one round.
    pub fn per_round(&self) -> Duration {
        Duration::from_millis(if self.quick { 20 } else { 100 })
    }
}

/// One thing to measure. `work(n)` does n units and checks them; the time it returns is that of the
/// units alone, without what it took to prepare them.
pub struct Case<'a> {
    name: String,
    work: Box<dyn FnMut(u64) -> Duration + 'a>,
    /// Units of a round; found in the first one if it is not given.
    units: Option<u64>,
}

impl<'a> Case<'a> {
    /// A case whose units per round follow from how long they take.
    pub fn new(name: impl Into<String>, work: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name: name.into(), work: Box::new(work), units: None }
    }

    /// A case with a fixed number of units per round.
    pub fn of(name: impl Into<String>, units: u64, work: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name: name.into(), work: Box::new(work), units: Some(units) }
    }
}

/// The time of `work`.
pub fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// A median, and the quartiles about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// # Panics
    /// Without samples.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// What one case showed.
#[derive(Debug)]
pub struct Measured {
    pub name: String,
    /// Nanoseconds per unit, a figure a round.
    rounds: Vec<f64>,
    /// Allocations and allocated bytes per unit, of a round of its own.
    pub allocations: f64,
    pub allocated_bytes: f64,
}

impl Measured {
    /// Nanoseconds per unit.
    pub fn time(&self) -> Spread {
        Spread::of(self.rounds.clone())
    }
}

/// What all cases of a group showed.
#[derive(Debug)]
pub struct Results(pub Vec<Measured>);

impl Results {
    /// # Panics
    /// When no case has that name: a defect of the bench.
    pub fn case(&self, name: &str) -> &Measured {
        self.0
            .iter()
            .find(|case| case.name == name)
            .unwrap_or_else(|| panic!("no case is named {name:?}"))
    }

    /// The time of `a` in times of `b`, round by round.
    pub fn ratio(&self, a: &str, b: &str) -> Spread {
        let (a, b) = (self.case(a), self.case(b));
        Spread::of(a.rounds.iter().zip(&b.rounds).map(|(a, b)| a / b).collect())
    }

    /// The rounds that are wanted.
    fn only(&self, wanted: &[bool]) -> Self {
        let of = |case: &Measured| Measured {
            name: case.name.clone(),
            rounds: case.rounds.iter().zip(wanted).filter(|(_, w)| **w).map(|(r, _)| *r).collect(),
            ..*case
        };
        Self(self.0.iter().map(of).collect())
    }

    /// How many times faster `ours` is than `theirs`, round by round.
    pub fn faster(&self, ours: &str, theirs: &str) -> Spread {
        self.ratio(theirs, ours)
    }
}

/// Measures the cases of one group.
pub fn measure(settings: &Settings, cases: Vec<Case<'_>>) -> Results {
    let mut rounds = Rounds::of(settings, cases);
    for _ in 0..settings.rounds() {
        rounds.one_more();
    }
    Results(rounds.measured)
}

/// The rounds of a measurement that depends on more of the machine than its own cores' work.
pub struct Undisturbed {
    /// All of them.
    pub all: Results,
    /// Those in which the machine was undisturbed.
    pub calm: Results,
    pub rounds: usize,
    pub calm_rounds: usize,
}

/// Measures until there are enough calm rounds, or [`MAX`] times as many in all. `latency` is asked
/// before and after each: one of the machine's own, on which the cases depend. A round is calm if that
/// is no more than twice the least of any round.
pub fn measure_undisturbed(
    settings: &Settings,
    cases: Vec<Case<'_>>,
    mut latency: impl FnMut() -> Duration,
) -> Undisturbed {
    let mut rounds = Rounds::of(settings, cases);
    let mut latencies = Vec::new();
    let mut before = latency();
    let calm = |latencies: &[Duration]| -> Vec<bool> {
        let min = latencies.iter().min().copied().unwrap_or_default();
        latencies.iter().map(|latency| *latency <= 2 * min).collect()
    };
    let count = |calm: &[bool]| calm.iter().filter(|calm| **calm).count();
    let max = MAX * settings.rounds();
    while count(&calm(&latencies)) < settings.rounds() && latencies.len() < max {
        rounds.one_more();
        let after = latency();
        latencies.push(before.max(after));
        before = after;
    }
    let calm = calm(&latencies);
    let all = Results(rounds.measured);
    Undisturbed { calm: all.only(&calm), rounds: calm.len(), calm_rounds: count(&calm), all }
}

/// Rounds in all, in times of those that are wanted.
const MAX: usize = 8;

/// Cases that are ready to be measured, and what they showed so far.
struct Rounds<'a> {
    cases: Vec<Case<'a>>,
    measured: Vec<Measured>,
    round: usize,
}

impl<'a> Rounds<'a> {
    fn of(settings: &Settings, mut cases: Vec<Case<'a>>) -> Self {
        let mut measured = Vec::new();
        for case in &mut cases {
            let units = *case.units.get_or_insert_with(|| calibrate(&mut case.work, settings));
            // Once more, unmeasured: tables, buffers and caches are then as they stay.
            (case.work)(units);
            let (_, Allocated { calls, bytes }) = counted(|| (case.work)(units));
            measured.push(Measured {
                name: case.name.clone(),
                rounds: Vec::new(),
                allocations: calls as f64 / units as f64,
                allocated_bytes: bytes as f64 / units as f64,
            });
        }
        Self { cases, measured, round: 0 }
    }

    fn one_more(&mut self) {
        for turn in 0..self.cases.len() {
            let at = (self.round + turn) % self.cases.len();
            let case = &mut self.cases[at];
            let units = case.units.unwrap_or(1);
            let time = (case.work)(units);
            self.measured[at].rounds.push(time.as_nanos() as f64 / units as f64);
        }
        self.round += 1;
    }
}

/// As many units as fill a round.
fn calibrate(work: &mut impl FnMut(u64) -> Duration, settings: &Settings) -> u64 {
    let mut units = 1;
    loop {
        // Twice: a hiccup of the machine must not make all rounds too short.
        let time = work(units).min(work(units));
        let wanted = settings.per_round().as_secs_f64() / time.as_secs_f64().max(1e-9);
        if wanted <= 1.5 {
            return units;
        }
        units = (units as f64 * wanted.min(16.0)).ceil() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let case = |name: &str, rounds: &[f64]| Measured {
            name: name.into(),
            rounds: rounds.to_vec(),
            allocations: 0.0,
            allocated_bytes: 0.0,
        };
        let results =
            Results(vec![case("a", &[10.0, 20.0, 300.0]), case("b", &[5.0, 20.0, 100.0])]);
        assert_eq!(results.ratio("a", "b"), Spread { median: 2.0, low: 2.0, high: 3.0 });
        assert_eq!(results.case("a").time().median, 20.0);
    }

    #[test]
    fn rounds_go_on_until_enough_are_calm_and_the_others_are_told_apart() {
        let settings = Settings { quick: true, size: None };
        let wanted = settings.rounds();
        // Before the first, then after each: the fourth round, and those on either side of it.
        let loads = [10, 11, 12, 90, 91, 12].map(Duration::from_nanos);
        let mut asked = 0;
        let mut time = 0;
        let told = measure_undisturbed(
            &settings,
            vec![Case::of("one", 1, |_| {
                time += 1;
                Duration::from_nanos(time)
            })],
            || {
                asked += 1;
                *loads.get(asked - 1).unwrap_or(&Duration::from_nanos(20))
            },
        );
        assert_eq!((told.rounds, told.calm_rounds), (wanted + 3, wanted));
        // Two runs go before the first round: the first is 3.
        assert_eq!(told.all.case("one").rounds[..6], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(told.calm.case("one").rounds[..3], [3.0, 4.0, 8.0]);

        let mut worse = Duration::from_nanos(1);
        let one = || Case::of("one", 1, |_| Duration::from_nanos(1));
        let never = measure_undisturbed(&settings, vec![one()], || {
            worse *= 2;
            worse
        });
        assert_eq!((never.rounds, never.calm_rounds), (MAX * wanted, 2));
    }

    #[test]
    fn every_case_has_every_round_and_its_units() {
        let settings = Settings { quick: true, size: None };
        let mut seen = Vec::new();
        let results = measure(
            &settings,
            vec![Case::of("seven", 7, |units| {
                seen.push(units);
                Duration::from_nanos(70)
            })],
        );
        assert_eq!(results.case("seven").time().median, 10.0);
        assert_eq!(seen, vec![7; 2 + settings.rounds()]);
    }
}
