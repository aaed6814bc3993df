//! G6: a message there and back.

use noise_pool::config::Suite;
use tokio::runtime::Runtime;

use crate::harness::{Case, Settings, measure};
use crate::report::{Figure, Report};
use crate::wire::libp2p::Yamux;
use crate::wire::raw::Raw;
use crate::wire::snowstorm::Snowstorm;
use crate::wire::{self, Peer, Receiver, Sender, ours, run};

const OURS: &str = "noise-pool";
const RAW: &str = "raw TCP";
const SNOWSTORM: &str = "snowstorm";
const YAMUX: &str = "libp2p-noise, yamux";

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = run::runtime();
    for size in [64, 1_028] {
        if settings.size.is_none_or(|only| only == size) {
            one_size(&runtime, size, settings, report);
        }
    }
}

fn one_size(runtime: &Runtime, size: usize, settings: &Settings, report: &mut Report) {
    fn peer<'a, P>(runtime: &'a Runtime, size: usize, name: &str, peer: P) -> Case<'a>
    where
        P: Peer,
        P::End: Sender + Receiver,
    {
        let link = runtime.block_on(wire::pair(&peer)).expect("loopback connects");
        Case::new(name, run::round_trips(runtime, size, link))
    }
    let link = runtime.block_on(ours::pair(Suite::default())).expect("loopback connects");
    let results = measure(
        settings,
        vec![
            Case::new(OURS, run::round_trips(runtime, size, link)),
            peer(runtime, size, RAW, Raw),
            peer(runtime, size, SNOWSTORM, Snowstorm::new()),
            peer(runtime, size, YAMUX, Yamux::new(1)),
        ],
    );
    report.results(&format!("{size} bytes, there and back"), "round trip", &results);
    let within = |theirs: &str, gate: f64, goal: Option<f64>| {
        let times = results.ratio(OURS, theirs).median;
        Figure::at_most(format!("{size} B, times {theirs}"), times, gate, goal)
    };
    report.target(
        "G6",
        vec![within(RAW, 1.8, Some(1.5)), within(SNOWSTORM, 0.95, None), within(YAMUX, 0.65, None)],
    );
}
