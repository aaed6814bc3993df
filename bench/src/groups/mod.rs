//! What is measured, a file a group. Each fills in the targets that it is named for.

mod allocs;
mod clone;
mod contended;
mod handshake;
mod herd;
mod hit;
mod keepalive;
mod memory;
mod rtt;
mod scale;
mod storm;
mod tput;

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
    Group { name: "hit", targets: &["G1", "G19"], run: hit::run },
    Group { name: "contended", targets: &["G2"], run: contended::run },
    Group { name: "clone", targets: &["G3"], run: clone::run },
    Group { name: "herd", targets: &["G4"], run: herd::run },
    Group {
        name: "tput",
        targets: &["G5", "G5a", "G5b", "G5c", "G5d", "G5e", "G5f"],
        run: tput::run,
    },
    Group { name: "rtt", targets: &["G6"], run: rtt::run },
    Group { name: "handshake", targets: &["G7", "G7a", "G7b"], run: handshake::run },
    Group { name: "memory", targets: &["G8"], run: memory::run },
    Group { name: "allocs", targets: &["G9"], run: allocs::run },
    Group { name: "scale", targets: &["G10"], run: scale::run },
    Group { name: "keepalive", targets: &["G11"], run: keepalive::run },
    Group { name: "storm", targets: &["G12"], run: storm::run },
];

/// See [`PARTS`].
pub type Part = fn(&[String]) -> Value;

/// What a group has measured in processes of their own: the name of the part, and what it does with
/// its arguments.
pub const PARTS: &[(&str, Part)] = &[("memory", memory::part), ("scale", scale::part)];
