//! Pools that speak the plain wire: what does not need an ability that it lacks holds there too.

use std::time::Duration;

use bytes::Bytes;

use crate::base::config::Config;
use crate::base::error::{CloseReason, DialError, HandshakeError, PingError};
use crate::base::identity::Identity;
use crate::pool::Pool;
use crate::pool::shutdown::Disconnect;
use crate::pool::target::Target;
use crate::session::Inbox;

const SECOND: Duration = Duration::from_secs(1);

fn pool_with(n: u8, config: Config) -> (Pool, Inbox) {
    let mut builder = Pool::builder(Identity::from_secret([n; 32])).config(config);
    builder.plain_wire = true;
    builder.build().unwrap()
}

fn pool(n: u8) -> (Pool, Inbox) {
    pool_with(n, Config::default())
}

async fn target(pool: &Pool) -> Target {
    Target::from((pool.id(), pool.listen("127.0.0.1:0".parse().unwrap()).await.unwrap()))
}

fn text(n: u32) -> Bytes {
    n.to_string().into()
}

#[tokio::test]
async fn many_callers_share_one_dial_and_messages_arrive_in_order() {
    let ((a, _a_inbox), (b, mut inbox)) = (pool(1), pool(2));
    let to_b = target(&b).await;
    let callers = (0..50).map(|_| a.get_or_dial(to_b.clone()));
    let leases: Vec<_> =
        futures_util::future::join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert!(leases.iter().all(|lease| lease.session_id() == leases[0].session_id()));
    assert_eq!((a.stats().dials, a.stats().dials_succeeded, b.stats().opened), (1, 1, 1));
    for n in 0..500 {
        leases[0].send(text(n)).await.unwrap();
    }
    for n in 0..500 {
        let message = inbox.recv().await.unwrap();
        assert_eq!((message.peer, message.body), (a.id(), text(n)));
    }
}

#[tokio::test]
async fn a_drain_writes_all_and_confirms_nothing() {
    let ((a, _a_inbox), (b, mut inbox)) = (pool(1), pool(2));
    let lease = a.get_or_dial(target(&b).await).await.unwrap();
    for n in 0..100 {
        lease.send(text(n)).await.unwrap();
    }
    drop(lease);
    let report = a.drain(10 * SECOND).await.messages;
    assert_eq!((report.accepted, report.delivered, report.unknown), (100, 0, 100));
    for n in 0..100 {
        assert_eq!(inbox.recv().await.unwrap().body, text(n));
    }
    b.close().await;
    assert!(inbox.recv().await.is_none());
}

#[tokio::test]
async fn there_is_no_ping_and_silence_is_not_death() {
    // Every timer that asks for signs of life has passed many times before the wait is over.
    let ms = Duration::from_millis(1);
    let config = Config::default().ping_after(ms).ping_timeout(ms).keepalive(3 * ms);
    let ((a, _a_inbox), (b, _inbox)) = (pool_with(1, config.clone()), pool_with(2, config));
    let to_b = target(&b).await;
    let lease = a.get_or_dial(to_b.clone()).await.unwrap();
    assert_eq!(lease.ping().await, Err(PingError::Unsupported));
    tokio::time::sleep(100 * ms).await;
    assert_eq!(a.get_or_dial(to_b).await.unwrap().session_id(), lease.session_id());
    assert_eq!((a.stats().ping_failed, b.stats().ping_failed), (0, 0));
}

#[tokio::test]
async fn crossing_dials_end_with_one_session_or_with_none_and_a_redial() {
    let mut crossed = 0;
    for round in 0..200_u32 {
        let ((a, mut a_inbox), (b, mut b_inbox)) = (pool(1), pool(2));
        let (to_a, to_b) = (target(&a).await, target(&b).await);
        let (ours, theirs) = tokio::join!(a.get_or_dial(to_b.clone()), b.get_or_dial(to_a.clone()));
        drop((ours, theirs));
        // Whatever became of the crossing, the next calls end with one session at both ends.
        let at_a = a.get_or_dial(to_b).await.unwrap();
        at_a.send(text(round)).await.unwrap();
        let heard_by_b = b_inbox.recv().await.unwrap();
        assert_eq!(heard_by_b.body, text(round));
        let at_b = b.get_or_dial(to_a).await.unwrap();
        assert_eq!(at_b.session_id(), heard_by_b.session, "round {round}");
        at_b.send(text(round)).await.unwrap();
        let heard_by_a = a_inbox.recv().await.unwrap();
        assert_eq!(heard_by_a.body, text(round));
        assert_eq!(at_a.session_id(), heard_by_a.session, "round {round}");
        crossed += a.stats().simultaneous_opens + b.stats().simultaneous_opens;
        drop((at_a, at_b));
        tokio::join!(a.close(), b.close());
    }
    assert!(crossed > 0, "no dials crossed");
}

#[tokio::test]
async fn a_peer_that_is_refused_or_not_the_one_that_was_dialled_gets_no_session() {
    // What is left of a failed handshake is discarded for up to that long.
    let quick = Config::default().message1_timeout(SECOND / 2).handshake_timeout(SECOND / 2);
    let ((a, _a_inbox), (b, _inbox)) = (pool(1), pool_with(2, quick));
    let to_b = target(&b).await;
    let address = b.local_addrs()[0];
    let stranger = Identity::from_secret([9; 32]).peer_id();
    let missed = a.get_or_dial((stranger, address)).await.unwrap_err();
    let no_answer = DialError::Handshake(HandshakeError::NoAnswer);
    assert_eq!(missed.cause().to_string(), no_answer.to_string());
    let lease = a.get_or_dial(to_b.clone()).await.unwrap();
    assert!(b.disconnect(&a.id(), Disconnect::now().refuse_for(60 * SECOND)));
    assert!(matches!(lease.closed().await, CloseReason::Truncated | CloseReason::Io(_)));
    let refused = a.get_or_dial(to_b).await.unwrap_err();
    assert!(matches!(refused.cause(), DialError::Handshake(_)), "{refused:?}");
}
