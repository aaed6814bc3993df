//! How a recorded figure limits a bench.

use gungraun::prelude::*;
use gungraun::{Callgrind, CallgrindMetrics, EventKind};

/// The bench may not take a twentieth more than these instructions.
pub fn recorded(instructions: u64) -> LibraryBenchmarkConfig {
    let max = instructions + instructions / 20;
    let mut callgrind = Callgrind::default();
    callgrind
        .hard_limits([(EventKind::Ir, max)])
        .format([CallgrindMetrics::None, EventKind::Ir.into()]);
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}
