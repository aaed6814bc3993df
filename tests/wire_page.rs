//! The wire as `docs/wire.md` tells it: a peer made from the page alone can talk with a pool.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::Suite;
use noise_pool::error::{CloseReason, GoodbyeReason};
use noise_pool::event::PoolEvent;
use noise_pool::snapshot::SessionReport;
use noise_pool::{Config, Disconnect, Inbox, Lease, Pool, Role, Target};
use support::raw::{self, Raw, Session};
use support::{identity, soon};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

/// What the other side says of itself.
fn speaker(suite: &'static str) -> Raw {
    Raw {
        suite,
        network_id: b"overlay".to_vec(),
        payload: b"raw's own".to_vec(),
        max_message: 100_000,
        ..Raw::new(2)
    }
}

fn config(suite: Suite) -> Config {
    raw::config()
        .suite(suite)
        .network_id(b"overlay".to_vec())
        .application_payload(Bytes::from_static(b"pool's own"))
}

const SUITES: [(Suite, &str); 2] =
    [(Suite::ChaChaPolyBlake2s, raw::CHACHA), (Suite::AesGcmSha256, raw::AES)];

/// Talks over every kind of record, and ends the session from the raw side.
async fn converse(
    raw: &mut Session<DuplexStream>,
    lease: Lease,
    pool: &Pool,
    inbox: &mut Inbox,
) -> SessionReport {
    let mut events = pool.subscribe();
    assert_eq!(lease.handshake_hash(), &raw.hash);
    assert_eq!(raw.peer, pool.id().as_bytes());
    assert_eq!(&lease.peer_payload()[..], b"raw's own");

    // Both ways: whole messages, and one in fragments with a ping between.
    lease.send(Bytes::from_static(b"from the pool")).await.unwrap();
    assert_eq!(raw.hear_one(raw::DATA).await, b"from the pool");
    raw.say(&[raw::data(b"one"), raw::data(b""), raw::fragment(3, b"ab")].concat()).await;
    raw.say(&raw::ping(77)).await;
    assert_eq!(raw.hear_one(raw::PONG).await, 77_u64.to_be_bytes());
    raw.say(&[raw::fragment(1, b"cd"), raw::record(0xc3, b"?"), raw::fragment(0, b"e")].concat())
        .await;
    for expected in [&b"one"[..], b"", b"abcde"] {
        assert_eq!(soon("a message", inbox.recv()).await.unwrap().body, expected);
    }
    let long = Bytes::from(vec![5; 100_000]);
    assert!(lease.send(vec![5; 100_001].into()).await.is_err(), "over the raw peer's limit");
    lease.send(long.clone()).await.unwrap();
    let mut whole = Vec::new();
    while whole.len() < long.len() {
        let body = raw.hear_one(raw::FRAGMENT).await;
        let (remaining, part) = body.split_first_chunk().unwrap();
        whole.extend_from_slice(part);
        assert_eq!(u32::from_be_bytes(*remaining) as usize, long.len() - whole.len());
    }
    assert_eq!(whole, long);

    // A pool's ping, and keys that change.
    let pinged = tokio::spawn(async move { lease.ping().await });
    let nonce = raw.hear_one(raw::PING).await;
    raw.say(&raw::record(raw::PONG, &nonce)).await;
    pinged.await.unwrap().unwrap();
    for n in 0..3 {
        raw.say(&[raw::data(&[n]), raw::record(raw::REKEY, b"")].concat()).await;
        raw.noise.rekey_outgoing();
        raw.say(&raw::data(&[n])).await;
        for _ in 0..2 {
            assert_eq!(soon("a message", inbox.recv()).await.unwrap().body, [n][..]);
        }
    }

    assert_eq!(pool.snapshot().sessions[0].rekeys, 3, "the peer's count as well");

    // The end, in order.
    raw.say(&raw::record(raw::DRAIN, b"")).await;
    let mut said = Vec::new();
    while let Some(records) = soon("the answer", raw.hear()).await {
        said.extend(records);
    }
    let received = [&[0][..], &9_u64.to_be_bytes()].concat();
    assert_eq!(said, [(raw::DRAIN, vec![]), (raw::GOODBYE, received)]);
    raw.say(&raw::goodbye(6, 2)).await;
    raw.stream.shutdown().await.unwrap();
    loop {
        let event = soon("the end", events.recv()).await.unwrap().unwrap();
        if let PoolEvent::Closed { reason, report, .. } = event {
            assert_eq!(reason, CloseReason::Peer(GoodbyeReason::Shutdown));
            return report;
        }
    }
}

/// Both of ours delivered, nine received.
fn report() -> SessionReport {
    let mut report = SessionReport::default();
    (report.accepted, report.delivered, report.received) = (2, 2, 9);
    report
}

