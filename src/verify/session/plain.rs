//! A session over a wire without ping, drain and confirmation.

use super::*;
use crate::verify::plain::connection;
use crate::verify::plain::connection::PlainConnection;

/// Two ends over a stream of `buffer` bytes.
fn plain_pair(config: Config, buffer: usize) -> (End, End) {
    let settings = settings(config);
    let (a, b) = tokio::io::duplex(buffer);
    let end = |secret, origin, stream: DuplexStream| {
        let (shared, inbox) = SessionContext::new(Arc::clone(&settings));
        let mut spec = spec(secret, origin, &settings);
        spec.abilities = &connection::ABILITIES;
        let session = Session::new(spec, &shared);
        let host = Arc::new(FakeHost::default());
        *host.slot.lock().unwrap() = Some(kept(&LeaseCore::new(Arc::clone(&session), None)));
        let connection = AnyConnection::Plain(PlainConnection::default());
        let driver = tokio::spawn(driver(&session, Box::new(stream), connection, &host));
        End { session, host, inbox, shared, driver }
    };
    (end(2, Origin::Outbound, a), end(1, Origin::Inbound, b))
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_sizes_arrive_in_order_over_any_split() {
    for buffer in [1, 97, 1 << 16] {
        let (ours, mut theirs) = plain_pair(Config::default(), buffer);
        let sizes = [0, 8, 256, 257, 5_000, 65_533, 0];
        for size in sizes {
            ours.lease().send(Bytes::from(vec![7; size])).await.unwrap();
        }
        for size in sizes {
            assert_eq!(theirs.inbox.recv().await.unwrap().body, vec![7; size]);
        }
        ours.lease().flush().await.unwrap();
        ours.assert_settled();
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_delivers_what_was_queued_on_both_sides_and_reports_it_as_unknown() {
    let (mut ours, mut theirs) = plain_pair(Config::default(), 300);
    for number in 0..50 {
        ours.lease().send(message(number, 500)).await.unwrap();
        theirs.lease().send(message(number, 500)).await.unwrap();
    }
    ours.retire(CloseReason::Age);
    let expected = SessionReport { accepted: 50, unknown: 50, received: 50, ..Default::default() };
    assert_eq!(ours.end().await, (CloseReason::Age, expected));
    assert_eq!(theirs.end().await.1, expected);
    assert!(matches!(theirs.outcome().0, CloseReason::Peer(_)));
    assert_eq!((ours.received().len(), theirs.received().len()), (50, 50));
    assert_eq!(*theirs.host.retired.lock().unwrap(), [CloseReason::PeerDrains]);
}

#[tokio::test(start_paused = true)]
async fn both_drain_at_once() {
    let (ours, theirs) = plain_pair(Config::default(), 300);
    ours.lease().send(message(1, 500)).await.unwrap();
    ours.retire(CloseReason::Idle);
    theirs.retire(CloseReason::Evicted);
    assert_eq!(
        (ours.end().await.0, theirs.end().await.0),
        (CloseReason::Idle, CloseReason::Evicted)
    );
    assert_eq!(theirs.outcome().1.received, 1);
}

#[tokio::test(start_paused = true)]
async fn silence_means_nothing_where_there_is_no_ping() {
    let (ours, theirs) = plain_pair(Config::default(), 300);
    assert_eq!(ours.lease().ping().await, Err(PingError::Unsupported));
    ours.session.request_probe();
    tokio::time::sleep(Duration::from_secs(24 * 3_600)).await;
    assert_eq!(ours.session.availability(), Availability::Ready);
    assert_eq!((ours.session.ended(), theirs.session.ended()), (None, None));
    assert_eq!(*ours.host.retired.lock().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_goodbye_is_truncated() {
    let (ours, theirs) = plain_pair(Config::default(), 300);
    theirs.session.close(CloseReason::PoolClosed);
    assert_eq!(theirs.end().await.0, CloseReason::PoolClosed);
    let reason = ours.end().await.0;
    assert!(matches!(reason, CloseReason::Truncated | CloseReason::Io(_)), "{reason:?}");
}
