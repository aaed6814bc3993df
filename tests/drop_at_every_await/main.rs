//! Every public future is dropped after every number of steps, and nothing leaks.
//!
//! Owns the harness [`at_every_await`] and the tests, one for each line of [`cases`]. The pools
//! talk over streams that move one byte at a time and are pending every other poll, so that there
//! is a step between any two bytes. The future is polled after every turn of the scheduler, woken
//! or not: the drop then falls into every state of the tasks behind it, not only into those that
//! wake it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod cases;
mod drains;
#[path = "../support/mod.rs"]
mod support;
mod tcp;
mod world;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use noise_pool::Pool;
use noise_pool::io::BoxFuture;

use support::net::Steps;
use support::{alive_tasks, at_rest, soon, until};
use world::{World, all_released};

// ---- the harness -------------------------------------------------------------------------------

type Step<'a> = BoxFuture<'a, ()>;

/// One future and what surrounds it.
struct Case {
    name: &'static str,
    /// Brings the world to where the future begins. Not cut.
    before: for<'a> fn(&'a mut World) -> Step<'a>,
    /// What is dropped. What it borrows from the world stays.
    future: for<'a> fn(&'a mut World) -> Step<'a>,
    /// What must hold of the world then; the flag says whether the future had ended.
    after: for<'a> fn(&'a mut World, bool) -> Step<'a>,
    /// At least so many steps are in it, or the case does not show what it says.
    steps: usize,
}

/// What goes on beside the future, from its first step on.
pub(crate) fn beside(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// Drops the case's future after 0, 1, 2, … steps, each time in a world of its own, until it ends
/// before it is dropped.
async fn at_every_await(case: &Case) {
    let tasks = alive_tasks();
    let mut steps = 0;
    loop {
        let mut world = World::new();
        soon("before", (case.before)(&mut world)).await;
        let pace = Arc::clone(world.net.steps());
        pace.by_byte.store(true, Ordering::Relaxed);
        let done = {
            let mut future = (case.future)(&mut world);
            advance(&mut future, steps, &pace).await
        };
        pace.by_byte.store(false, Ordering::Relaxed);
        soon("after", (case.after)(&mut world, done)).await;
        leaves_nothing(&mut world).await;
        drop(world);
        until(case.name, || alive_tasks() == tasks).await;
        if done {
            break;
        }
        steps += 1;
    }
    println!("{}: {steps} steps", case.name);
    // The messages of the plain wire are short.
    let at_least = if cfg!(noise_pool_plain_wire) { case.steps / 10 } else { case.steps };
    assert!(steps >= at_least, "{}: {steps} steps are too few", case.name);
}

/// Polls the future once per step, after everything else had its turn. Whether it has ended.
async fn advance(future: &mut Step<'_>, steps: usize, pace: &Steps) -> bool {
    /// So many turns without a byte, and only time can go on.
    const QUIET: u32 = 16;
    let (mut moved, mut quiet) = (0, 0);
    for _ in 0..steps {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await.is_ready() {
            return true;
        }
        let now = pace.moved.load(Ordering::Relaxed);
        quiet = if now == moved { quiet + 1 } else { 0 };
        moved = now;
        if quiet > QUIET {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            turn().await;
        }
    }
    false
}

/// Lets every other task that can run be polled once; within a spawned task.
async fn turn() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// No wait, entry, lease, byte or permit stays, the world still works, and nothing accepted is lost
/// or comes twice.
async fn leaves_nothing(world: &mut World) {
    world.lease = None;
    world.exclusive = None;
    at_rest(&world.a).await;
    at_rest(&world.b).await;
    let leases = |pool: &Pool| pool.snapshot().sessions.iter().map(|s| s.leases).sum::<u32>();
    until("all leases are back", || leases(&world.a) + leases(&world.b) == 0).await;

    let mut came = world.works().await;
    if let Some(message) = world.under_way.take().filter(|it| !world.accepted.contains(it)) {
        let before = came.len();
        came.retain(|it| *it != message);
        assert!(before - came.len() <= 1, "what had left has arrived once, or not at all");
    }
    if !(world.cut && came.is_empty()) {
        assert_eq!(came, world.accepted, "what was accepted has arrived once, and nothing else");
    }
    assert_eq!(world.heard, world.to_a, "the same the other way");
    at_rest(&world.a).await;
    at_rest(&world.b).await;
    for pool in [&world.a, &world.b] {
        let snapshot = pool.snapshot();
        assert_eq!(snapshot.sessions.len(), 1);
        assert_eq!(snapshot.sessions[0].leases, 0);
        until("the bytes are back", || {
            let now = pool.snapshot();
            let held = [&now.limits.buffered_bytes, &now.limits.inbox_bytes].map(|use_| use_.held);
            held == [0, 0] && now.sessions[0].queue_bytes == 0
        })
        .await;
    }

    soon("A closes", world.a.close()).await;
    soon("B closes", world.b.close()).await;
    all_released(&world.a, &mut world.a_inbox).await;
    all_released(&world.b, &mut world.b_inbox).await;
    for pool in [&world.a, &world.b] {
        world.net.remove(pool.id());
    }
}

/// All lines.
fn cases() -> impl Iterator<Item = &'static Case> {
    cases::CASES.iter().chain(drains::CASES)
}

/// A test for each line; the list and the tests must agree.
macro_rules! every_await {
    ($($(#[$meta:meta])* $test:ident: $name:literal;)+) => {
        $(
            $(#[$meta])*
            #[tokio::test(start_paused = true)]
            async fn $test() {
                let case = cases().find(|case| case.name == $name).unwrap();
                tokio::spawn(at_every_await(case)).await.unwrap();
            }
        )+

        #[test]
        fn every_case_has_its_test() {
            let names: Vec<&str> = cases().map(|case| case.name).collect();
            assert_eq!(names, [$($name),+]);
        }
    };
}

every_await! {
    listen: "Pool::listen";
    get_or_dial: "Pool::get_or_dial";
    get_or_dial_of_a_silent_peer: "Pool::get_or_dial of a silent peer";
    get_or_dial_with: "Pool::get_or_dial_with";
    get_exclusive: "Pool::get_exclusive";
    get_exclusive_behind_a_lease: "Pool::get_exclusive behind a lease";
    adopt_as_initiator: "Pool::adopt as initiator";
    adopt_as_responder: "Pool::adopt as responder";
    send: "Pool::send";
    drain: "Pool::drain";
    drain_peer: "Pool::drain_peer";
    close: "Pool::close";
    send_on_a_full_queue: "Lease::send on a full queue";
    send_until_a_deadline: "Lease::send_with until a deadline";
    flush: "Lease::flush";
    #[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
    ping: "Lease::ping";
    lease_closed: "Lease::closed";
    recv_exclusively: "ExclusiveLease::recv";
    recv: "Inbox::recv";
    recv_many: "Inbox::recv_many";
    recv_an_event: "Events::recv";
    drain_while_a_lease_is_out: "Pool::drain while a lease is out";
    drain_under_a_lease: "Pool::drain under a lease";
    drain_peer_while_a_lease_is_out: "Pool::drain_peer while a lease is out";
    drain_peer_under_a_lease: "Pool::drain_peer under a lease";
    close_under_a_lease: "Pool::close under a lease";
    lease_closed_while_its_pool_drains: "Lease::closed while its pool drains";
    flush_while_its_peer_is_drained: "Lease::flush while its peer is drained";
}