#[tokio::test]
async fn a_peer_made_from_the_page_dials_a_pool() {
    for (suite, name) in SUITES {
        let (pool, mut inbox) = Pool::builder(identity(1)).config(config(suite)).build().unwrap();
        let (near, far) = duplex(1 << 18);
        let adopting = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.adopt(far, Role::Responder).await })
        };
        let mut raw = speaker(name).initiate(near, &pool.id()).await;
        assert_eq!((raw.hello.minor, raw.hello.time), (0, raw::NOW));
        assert_eq!(raw.hello.max_message, 1 << 20);
        let verdict = soon("the verdict", raw.hear()).await.unwrap();
        let [(raw::VERDICT, body)] = &verdict[..] else { panic!("one verdict: {verdict:?}") };
        assert_eq!(body[0], 0, "accepted");
        assert_eq!(&body[9..], b"\0pool's own", "no address, then the payload");
        let lease = adopting.await.unwrap().unwrap();
        assert_eq!(converse(&mut raw, lease, &pool, &mut inbox).await, report());
    }
}

#[tokio::test]
async fn a_pool_dials_a_peer_made_from_the_page() {
    for (suite, name) in SUITES {
        let (pool, mut inbox) = Pool::builder(identity(1)).config(config(suite)).build().unwrap();
        let (near, far) = duplex(1 << 18);
        let speaker = speaker(name);
        let dialling = {
            let (pool, target) = (pool.clone(), Target::new(speaker.id()));
            tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await })
        };
        let mut raw = speaker.respond(far).await;
        assert_eq!((raw.hello.minor, raw.hello.max_message), (0, 1 << 20));
        assert_eq!(raw.hello.payload, b"pool's own");
        raw.say(&raw::accept(5, "192.0.2.1:4000", b"raw's own")).await;
        let lease = soon("the dial", dialling).await.unwrap().unwrap();
        assert_eq!(converse(&mut raw, lease, &pool, &mut inbox).await, report());
    }
}

#[tokio::test]
async fn the_pool_drains_and_rekeys_as_the_page_says() {
    let config = config(Suite::default()).rekey_after_bytes(1000);
    let (pool, _inbox) = Pool::builder(identity(1)).config(config).build().unwrap();
    let (near, far) = duplex(1 << 18);
    let adopting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.adopt(far, Role::Responder).await })
    };
    let mut raw = speaker(raw::CHACHA).open(near, &pool.id()).await;
    let lease = adopting.await.unwrap().unwrap();
    let (mut messages, mut rekeys) = (0, 0);
    for n in 0..20_u8 {
        lease.send(vec![n; 500].into()).await.unwrap();
        let records = soon("a frame", raw.hear()).await.unwrap();
        for (at, (kind, _)) in records.iter().enumerate() {
            match *kind {
                raw::DATA => messages += 1,
                raw::REKEY => {
                    assert_eq!(at + 1, records.len(), "the last of its frame");
                    raw.noise.rekey_incoming();
                    rekeys += 1;
                }
                kind => panic!("a record of type {kind}"),
            }
        }
    }
    assert_eq!(messages, 20);
    assert!((6..=10).contains(&rekeys), "every two or three frames: {rekeys}");

    drop(lease);
    pool.disconnect(&speaker(raw::CHACHA).id(), Disconnect::drain());
    assert_eq!(soon("the drain", raw.hear_one(raw::DRAIN)).await, b"");
    raw.say(&[raw::data(b"last"), raw::record(raw::DRAIN, b"")].concat()).await;
    let goodbye = soon("the goodbye", raw.hear_one(raw::GOODBYE)).await;
    assert_eq!(goodbye, [&[5][..], &1_u64.to_be_bytes()].concat());
    assert!(soon("the end", raw.hear()).await.is_none(), "half-closed after its goodbye");
    raw.say(&raw::goodbye(0, 20)).await;
    drop(raw);
    let report = soon("the end", pool.drain(Duration::from_secs(5))).await;
    assert_eq!(report.messages.unknown, 0);
}

#[tokio::test]
async fn a_later_minor_version_may_add_to_its_handshake() {
    for (more, understood) in [(0, true), (256, true), (257, false)] {
        let (pool, _inbox) = Pool::builder(identity(1)).config(raw::config()).build().unwrap();
        let later = Raw { minor: 3, more: vec![9; more], ..Raw::new(2) };

        let (near, far) = duplex(1 << 16);
        let adopting = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.adopt(far, Role::Responder).await.map(drop) })
        };
        let session = later.initiate(near, &pool.id()).await;
        let adopted = soon("the handshake", adopting).await.unwrap();
        assert_eq!(adopted.is_ok(), understood, "message 3 with {more}: {adopted:?}");
        drop(session);

        let other = Raw { minor: 3, more: vec![9; more], ..Raw::new(3) };
        let (near, far) = duplex(1 << 16);
        let answering = tokio::spawn({
            let other = other.clone();
            async move {
                let mut far = far;
                let message1 = raw::prefixed(&mut far).await.unwrap();
                let (mut handshake, message2) = other.message2(&message1);
                far.write_all(&message2).await.unwrap();
                let message3 = raw::prefixed(&mut far).await?;
                handshake.read(&message3);
                Some(())
            }
        });
        let dialling = {
            let (pool, target) = (pool.clone(), Target::new(other.id()));
            tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await })
        };
        let committed = soon("message 3", answering).await.unwrap().is_some();
        assert_eq!(committed, understood, "message 2 with {more}");
        dialling.abort();
    }
}
