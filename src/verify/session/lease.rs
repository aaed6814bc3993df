//! Leases: turns, exclusivity, marks of use.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Barrier;

use super::*;

/// Puts a core with permits into the slot, as a pool does for `max_leases` or an exclusive waiter.
fn limit(end: &End, permits: u32) -> LeaseHandle {
    let core = LeaseCore::new(Arc::clone(&end.session), NonZeroU32::new(permits));
    let old = end.host.slot.lock().unwrap().replace(kept(&core));
    drop(old);
    core
}

#[tokio::test(start_paused = true)]
async fn one_lease_and_a_hundred_tasks_take_a_hundred_turns_each_in_order() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    let core = limit(&ours, 1);
    let turns = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..100)
        .map(|task| {
            let (core, turns) = (LeaseHandle::clone(&core), Arc::clone(&turns));
            tokio::spawn(async move {
                for _ in 0..100 {
                    let lease = LeaseWaiter::of(&core).wait().await.unwrap();
                    turns.lock().unwrap().push(task);
                    tokio::task::yield_now().await;
                    drop(lease);
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    // Waiters that go away skip nobody.
    for _ in 0..50 {
        let mut turn = Box::pin(LeaseWaiter::of(&core).wait());
        assert!(futures_util::poll!(&mut turn).is_pending());
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let turns = turns.lock().unwrap();
    assert_eq!(turns.len(), 10_000);
    for (index, task) in turns.iter().enumerate() {
        assert_eq!(*task, index % 100);
    }
    drop(core);
    assert_eq!(ours.session.leases_out(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_turn_are_woken_by_retirement_and_do_not_hold_it_up() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    let core = limit(&ours, 1);
    let lease = LeaseWaiter::of(&core).wait().await.unwrap();
    let waiting = tokio::spawn(LeaseWaiter::of(&core).wait());
    settle().await;
    drop(core);
    ours.retire(CloseReason::Age);
    assert_eq!(waiting.await.unwrap().unwrap_err(), CloseReason::Age);
    drop(lease);
    assert_eq!(ours.end().await.0, CloseReason::Age);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_lease_waits_for_all_others_and_receives() {
    let (ours, mut theirs) = pair(Config::default(), 1 << 16).await;
    let early = ours.lease();
    theirs.lease().send(message(0, 10)).await.unwrap();
    settle().await;
    let core = limit(&ours, u32::MAX);
    assert!(early.try_clone().is_none(), "somebody waits for all leases");
    let waiting = tokio::spawn(async move { ExclusiveLease::acquire(core).await });
    settle().await;
    assert!(!waiting.is_finished());
    drop(early);
    let mut exclusive = waiting.await.unwrap().unwrap();
    let core = ours.core();
    assert!(Lease::try_checkout(&core).is_none());
    let next = tokio::spawn(LeaseWaiter::of(&core).wait());
    drop(core);

    for number in 1..=5 {
        theirs.lease().send(message(number, 10)).await.unwrap();
    }
    assert_eq!(number(&exclusive.recv().await.unwrap()), 1);
    assert_eq!(number(&exclusive.recv().await.unwrap()), 2);
    exclusive.send(message(9, 10)).await.unwrap();
    assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), 9);
    settle().await;
    assert!(!next.is_finished());
    drop(exclusive);
    next.await.unwrap().unwrap();
    theirs.lease().send(message(6, 10)).await.unwrap();
    let mut ours = ours;
    let mut got = Vec::new();
    for _ in 0..5 {
        got.push(number(&ours.inbox.recv().await.unwrap().body));
    }
    assert_eq!(got, [0, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_holder_who_does_not_read_pauses_the_peer_and_loses_nothing() {
    let config = Config::default().max_message_size(2_000).max_undelivered(3_000);
    let (ours, theirs) = pair(config, 500).await;
    let core = limit(&ours, u32::MAX);
    let mut exclusive = ExclusiveLease::acquire(core).await.unwrap();
    let lease = theirs.lease();
    let sender = tokio::spawn(async move {
        for count in 0..100 {
            lease.send(message(count, 400)).await.unwrap();
        }
        lease.flush().await.unwrap();
    });
    tokio::time::sleep(Duration::from_secs(200)).await;
    let undelivered = || ours.session.receiver.undelivered();
    let full = undelivered();
    assert!((2_000..=3_000).contains(&full), "{full}");
    assert!(ours.session.has_backlog(), "who waits to be read is in use");
    assert_eq!(number(&exclusive.recv().await.unwrap()), 0);
    let cost = full - undelivered();
    let mut next = 1;
    while undelivered() > 1_500 {
        settle().await;
        assert_eq!(undelivered(), full - next as usize * cost, "there is room, but not yet half");
        assert!(ours.session.has_backlog());
        assert_eq!(number(&exclusive.recv().await.unwrap()), next);
        next += 1;
    }
    assert!(!ours.session.has_backlog(), "the driver may go on");
    settle().await;
    assert!(undelivered() > 1_500);
    for count in next..100 {
        assert_eq!(number(&exclusive.recv().await.unwrap()), count);
    }
    sender.await.unwrap();
    settle().await;
    assert_eq!((undelivered(), ours.session.has_backlog()), (0, false));
    ours.session.close(CloseReason::Discarded);
    assert_eq!(exclusive.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_holder_receives_what_found_no_room_in_the_inbox() {
    let config = Config::default().max_message_size(2_000).max_undelivered(3_000);
    let (mut ours, theirs) = pair(config, 500).await;
    let lease = theirs.lease();
    let sender = tokio::spawn(async move {
        for count in 0..100 {
            lease.send(message(count, 400)).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(ours.session.has_backlog(), "the inbox is full");
    let mut exclusive = ExclusiveLease::acquire(limit(&ours, u32::MAX)).await.unwrap();
    let first = number(&exclusive.recv().await.unwrap());
    for count in first + 1..100 {
        assert_eq!(number(&exclusive.recv().await.unwrap()), count);
    }
    for count in 0..first {
        assert_eq!(number(&ours.inbox.recv().await.unwrap().body), count);
    }
    sender.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_exclusive_lease_ends_with_the_session() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    let early = ours.lease();
    let core = limit(&ours, u32::MAX);
    let waiting = tokio::spawn(async move { ExclusiveLease::acquire(core).await });
    settle().await;
    early.discard();
    assert_eq!(waiting.await.unwrap().unwrap_err(), CloseReason::Discarded);
    assert_eq!(ours.end().await.0, CloseReason::Discarded);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_returns_tells_of_it_while_somebody_wants_to_know() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    for limited in [false, true] {
        if limited {
            drop(limit(&ours, 2));
        }
        let shared = &ours.shared;
        let wanted = shared.want_idle();
        let mut idle = pin!(shared.fell_idle());
        let (last, first) = (ours.lease(), ours.lease());
        drop(first);
        assert!(futures_util::poll!(&mut idle).is_pending(), "another is still out");
        drop(last);
        assert!(futures_util::poll!(&mut idle).is_ready());
        assert!(shared.idle_wanted());
        drop(wanted);
        assert!(!shared.idle_wanted());
        drop(ours.lease());
        assert!(futures_util::poll!(pin!(shared.fell_idle())).is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn data_and_leases_are_use_and_pings_are_not() {
    let (ours, theirs) = pair(Config::default(), 1 << 16).await;
    let born = ours.session.last_used();
    tokio::time::sleep(Duration::from_secs(100)).await;
    ours.session.probe().await.unwrap();
    assert_eq!(ours.session.last_used(), born);
    let lease = ours.lease();
    tokio::time::sleep(Duration::from_secs(10)).await;
    ours.shared.tick(Instant::now());
    drop(lease);
    assert_eq!(ours.session.last_used(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    theirs.lease().send(message(1, 10)).await.unwrap();
    settle().await;
    assert_eq!(ours.session.last_used(), Instant::now());
}

#[tokio::test(start_paused = true)]
async fn a_discarded_session_is_closed_for_everybody_and_says_why() {
    let (ours, theirs) = pair(Config::default(), 1 << 16).await;
    let other = ours.lease();
    ours.lease().discard();
    assert_eq!(ours.session.availability(), Availability::Retired);
    assert_eq!(other.closed().await, CloseReason::Discarded);
    let error = other.send(message(1, 1)).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Closed(CloseReason::Discarded));
    assert_eq!(other.ping().await, Err(PingError::Closed(CloseReason::Discarded)));
    theirs.end().await;
}

#[test]
#[cfg(all(target_pointer_width = "64", not(noise_pool_loom)))]
fn cores_lie_close_together_in_memory() {
    // With the two counts of its `Arc` and a word of the allocator's, one and a half lines each.
    assert!(size_of::<LeaseCore>() + 3 * size_of::<usize>() <= 96);
}

#[tokio::test(start_paused = true)]
async fn what_the_pool_keeps_is_no_lease_whatever_becomes_of_the_session() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    let (lease, other) = (ours.lease(), ours.lease());
    assert_eq!(ours.session.leases_out(), 2);
    lease.discard();
    // The pool has not heard of it.
    assert_eq!(
        (ours.session.availability(), ours.session.leases_out()),
        (Availability::Retired, 1)
    );
    assert!(ours.host.slot.lock().unwrap().is_some());
    settle().await;
    assert!(ours.host.slot.lock().unwrap().is_none());
    assert_eq!(ours.session.leases_out(), 1);
    drop(other);
    assert_eq!(ours.session.leases_out(), 0);
}

#[tokio::test]
async fn a_share_is_closed_or_leased_but_never_both() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    // What is in the slot counts, too.
    drop(ours.host.slot.lock().unwrap().take());
    let only = || UncountedRef::of(&LeaseCore::new(Arc::clone(&ours.session), None));

    let older = Lease::try_checkout(&only()).unwrap();
    let core = only().close_unused().expect_err("a lease of an older core is one");
    drop(older);
    let lease = Lease::try_checkout(&core).unwrap();
    let core = core.close_unused().unwrap_err();
    drop(lease);
    let handle = LeaseHandle::downgrade(&core);
    let closed = core.close_unused().unwrap();
    assert!(handle.upgrade().is_none(), "it is closed for good");
    assert_eq!(ours.session.leases_out(), 0);
    drop(closed);

    for _ in 0..5_000 {
        let core = only();
        let handle = LeaseHandle::downgrade(&core);
        let start = Barrier::new(2);
        let (close, lease) = std::thread::scope(|scope| {
            let wait = || start.wait();
            let closing = scope.spawn(move || {
                wait();
                core.close_unused()
            });
            start.wait();
            let lease = handle.upgrade().and_then(|core| Lease::try_from_core(core).ok());
            (closing.join().unwrap(), lease)
        });
        assert_ne!(close.is_ok(), lease.is_some());
        assert_eq!(ours.session.leases_out(), u32::from(lease.is_some()));
    }
}

#[tokio::test(start_paused = true)]
async fn leases_of_every_core_see_what_their_session_is_marked_with() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    let old = Lease::try_checkout(&ours.core()).unwrap();
    let new = Lease::try_checkout(&limit(&ours, 2)).unwrap();
    assert!(old.try_clone().is_none(), "a newer core has taken its place");
    let seen = || [old.availability(), new.availability(), ours.session.availability()];
    assert_eq!(seen(), [Availability::Ready; 3]);
    ours.session.mark_needs_probe();
    assert_eq!(seen(), [Availability::NeedsProbe; 3]);
    // A core that comes later knows it too.
    assert_eq!(limit(&ours, 3).availability(), Availability::NeedsProbe);
    ours.session.clear_needs_probe();
    assert_eq!(seen(), [Availability::Ready; 3]);
    ours.session.retire(CloseReason::Idle);
    assert_eq!(seen(), [Availability::Retired; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_use_is_remembered_when_its_core_has_gone() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    let lease = Lease::try_checkout(&ours.core()).unwrap();
    drop(limit(&ours, 2));
    tokio::time::advance(Duration::from_secs(7)).await;
    let now = Instant::now();
    ours.session.context.tick(now);
    assert!(ours.session.last_used() < now);
    // The last of the old core.
    drop(lease);
    let gone = now.saturating_duration_since(ours.session.last_used());
    assert!(gone < Duration::from_millis(1), "{gone:?}");
}
