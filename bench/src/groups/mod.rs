//! What is measured, a file a group. Each fills in the targets that it is named for.

mod clone;
mod contended;
mod herd;
mod hit;
mod keepalive;
mod memory;
mod scale;

use serde_json::Value;

use crate::harness::Settings;
use crate::report::Report;

/// A group: the name on the command line, the targets it measures, and how.
pub struct Group {
    pub name: &'static str,
    pub targets: &'static [&'static str],
    pub run: fn(&Settings, &mut Report),
}

/// All of them, in the order of their targets.
pub const ALL: &[Group] = &[
    Group { name: "hit", targets: &["G1"], run: hit::run },
    Group { name: "contended", targets: &["G2"], run: contended::run },
    Group { name: "clone", targets: &["G3"], run: clone::run },
    Group { name: "herd", targets: &["G4"], run: herd::run },
    Group { name: "memory", targets: &["G8"], run: memory::run },
    Group { name: "scale", targets: &["G10"], run: scale::run },
    Group { name: "keepalive", targets: &["G11"], run: keepalive::run },
];

/// See [`PARTS`].
pub type Part = fn(&[String]) -> Value;

/// What a group has measured in processes of their own: the name of the part, and what it does with
/// its arguments.
pub const PARTS: &[(&str, Part)] = &[("memory", memory::part), ("scale", scale::part)];
