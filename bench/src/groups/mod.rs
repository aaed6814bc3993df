//! What is measured, a file a group. Each fills in the targets that it is named for.

mod allocs;
mod handshake;
mod rtt;
mod storm;
mod tput;

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
    Group {
        name: "tput",
        targets: &["G5", "G5a", "G5b", "G5c", "G5d", "G5e", "G5f"],
        run: tput::run,
    },
    Group { name: "rtt", targets: &["G6"], run: rtt::run },
    Group { name: "handshake", targets: &["G7", "G7a", "G7b"], run: handshake::run },
    Group { name: "allocs", targets: &["G9"], run: allocs::run },
    Group { name: "storm", targets: &["G12"], run: storm::run },
];
