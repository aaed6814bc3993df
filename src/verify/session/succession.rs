//! A session and the one that takes its place: what passes, in which order, and that nobody waits for
//! ever.

use super::*;

/// A session whose socket takes nothing, and which has accepted these messages.
async fn stuck(numbers: std::ops::Range<u64>) -> (End, End) {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, gates) = Gated::new(a);
    let settings = settings(Config::default());
    let ends = join(Arc::clone(&settings), settings, a, b);
    settle().await;
    gates.closed_for_writing.store(true, Ordering::Relaxed);
    for n in numbers {
        ends.0.lease().send(message(n, 1_000)).await.unwrap();
    }
    settle().await;
    ends
}

fn numbers(end: &mut End) -> Vec<u64> {
    end.received().iter().map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn a_successor_sends_nothing_before_its_predecessor_has_left_what_it_had() {
    let (old, _peer) = stuck(0..10).await;
    let (new, mut theirs) = pair(Config::default(), 1 << 16).await;
    old.session.succeeded_by(&new.session);
    new.lease().send(message(10, 1_000)).await.unwrap();
    settle().await;
    assert!(numbers(&mut theirs).is_empty(), "the earlier ones go first");
    *old.host.successor.lock().unwrap() = Some(Arc::clone(&new.session));
    old.retire(CloseReason::InDoubt);
    old.session.tell_successor();
    settle().await;
    assert!(numbers(&mut theirs).into_iter().eq(0..11));
    assert_eq!(new.session.carried(), 10);
    let (_, report) = old.end().await;
    assert_eq!((report.accepted, report.unknown, report.unsent), (10, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_drains_meanwhile_says_so_behind_its_messages() {
    let (old, _peer) = stuck(0..1).await;
    let (new, mut theirs) = pair(Config::default(), 1 << 16).await;
    old.session.succeeded_by(&new.session);
    new.lease().send(message(7, 1_000)).await.unwrap();
    new.retire(CloseReason::Drained);
    settle().await;
    assert!(numbers(&mut theirs).is_empty());
    old.session.close(CloseReason::Discarded);
    let (reason, report) = new.end().await;
    assert_eq!((reason, report.accepted, report.delivered), (CloseReason::Drained, 1, 1));
    assert_eq!(numbers(&mut theirs), [7]);
}

#[tokio::test(start_paused = true)]
async fn however_a_predecessor_ends_its_successor_goes_on() {
    for end in [
        |old: End| old.session.close(CloseReason::Discarded),
        |old: End| old.driver.abort(),
        |old: End| old.session.tell_successor(),
    ] {
        let (old, _peer) = stuck(0..3).await;
        let (new, mut theirs) = pair(Config::default(), 1 << 16).await;
        old.session.succeeded_by(&new.session);
        new.lease().send(message(7, 1_000)).await.unwrap();
        end(old);
        settle().await;
        assert_eq!(numbers(&mut theirs), [7]);
    }
    // One that has ended holds nobody up.
    let (old, _peer) = stuck(0..3).await;
    old.session.close(CloseReason::Discarded);
    old.end().await;
    let (new, mut theirs) = pair(Config::default(), 1 << 16).await;
    old.session.succeeded_by(&new.session);
    new.lease().send(message(8, 1_000)).await.unwrap();
    settle().await;
    assert_eq!(numbers(&mut theirs), [8]);
}
