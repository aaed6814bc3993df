//! What a run says: tables, the targets with their figures, JSON, and bars for the charts.
//!
//! Owns the form of the output. It judges nothing but a figure against the bounds it comes with.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value, json};

use crate::harness::{Results, Spread};

/// One figure of a target, with what must hold and what we are after.
#[derive(Clone, Debug)]
pub struct Figure {
    what: String,
    value: f64,
    gate: Option<Bound>,
    goal: Option<Bound>,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(max) => value <= max,
            Self::AtLeast(min) => value >= min,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(max) => format!("≤ {}", number(max)),
            Self::AtLeast(min) => format!("≥ {}", number(min)),
        }
    }
}

impl Figure {
    /// A figure that is small when all is well.
    pub fn at_most(what: impl Into<String>, value: f64, gate: f64, goal: Option<f64>) -> Self {
        let goal = Some(Bound::AtMost(goal.unwrap_or(gate)));
        Self { what: what.into(), value, gate: Some(Bound::AtMost(gate)), goal }
    }

    /// A figure that is large when all is well.
    pub fn at_least(what: impl Into<String>, value: f64, gate: f64, goal: Option<f64>) -> Self {
        let goal = Some(Bound::AtLeast(goal.unwrap_or(gate)));
        Self { what: what.into(), value, gate: Some(Bound::AtLeast(gate)), goal }
    }

    /// A figure to know, with no bound.
    pub fn plain(what: impl Into<String>, value: f64) -> Self {
        Self { what: what.into(), value, gate: None, goal: None }
    }
}

/// A bar chart: a title, what the numbers are, and the bars.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The file's name, without `.svg`.
    pub file: &'static str,
    pub title: String,
    pub unit: &'static str,
    pub bars: Vec<(String, f64)>,
}

/// Everything that a run has shown so far.
#[derive(Debug, Default)]
pub struct Report {
    targets: Vec<(&'static str, Vec<Figure>)>,
    pub charts: Vec<Chart>,
}

impl Report {
    /// Prints what the cases of a group took, in `unit`s.
    pub fn results(&self, title: &str, unit: &str, results: &Results) {
        let mut table =
            table(&["case", &format!("ns per {unit}"), "spread", "allocations", "bytes"]);
        for case in &results.0 {
            let Spread { median, low, high } = case.time();
            table.add_row([
                case.name.clone(),
                number(median),
                format!("{} to {}", number(low), number(high)),
                number(case.allocations),
                number(case.allocated_bytes),
            ]);
        }
        print(title, table);
    }

    /// Prints a table of any other kind; the first column is text, the rest are numbers.
    pub fn rows(&self, title: &str, columns: &[&str], rows: Vec<Vec<String>>) {
        let mut table = table(columns);
        table.add_rows(rows);
        print(title, table);
    }

    /// Adds figures to a target and prints them with their bounds.
    pub fn target(&mut self, name: &'static str, figures: Vec<Figure>) {
        let mut table = table(&["figure", "value", "gate", "goal", ""]);
        for figure in &figures {
            let text = |bound: Option<Bound>| bound.map_or_else(String::new, Bound::text);
            let holds = |bound: Option<Bound>| bound.is_none_or(|b| b.holds(figure.value));
            let verdict = match (holds(figure.gate), holds(figure.goal)) {
                _ if figure.gate.is_none() => "",
                (false, _) => "MISSED",
                (true, false) => "gate",
                (true, true) => "goal",
            };
            table.add_row([
                figure.what.clone(),
                number(figure.value),
                text(figure.gate),
                text(figure.goal),
                verdict.to_owned(),
            ]);
        }
        print(name, table);
        match self.targets.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.extend(figures),
            None => self.targets.push((name, figures)),
        }
    }

    /// One line: which gates and goals hold.
    pub fn summary(&self) -> String {
        let mut line = String::new();
        for (name, figures) in &self.targets {
            let word = match (gate(figures), goal(figures)) {
                (false, _) => "MISSED",
                (true, false) => "gate",
                (true, true) => "goal",
            };
            let _ = write!(line, "{}{name} {word}", if line.is_empty() { "" } else { ", " });
        }
        line
    }

    pub fn json(&self) -> Value {
        let targets: Map<String, Value> = self
            .targets
            .iter()
            .map(|(name, figures)| {
                let values: Map<String, Value> =
                    figures.iter().map(|f| (f.what.clone(), json!(f.value))).collect();
                let target =
                    json!({"gate": gate(figures), "goal": goal(figures), "figures": values});
                ((*name).to_owned(), target)
            })
            .collect();
        json!({ "targets": targets })
    }
}

fn gate(figures: &[Figure]) -> bool {
    figures.iter().all(|f| f.gate.is_none_or(|bound| bound.holds(f.value)))
}

fn goal(figures: &[Figure]) -> bool {
    figures.iter().all(|f| f.goal.is_none_or(|bound| bound.holds(f.value)))
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(columns.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn print(title: &str, table: Table) {
    println!("\n{title}\n{table}");
}

/// Three digits, and all of what is left of the point.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.01 || value == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_holds_when_each_of_its_figures_does() {
        let mut report = Report::default();
        report.target(
            "G1",
            vec![
                Figure::at_most("few", 1.5, 2.0, Some(1.3)),
                Figure::at_least("many", 5.0, 4.0, None),
            ],
        );
        report.target("G1", vec![Figure::plain("known", 7.0)]);
        report.target("G2", vec![Figure::at_least("many", 3.9, 4.0, Some(8.0))]);
        assert_eq!(
            report.json(),
            json!({"targets": {
                "G1": {"gate": true, "goal": false, "figures": {"few": 1.5, "many": 5.0, "known": 7.0}},
                "G2": {"gate": false, "goal": false, "figures": {"many": 3.9}},
            }})
        );
        assert_eq!(report.summary(), "G1 gate, G2 MISSED");
    }
}
