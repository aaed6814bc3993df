//! Unit tests of `base/event.rs`.

use super::*;
use futures_util::poll;

fn event(n: u8) -> PoolEvent {
    PoolEvent::IdentityConflict { peer: peer(n) }
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

#[test]
fn without_subscribers_an_event_is_not_built() {
    let publisher = Publisher::new(4);
    publisher.publish(|| unreachable!("nobody listens"));
    drop(publisher.subscribe());
    publisher.publish(|| unreachable!("nobody listens any more"));
}

#[tokio::test]
async fn every_subscriber_gets_every_event_from_its_beginning_on() {
    let publisher = Publisher::new(4);
    let mut first = publisher.subscribe();
    publisher.publish(|| event(1));
    let mut second = publisher.subscribe();
    publisher.publish(|| event(2));
    assert_eq!(first.recv().await, Some(Ok(event(1))));
    assert_eq!(first.recv().await, Some(Ok(event(2))));
    assert_eq!(second.recv().await, Some(Ok(event(2))));
    assert_eq!(second.try_recv(), None);
}

#[tokio::test]
async fn a_slow_reader_is_told_how_many_it_lost_and_goes_on() {
    let publisher = Publisher::new(4);
    let mut events = publisher.subscribe();
    for n in 0..10 {
        publisher.publish(|| event(n));
    }
    assert_eq!(events.recv().await, Some(Err(Lagged(6))));
    for n in 6..10 {
        assert_eq!(events.recv().await, Some(Ok(event(n))));
    }
}

#[tokio::test]
async fn the_end_comes_after_the_last_event() {
    let publisher = Publisher::new(4);
    let mut events = publisher.subscribe();
    publisher.publish(|| event(1));
    publisher.end();
    publisher.end();
    publisher.publish(|| event(2));
    assert_eq!(events.recv().await, Some(Ok(event(1))));
    assert_eq!(events.recv().await, None);
    assert_eq!(events.recv().await, None);
    assert_eq!(publisher.subscribe().recv().await, None, "after the end");
}

#[tokio::test]
async fn the_end_wakes_who_waits_also_when_the_pool_is_dropped() {
    for dropped in [false, true] {
        let publisher = Publisher::new(4);
        let mut events = publisher.subscribe();
        let mut waiting = Box::pin(events.recv());
        assert!(poll!(&mut waiting).is_pending());
        if dropped {
            drop(publisher);
        } else {
            publisher.end();
        }
        assert_eq!(waiting.await, None);
    }
}

#[tokio::test]
async fn a_cancelled_read_takes_nothing() {
    let publisher = Publisher::new(4);
    let mut events = publisher.subscribe();
    let mut waiting = Box::pin(events.recv());
    assert!(poll!(&mut waiting).is_pending());
    publisher.publish(|| event(1));
    drop(waiting);
    assert_eq!(events.recv().await, Some(Ok(event(1))));
}

#[test]
fn a_failed_dial_tells_its_sources_once_each() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let error = DialError::Connect {
        address: Address::Socket(([192, 0, 2, 1], 80).into()),
        source: Arc::new(refused),
    };
    let event = PoolEvent::dial_failed(peer(1), AttemptId::next(), &error, Duration::ZERO);
    let PoolEvent::DialFailed { cause, detail, .. } = event else {
        panic!("another event");
    };
    assert_eq!(cause, DialFailure::Connect);
    assert_eq!(detail, "connecting to 192.0.2.1:80 failed: connection refused");
}

#[cfg(feature = "serde")]
#[test]
fn json_names_the_event_and_its_units() {
    let event = PoolEvent::Opened {
        peer: peer(1),
        session: SessionId::next(),
        origin: Origin::Inbound,
        remote: None,
        handshake_time: Duration::from_millis(2),
    };
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!(json["event"], "opened");
    assert_eq!(json["origin"], "inbound");
    assert_eq!(json["handshake_time_ns"], 2_000_000);
    assert_eq!(json["peer"], peer(1).to_string());
    let back: PoolEvent = serde_json::from_value(json).unwrap();
    assert_eq!(back, event);
}
