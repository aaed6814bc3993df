//! G9: what is allocated per checkout and per message.

use noise_pool::config::Suite;

use crate::harness::{Case, Settings, measure, timed};
use crate::report::{Figure, Report};
use crate::wire::{ours, run};

const CHECKOUT: &str = "checkout and return on a hit";

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = run::runtime();
    let router =
        || runtime.block_on(ours::Router::new(Suite::default())).expect("loopback listens");
    let (near, far) = (router(), router());
    let lease = runtime.block_on(near.pool.get_or_dial(far.target())).expect("loopback connects");
    let peer = far.pool.id();
    let checkouts = |units| {
        timed(|| (0..units).for_each(|_| drop(near.pool.get(&peer).expect("the session lives"))))
    };
    let name = |size: usize| format!("{size} bytes one way");
    let messages = |size: usize| {
        let link = runtime.block_on(ours::pair(Suite::default())).expect("loopback connects");
        // Enough for bursts to be what they are in a long run.
        Case::of(name(size), (64 << 20) / size as u64, run::one_way(&runtime, size, link))
    };
    let mut cases = vec![Case::new(CHECKOUT, checkouts)];
    for size in [64, 1_028, 16 * 1024] {
        if settings.size.is_none_or(|only| only == size) {
            cases.push(messages(size));
        }
    }
    let results = measure(settings, cases);
    drop(lease);
    report.results("allocations, both sides together", "unit", &results);
    let allocations = results.case(CHECKOUT).allocations;
    let mut figures = vec![Figure::at_most("allocations per checkout", allocations, 0.0, None)];
    if settings.size.is_none_or(|only| only == 1_028) {
        let typical = results.case(&name(1_028));
        let bytes = typical.allocated_bytes / 1_028.0;
        figures.extend([
            Figure::at_most("allocations per 1,028 B", typical.allocations, 0.1, Some(0.05)),
            Figure::at_most("allocated, times the bytes of 1,028 B", bytes, 1.2, None),
        ]);
    }
    report.target("G9", figures);
}
