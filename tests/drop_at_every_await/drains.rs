//! Drains and closes that are dropped while leases are out, and what leases wait for meanwhile.

use std::time::Duration;

use noise_pool::error::CloseReason;

use super::cases::nobody_waits;
use super::support::{confirmed, soon};
use super::world::World;
use super::{Case, Step, beside};

/// How long a lease is out, and how long a drain waits for one that does not come back.
const OUT: Duration = Duration::from_millis(20);

/// Longer than any lease is out.
const LONG: Duration = Duration::from_secs(5);

/// Connected, one message is queued, and its lease is out for as long as the world has it.
fn leased(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.connect().await;
        assert_eq!(world.offer(), Ok(()));
    })
}

/// Connected, one message is queued, and its lease comes back after a while.
fn leased_for_now(world: &mut World) -> Step<'_> {
    Box::pin(async {
        leased(world).await;
        let lease = world.lease.take();
        beside(async move {
            tokio::time::sleep(OUT).await;
            drop(lease);
        });
    })
}

/// Who drains next comes to the end, and the identity may come back.
fn drains_again(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        let report = soon("the drain's end", world.a.drain(LONG)).await;
        assert_eq!((report.messages.delivered, report.leases_remaining), (confirmed(1), 0));
        world.restart().await;
    })
}

/// The same with a lease that is not returned: it is told of the end.
fn drains_under_its_lease(world: &mut World, done: bool) -> Step<'_> {
    Box::pin(async move {
        let report = soon("the drain's end", world.a.drain(OUT)).await;
        // None, if the drain that was dropped had taken it already.
        assert!(report.leases_remaining <= usize::from(!done));
        assert_eq!(report.messages.delivered, confirmed(1));
        ends_its_lease(world, CloseReason::Drained).await;
    })
}

fn closes_its_lease(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        world.cut = true;
        soon("the close", world.a.close()).await;
        ends_its_lease(world, CloseReason::PoolClosed).await;
    })
}

async fn ends_its_lease(world: &mut World, why: CloseReason) {
    let lease = world.lease.take().unwrap();
    assert_eq!(soon("the session's end", lease.closed()).await, why);
    // A handle that outlives its session says so, and holds nothing up.
    let late = world.message();
    assert!(lease.try_send(late).is_err());
    world.restart().await;
    drop(lease);
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "Pool::drain while a lease is out",
        before: leased_for_now,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain(LONG).await;
                assert_eq!((report.messages.delivered, report.leases_remaining), (confirmed(1), 0));
            })
        },
        after: drains_again,
        steps: 100,
    },
    Case {
        name: "Pool::drain under a lease",
        before: leased,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain(OUT).await;
                assert_eq!((report.messages.delivered, report.leases_remaining), (confirmed(1), 1));
            })
        },
        after: drains_under_its_lease,
        steps: 100,
    },
    Case {
        name: "Pool::drain_peer while a lease is out",
        before: leased_for_now,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain_peer(&world.b.id(), LONG).await;
                assert_eq!((report.messages.delivered, report.leases_remaining), (confirmed(1), 0));
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Pool::drain_peer under a lease",
        before: leased,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain_peer(&world.b.id(), OUT).await;
                assert_eq!((report.messages.delivered, report.leases_remaining), (confirmed(1), 1));
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Pool::close under a lease",
        before: leased,
        future: |world| Box::pin(world.a.close()),
        after: closes_its_lease,
        steps: 2,
    },
    Case {
        name: "Lease::closed while its pool drains",
        before: |world| {
            Box::pin(async {
                leased(world).await;
                let a = world.a.clone();
                beside(async move { assert_eq!(a.drain(OUT).await.leases_remaining, 1) });
            })
        },
        future: |world| {
            Box::pin(async {
                let why = world.lease.as_ref().unwrap().closed().await;
                assert_eq!(why, CloseReason::Drained);
            })
        },
        after: |world, _| Box::pin(ends_its_lease(world, CloseReason::Drained)),
        steps: 100,
    },
    Case {
        name: "Lease::flush while its peer is drained",
        before: |world| {
            Box::pin(async {
                world.connect().await;
                while world.offer().is_ok() {}
                let (a, b) = (world.a.clone(), world.b.id());
                beside(async move { assert_eq!(a.drain_peer(&b, LONG).await.sessions, 1) });
            })
        },
        future: |world| Box::pin(async { world.lease.as_ref().unwrap().flush().await.unwrap() }),
        after: nobody_waits,
        steps: 100,
    },
];
