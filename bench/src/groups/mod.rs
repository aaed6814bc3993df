//! What is measured, a file a group. Each fills in the targets that it is named for.

use crate::harness::Settings;
use crate::report::Report;

/// A group: the name on the command line, the targets it measures, and how.
pub struct Group {
    pub name: &'static str,
    pub targets: &'static [&'static str],
    pub run: fn(&Settings, &mut Report),
}

/// All of them, in the order of their targets.
pub const ALL: &[Group] = &[];
