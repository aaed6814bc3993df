//! Drains in every order, and what the reports say.

use super::*;
use crate::base::error::GoodbyeReason;

fn quick() -> Config {
    Config::default()
        .max_message_size(4_000)
        .min_queue(4_100)
        .max_undelivered(5_000)
        .inbox_bytes(5_000)
        .max_buffered_bytes(1 << 20)
}

/// The same with an inbox that holds what these tests send.
fn roomy() -> Config {
    quick().max_undelivered(1 << 20).inbox_bytes(1 << 20)
}

/// Sends `count` messages on each side, without anybody reading the inbox.
async fn fill(ends: &[&End], count: u64) {
    for end in ends {
        let lease = end.lease();
        for number in 0..count {
            lease.send(message(number, 500)).await.unwrap();
        }
    }
}

fn assert_delivered(report: SessionReport, accepted: u64, received: u64) {
    let expected =
        SessionReport { accepted, delivered: accepted, received, ..SessionReport::default() };
    assert_eq!(report, expected);
}

#[tokio::test(start_paused = true)]
async fn our_drain_delivers_what_was_queued_on_both_sides() {
    let (mut ours, mut theirs) = pair(roomy(), 300).await;
    fill(&[&ours, &theirs], 200).await;
    ours.retire(CloseReason::Age);
    let (reason, report) = ours.end().await;
    assert_eq!(reason, CloseReason::Age);
    assert_delivered(report, 200, 200);
    let (reason, report) = theirs.end().await;
    assert_eq!(reason, CloseReason::Peer(GoodbyeReason::Age));
    assert_delivered(report, 200, 200);
    assert_eq!(ours.received().len(), 200);
    assert_eq!(theirs.received().len(), 200);
    ours.assert_settled();
    theirs.assert_settled();
    assert!(ours.driver.await.is_ok() && theirs.driver.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn both_drain_at_once() {
    let (mut ours, mut theirs) = pair(quick(), 300).await;
    fill(&[&ours, &theirs], 100).await;
    ours.retire(CloseReason::Drained);
    theirs.retire(CloseReason::Idle);
    let (reason, report) = ours.end().await;
    assert_eq!(reason, CloseReason::Drained);
    assert_delivered(report, 100, 100);
    let (reason, report) = theirs.end().await;
    assert_eq!(reason, CloseReason::Idle);
    assert_delivered(report, 100, 100);
    assert_eq!((ours.received().len(), theirs.received().len()), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn a_drain_with_nothing_to_say_ends_without_time_passing() {
    let (ours, theirs) = pair(quick(), 300).await;
    let start = Instant::now();
    ours.retire(CloseReason::Evicted);
    assert_eq!(ours.end().await.0, CloseReason::Evicted);
    assert_eq!(theirs.end().await.0, CloseReason::Peer(GoodbyeReason::Evicted));
    assert_eq!(passed(start), Duration::ZERO);
    // The peer's pool was told before its end.
    assert_eq!(theirs.host.retired.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_is_given_up_after_drain_timeout() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (b, gates) = Gated::new(b);
    let settings = settings(quick());
    let (ours, _theirs) = join(Arc::clone(&settings), settings, a, b);
    settle().await;
    gates.closed_for_reading.store(true, Ordering::Relaxed);
    fill(&[&ours], 10).await;
    let start = Instant::now();
    ours.retire(CloseReason::Drained);
    let (reason, report) = ours.end().await;
    assert_eq!(reason, CloseReason::DrainTimeout);
    assert_eq!(passed(start), Duration::from_secs(10));
    assert_eq!((report.accepted, report.delivered, report.unknown), (10, 0, 10));
    ours.assert_settled();
}

#[tokio::test(start_paused = true)]
async fn leases_in_hand_send_on_after_age_until_the_last_returns() {
    let (ours, mut theirs) = pair(quick(), 300).await;
    let (lease, other) = (ours.lease(), ours.lease());
    assert_eq!(ours.session.leases_out(), 2);
    ours.retire(CloseReason::Age);
    assert!(lease.is_retired());
    assert_eq!(ours.session.leases_out(), 2);
    tokio::time::sleep(Duration::from_secs(100)).await;
    lease.send(message(1, 100)).await.unwrap();
    drop(other);
    settle().await;
    assert_eq!(ours.session.ended(), None);
    lease.send(message(2, 100)).await.unwrap();
    drop(lease);
    let (reason, report) = ours.end().await;
    assert_eq!(reason, CloseReason::Age);
    assert_delivered(report, 2, 0);
    assert_eq!(theirs.received().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_never_returned_is_cut_off_at_retire_timeout() {
    let (ours, _theirs) = pair(quick(), 300).await;
    let lease = ours.lease();
    let start = Instant::now();
    ours.retire(CloseReason::Idle);
    assert_eq!(lease.closed().await, CloseReason::Idle);
    assert_eq!(passed(start), Duration::from_secs(300));
    let error = lease.send(message(1, 10)).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Closed(CloseReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_superseded_session_gives_messages_back_at_once() {
    let (ours, theirs) = pair(quick(), 300).await;
    let (lease, peers) = (ours.lease(), theirs.lease());
    ours.retire(CloseReason::Superseded);
    let error = lease.try_send(message(1, 10)).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Retired(CloseReason::Superseded));
    assert_eq!(ours.end().await.0, CloseReason::Superseded);
    assert_eq!(peers.closed().await, CloseReason::Peer(GoodbyeReason::Superseded));
}

#[tokio::test(start_paused = true)]
async fn senders_who_wait_when_a_drain_begins_get_their_messages_back() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, gates) = Gated::new(a);
    let settings = settings(roomy().max_queue(8_200));
    let (ours, mut theirs) = join(Arc::clone(&settings), settings, a, b);
    settle().await;
    gates.closed_for_writing.store(true, Ordering::Relaxed);
    let mut accepted = 0;
    while ours.lease().try_send(message(accepted, 500)).is_ok() {
        accepted += 1;
    }
    let lease = ours.lease();
    let waiting = tokio::spawn(async move { lease.send(message(77, 500)).await });
    settle().await;
    ours.session.drain_now(CloseReason::Disconnected);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(number(&error.message), 77);
    assert_eq!(error.kind, SendErrorKind::Retired(CloseReason::Disconnected));
    gates.closed_for_writing.store(false, Ordering::Relaxed);
    ours.session.signal.wake();
    let (reason, report) = ours.end().await;
    assert_eq!(reason, CloseReason::Disconnected);
    assert_delivered(report, accepted, 0);
    assert_eq!(theirs.received().len() as u64, accepted);
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_is_full_beyond_its_second_bound_ends_the_drain_by_its_timeout() {
    let config = quick().max_buffered_bytes(20_000);
    let (ours, mut theirs) = pair(config, 300).await;
    let lease = ours.lease();
    let sender = tokio::spawn(async move {
        for number in 0..100 {
            lease.send(message(number, 1_000)).await?;
        }
        Ok::<_, crate::base::error::SendError>(())
    });
    settle().await;
    theirs.retire(CloseReason::Drained);
    let (reason, _) = theirs.end().await;
    assert_eq!(reason, CloseReason::DrainTimeout);
    let (_, report) = ours.end().await;
    assert!(sender.await.unwrap().is_err());
    let gauge = theirs.shared.inbox.gauge();
    assert!((20_000..=5_000 + 20_000).contains(&gauge.high_water), "{gauge:?}");
    // Not confirmed, so not reported as delivered.
    assert_eq!(report.delivered, 0);
    assert_eq!(report.unknown, report.accepted);
    let got = theirs.received();
    assert!(got.len() > 10, "{}", got.len());
    assert!(got.iter().enumerate().all(|(index, got)| number(got) == index as u64));
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_that_is_read_during_the_drain_gets_everything() {
    let config = quick().max_buffered_bytes(20_000);
    let (ours, mut theirs) = pair(config, 300).await;
    fill(&[&ours], 20).await;
    ours.retire(CloseReason::Drained);
    for expected in 0..20 {
        assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), expected);
    }
    let (_, report) = ours.end().await;
    assert_delivered(report, 20, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_goodbye_is_truncated() {
    let (ours, theirs) = pair(quick(), 300).await;
    fill(&[&ours], 3).await;
    settle().await;
    theirs.session.close(CloseReason::PoolClosed);
    assert_eq!(theirs.end().await.0, CloseReason::PoolClosed);
    let (reason, report) = ours.end().await;
    assert!(matches!(reason, CloseReason::Truncated | CloseReason::Io(_)), "{reason:?}");
    assert_eq!((report.accepted, report.delivered, report.unknown), (3, 0, 3));
}
