//! Figures: what was measured, and what it must be.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Bytes of a message of the cases.
pub(crate) const SIZE: usize = 1_028;

/// How long a process goes on after its report, so that the other end reports of a link that is there.
pub(crate) const LINGERS: Duration = Duration::from_secs(5);

/// What a figure must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// It is for people to look at.
    None,
}

#[derive(Clone, Debug)]
pub(crate) struct Figure {
    what: String,
    value: f64,
    bound: Bound,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, bound: Bound) -> Self {
        Self { what: what.into(), value, bound }
    }

    pub(crate) fn zero(what: impl Into<String>, value: f64) -> Self {
        Self::new(what, value, Bound::AtMost(0.0))
    }

    /// With another bound.
    pub(crate) fn at_most(mut self, most: f64) -> Self {
        self.bound = Bound::AtMost(most);
        self
    }

    /// Not a number holds no bound.
    pub(crate) fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
            Bound::None => true,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.3}", self.what, self.value)?;
        match self.bound {
            Bound::AtMost(most) => write!(f, " (at most {most})")?,
            Bound::AtLeast(least) => write!(f, " (at least {least})")?,
            Bound::None => {}
        }
        if self.holds() { Ok(()) } else { f.write_str(" MISSED") }
    }
}

/// Microseconds of the wall clock, which all processes of a machine share.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

/// Lengths of time in seconds, as a report has them.
#[derive(Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// How many, the median, the 99th percentile and the longest.
    pub(crate) fn report(&mut self) -> Value {
        self.0.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (self.0.len() as f64 * part) as usize;
            self.0.get(place.min(self.0.len().saturating_sub(1))).copied()
        };
        json!({ "count": self.0.len(), "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
    }
}

/// Hands a report to the program that started this one.
pub(crate) fn report(report: &Value) {
    println!("{report}");
}

/// A number of a report; not a number if it is not there.
pub(crate) fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN)
}
