//! G3: a lease cloned from a lease in hand.

use std::sync::Arc;

use crate::ends::crowd::{Crowd, quiet, runtime};
use crate::harness::{Settings, measure};
use crate::pools::{Connection, case};
use crate::report::{Figure, Report};

const OURS: &str = "noise-pool, try_clone";
const LIMIT: &str = "limit: Arc clone and drop";

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = runtime();
    let crowd = runtime.block_on(Crowd::of(1, quiet(1)));
    let lease = crowd.pool.get(&crowd.members[0].peer).expect("the session is there");
    let session = lease.session_id();
    let connection = Arc::new(Connection(0));
    let results = measure(
        settings,
        vec![
            case(OURS, 1, move |_| {
                let clone = lease.try_clone();
                u64::from(clone.is_none_or(|clone| clone.session_id() != session))
            }),
            case(LIMIT, 1, move |_| {
                let clone = std::hint::black_box(Arc::clone(&connection));
                clone.0
            }),
        ],
    );
    report.results("A lease cloned from a lease, and dropped", "clone", &results);
    report.target(
        "G3",
        vec![
            Figure::at_most("ns", results.case(OURS).time().median, 15.0, Some(9.0)),
            Figure::plain("times the limit", results.ratio(OURS, LIMIT).median),
        ],
    );
}
