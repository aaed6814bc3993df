//! G1, G19: checkout and return of a session that is there, on one thread, by `get` and by `get_or_dial`.

use noise_pool::{PeerId, Pool};
use tokio::runtime::Runtime;

use crate::ends::crowd::{Crowd, Member, quiet, runtime};
use crate::harness::{Case, Results, Settings, measure};
use crate::pools::{case, generic, hyper, limit, pingora, shuffled, waiting_case};
use crate::report::{Chart, Figure, Report};

const OURS: &str = "noise-pool, get";
const DIALLING: &str = "noise-pool, get_or_dial";
const LIMIT: &str = "limit: DashMap, seeded fast hash";
const MANY: usize = 1_000;

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = runtime();
    let crowd = runtime.block_on(Crowd::of(MANY, quiet(MANY)));
    for count in [1, MANY] {
        let members = shuffled(crowd.members.iter().take(count).collect());
        let peers: Vec<_> = members.iter().map(|member| member.peer).collect();
        let results = measure(settings, cases(&runtime, &crowd.pool, &members, &peers));
        report.results(&format!("Checkout and return on a hit, {count} peers"), "hit", &results);
        if count == MANY {
            conclude(report, &results);
        }
    }
}

fn cases<'a>(
    runtime: &'a Runtime,
    pool: &'a Pool,
    members: &'a [&'a Member],
    peers: &'a [PeerId],
) -> Vec<Case<'a>> {
    let keys = peers.len();
    let place = move |at: usize, session| match members[at].session == session {
        true => at as u64,
        false => u64::MAX,
    };
    let map = limit::dashmap::<foldhash::fast::RandomState>(peers);
    let sip = limit::dashmap::<std::hash::RandomState>(peers);
    let papaya = limit::papaya(peers);
    let mut cases = vec![
        case(OURS, keys, move |at| {
            pool.get(&peers[at]).map_or(u64::MAX, |lease| place(at, lease.session_id()))
        }),
        waiting_case(DIALLING, runtime, keys, async move |at| {
            let lease = pool.get_or_dial(peers[at]).await;
            lease.map_or(u64::MAX, |lease| place(at, lease.session_id()))
        }),
        case(LIMIT, keys, move |at| limit::hit(&map, &peers[at])),
        case("DashMap, SipHash", keys, move |at| limit::hit(&sip, &peers[at])),
        case("papaya, seeded fast hash", keys, move |at| limit::papaya_hit(&papaya, &peers[at])),
        pingora::pingora(peers),
    ];
    cases.extend(hyper::legacy(runtime, peers));
    cases.push(hyper::singletons(runtime, peers));
    cases.extend(generic::deadpool(runtime, peers));
    cases.extend(generic::bb8(runtime, peers));
    cases
}

fn conclude(report: &mut Report, results: &Results) {
    let times = |name: &str| results.faster(OURS, name).median;
    report.target(
        "G1",
        vec![
            Figure::at_most("times the limit", results.ratio(OURS, LIMIT).median, 2.0, Some(1.3)),
            Figure::at_most("allocations", results.case(OURS).allocations, 0.0, None),
            Figure::at_least(
                "deadpool in a DashMap, times ours",
                times("deadpool in a DashMap"),
                4.0,
                None,
            ),
            Figure::at_least("bb8 in a DashMap, times ours", times("bb8 in a DashMap"), 4.0, None),
            Figure::at_least(
                "bb8 untested, times ours",
                times("bb8 in a DashMap, untested"),
                4.0,
                None,
            ),
            Figure::at_least("pingora-pool, times ours", times("pingora-pool"), 4.0, None),
            Figure::at_least(
                "hyper-util shared, times ours",
                times("hyper-util, HTTP/2 shared"),
                3.0,
                None,
            ),
            Figure::plain("deadpool alone, times ours", times("deadpool alone")),
            Figure::plain("bb8 alone, times ours", times("bb8 alone")),
            Figure::plain("hyper-util HTTP/1, times ours", times("hyper-util, HTTP/1")),
            Figure::plain(
                "hyper-util singletons, times ours",
                times("hyper-util, singletons in a map"),
            ),
        ],
    );
    report.target(
        "G19",
        vec![
            Figure::at_most(
                "times the limit",
                results.ratio(DIALLING, LIMIT).median,
                1.4,
                Some(1.2),
            ),
            Figure::at_most("allocations", results.case(DIALLING).allocations, 0.0, None),
        ],
    );
    let bars = [
        OURS,
        LIMIT,
        "hyper-util, HTTP/2 shared",
        "pingora-pool",
        "deadpool in a DashMap",
        "bb8 in a DashMap",
    ];
    report.charts.push(Chart {
        file: "hit",
        title: format!("Checkout and return of a session that is there, {MANY} peers"),
        unit: "ns, one thread; less is better",
        bars: bars.map(|name| (name.to_owned(), results.case(name).time().median)).into(),
    });
}
