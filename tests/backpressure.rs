//! Backpressure: a peer that does not read costs a bounded amount and nobody else's time; an
//! application that does not read loses nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper may panic")]

mod support;

use std::collections::HashMap;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::SendErrorKind;
use noise_pool::snapshot::SessionState;
use noise_pool::{Config, Identity, Inbox, Lease, PeerId, Pool};
use support::net::Net;
use support::{identity, soon, until};
use tokio::time::{sleep, timeout};

const KIB: usize = 1024;
const SECOND: Duration = Duration::from_secs(1);

/// What a message costs besides its bytes.
const OVERHEAD: usize = 64;

/// Small bounds, so that little traffic reaches them.
fn small() -> Config {
    Config::default()
        .max_message_size(4 * KIB)
        .min_queue(16 * KIB)
        .max_queue(64 * KIB)
        .max_undelivered(16 * KIB)
        .inbox_bytes(64 * KIB)
}

/// A message that tells who sent it and when.
fn message(sender: usize, number: u64) -> Bytes {
    let mut body = vec![0; KIB];
    body[..8].copy_from_slice(&(sender as u64).to_be_bytes());
    body[8..16].copy_from_slice(&number.to_be_bytes());
    body.into()
}

fn told(body: &[u8]) -> (usize, u64) {
    let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    (number(0) as usize, number(8))
}

/// Sends until neither the queue nor what is behind it takes more; how many were accepted.
async fn stuff(lease: &Lease) -> u64 {
    let mut accepted = 0;
    loop {
        let before = accepted;
        while lease.try_send(message(0, accepted)).is_ok() {
            accepted += 1;
        }
        // Lets the tasks write and read what they can.
        sleep(Duration::from_millis(1)).await;
        if accepted == before {
            return accepted;
        }
    }
}

async fn lease(from: &Pool, to: &Pool) -> Lease {
    soon("a dial", from.get_or_dial(to.id())).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn three_hundred_peers_that_do_not_read_do_not_delay_the_one_that_does() {
    const STUCK: usize = 300;
    const BUDGET: usize = 2 * KIB * KIB;
    let net = Net::default();
    let (hub, _inbox) = net.pool(identity(0), small().max_buffered_bytes(BUDGET));
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        let (peer, inbox) = net.pool(Identity::generate(), small().inbox_bytes(16 * KIB));
        let lease = lease(&hub, &peer).await;
        let accepted = stuff(&lease).await;
        stuck.push((peer, inbox, lease, accepted));
    }
    // And somebody waits for room at each of them, in the line for the budget too.
    let waiting: Vec<_> = stuck
        .iter()
        .map(|(peer, _, _, accepted)| {
            let (hub, peer, body) = (hub.clone(), peer.id(), message(0, *accepted));
            tokio::spawn(async move { hub.get(&peer).unwrap().send(body).await })
        })
        .collect();
    sleep(SECOND).await;
    assert!(waiting.iter().all(|send| !send.is_finished()));

    let (healthy, mut inbox) = net.pool(identity(1), small());
    let lease = lease(&hub, &healthy).await;
    for round in 0..500 {
        // As much at once as the session's own reserve holds.
        for n in 0..(16 * KIB / (KIB + OVERHEAD)) as u64 {
            let mut send = Box::pin(lease.send(message(1, 100 * round + n)));
            assert!(
                matches!(futures_util::poll!(&mut send), Poll::Ready(Ok(()))),
                "a send to the healthy peer had to wait"
            );
        }
        for n in 0..(16 * KIB / (KIB + OVERHEAD)) as u64 {
            let got = soon("a message", inbox.recv()).await.unwrap();
            assert_eq!(told(&got.body), (1, 100 * round + n));
        }
    }

    let snapshot = hub.snapshot();
    let budget = snapshot.limits.buffered_bytes;
    assert!(budget.high_water <= BUDGET as u64, "{budget:?}");
    assert!(budget.held > (BUDGET - 64 * KIB) as u64, "the budget was not used up: {budget:?}");
    let queued: u64 = snapshot.sessions.iter().map(|session| session.queue_bytes).sum();
    assert!(queued <= (BUDGET + (STUCK + 1) * 16 * KIB) as u64, "{queued} bytes queued");
    assert!(snapshot.sessions.iter().all(|session| session.queue_bytes <= 64 * KIB as u64));
    assert_eq!(snapshot.stats.closed, 0);

    // They read at last: everything that was accepted arrives, and nobody waits any more.
    for (_, inbox, _, accepted) in &mut stuck {
        for n in 0..=*accepted {
            let got = soon("what was accepted", inbox.recv()).await.unwrap();
            assert_eq!(told(&got.body), (0, n));
        }
    }
    for send in waiting {
        soon("a send that waited", send).await.unwrap().unwrap();
    }
    until("the budget is given back", || hub.snapshot().limits.buffered_bytes.held == 0).await;
}

/// Reads `count` messages of one peer, and finds them whole and in order.
async fn read_all(inbox: &mut Inbox, peer: PeerId, count: u64) {
    for n in 0..count {
        let got = soon("a message", inbox.recv()).await.unwrap();
        assert_eq!((got.peer, told(&got.body)), (peer, (0, n)));
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs keep-alives")]
async fn an_application_that_does_not_read_for_long_loses_neither_session_nor_message() {
    const COUNT: u64 = 1_000;
    // Ten times `keepalive`: twice `max_idle`, so the sessions must not pass for idle either.
    const LONG: Duration = Duration::from_secs(600);
    for both_ways in [false, true] {
        for leased in [false, true] {
            let net = Net::default();
            let (a, mut in_a) = net.pool(identity(1), small());
            let (b, mut in_b) = net.pool(identity(2), small());
            let session = lease(&a, &b).await.session_id();
            let send = |from: &Pool, to: PeerId| {
                let (from, lease) = (from.clone(), from.get(&to).filter(|_| leased));
                tokio::spawn(async move {
                    let mut sent = 0;
                    // Without a lease, as much as fits: what is queued must keep the session alive.
                    while sent < COUNT {
                        match &lease {
                            Some(lease) => lease.send(message(0, sent)).await.unwrap(),
                            None => {
                                let send = from.send(to, message(0, sent));
                                if timeout(SECOND, send).await.is_err() {
                                    break;
                                }
                            }
                        }
                        sent += 1;
                    }
                    sent
                })
            };
            until("both sides have it", || b.contains(&a.id())).await;
            let from_a = send(&a, b.id());
            let from_b = both_ways.then(|| send(&b, a.id()));
            sleep(LONG).await;
            for pool in [&a, &b] {
                let snapshot = pool.snapshot();
                assert_eq!(
                    (snapshot.stats.opened, snapshot.stats.closed),
                    (1, 0),
                    "{both_ways} {leased}"
                );
                assert_eq!(snapshot.sessions[0].state, SessionState::Ready, "{both_ways} {leased}");
            }
            assert_eq!(a.snapshot().sessions[0].session, session);
            if leased {
                assert!(!from_a.is_finished(), "the bounds are too wide for this test");
            }
            let (id_a, id_b) = (a.id(), b.id());
            let reading_b = tokio::spawn(async move {
                let sent = if leased { COUNT } else { from_a.await.unwrap() };
                assert!(sent > 50);
                read_all(&mut in_b, id_a, sent).await;
                in_b
            });
            let reading_a = tokio::spawn(async move {
                if let Some(from_b) = from_b {
                    let sent = if leased { COUNT } else { from_b.await.unwrap() };
                    read_all(&mut in_a, id_b, sent).await;
                }
                in_a
            });
            let _inboxes = (
                soon("b reads", reading_b).await.unwrap(),
                soon("a reads", reading_a).await.unwrap(),
            );
            assert_eq!(a.stats().dials, 1);
            assert_eq!((a.stats().closed, b.stats().closed), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn peers_that_flood_do_not_starve_the_others() {
    const FLOODS: usize = 8;
    const QUIET: usize = 8;
    // Eight floods of 16 KiB each find no room together.
    const INBOX: usize = 64 * KIB;
    let net = Net::default();
    let (hub, mut inbox) = net.pool(identity(0), small().inbox_bytes(INBOX));
    let mut floods = Vec::new();
    for n in 0..FLOODS {
        let (peer, inbox) = net.pool(identity(1 + n as u8), small());
        let lease = lease(&peer, &hub).await;
        floods.push(tokio::spawn(async move {
            let mut sent = 0;
            while lease.send(message(n, sent)).await.is_ok() {
                sent += 1;
            }
            drop((peer, inbox));
        }));
    }
    let mut quiet = Vec::new();
    for n in 0..QUIET {
        let (peer, inbox) = net.pool(identity(100 + n as u8), small());
        let lease = lease(&peer, &hub).await;
        quiet.push((peer, inbox, lease));
    }
    sleep(SECOND).await;

    let mut taken = vec![0_u64; FLOODS];
    for round in 0..20 {
        for (n, (.., lease)) in quiet.iter().enumerate() {
            lease.send(message(FLOODS + n, round)).await.unwrap();
        }
        // The application is slow: it takes a message a millisecond.
        let (mut heard, mut reads) = (0, 0);
        while heard < QUIET {
            sleep(Duration::from_millis(1)).await;
            let got = soon("a message", inbox.recv()).await.unwrap();
            reads += 1;
            match told(&got.body) {
                (n, number) if n >= FLOODS => {
                    assert_eq!(number, round);
                    heard += 1;
                }
                (n, number) => {
                    assert_eq!(number, taken[n], "in order");
                    taken[n] += 1;
                }
            }
        }
        // What is in the inbox already, and what those before them in the line may add: a share each.
        let max = (INBOX + (FLOODS + QUIET) * 16 * KIB) / (KIB + OVERHEAD);
        assert!(reads <= max, "{reads} messages were before those of the quiet peers");
    }
    let (min, max) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
    assert!(max <= &(2 * min + 32), "the floods have not had like shares: {taken:?}");
    assert!(hub.snapshot().limits.inbox_bytes.high_water <= INBOX as u64);
    floods.iter().for_each(|flood| flood.abort());
}

#[tokio::test(start_paused = true)]
async fn without_an_inbox_messages_are_discarded_and_counted_and_senders_go_on() {
    let net = Net::default();
    let (a, _in_a) = net.pool(identity(1), small());
    let (b, mut inbox) = net.pool(identity(2), small());
    let lease = lease(&a, &b).await;
    let accepted = stuff(&lease).await;
    for n in 0..10 {
        assert_eq!(told(&soon("a message", inbox.recv()).await.unwrap().body), (0, n));
    }
    drop(inbox);
    for n in 0..1_000 {
        soon("a send to nobody", lease.send(message(0, accepted + n))).await.unwrap();
    }
    soon("all is written", lease.flush()).await.unwrap();
    let all = accepted + 1_000;
    until("all are counted", || b.stats().messages_discarded == all - 10).await;
    assert_eq!(b.stats().messages_in, all);
    let inbox = b.snapshot().limits.inbox_bytes;
    assert_eq!(inbox.held, 0);
    assert_eq!((a.stats().closed, b.stats().closed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn sends_that_are_dropped_while_they_wait_send_nothing_and_block_nobody() {
    const WAITING: u64 = 60;
    let net = Net::default();
    let (a, _in_a) = net.pool(identity(1), small());
    let (b, mut inbox) = net.pool(identity(2), small());
    let lease = lease(&a, &b).await;
    let accepted = stuff(&lease).await;
    let mut sends: Vec<_> =
        (0..WAITING).map(|n| Some(Box::pin(lease.send(message(1, n))))).collect();
    for send in sends.iter_mut().flatten() {
        assert!(futures_util::poll!(send).is_pending());
    }
    // Nobody passes those who wait.
    let error = lease.try_send(message(2, 0)).unwrap_err();
    assert_eq!((error.kind, told(&error.message)), (SendErrorKind::Full, (2, 0)));
    // The head of the line goes first, then some from the middle; some when room is on its way.
    for n in (0..WAITING as usize).filter(|n| n % 3 == 0) {
        sends[n] = None;
    }
    for n in 0..20 {
        assert_eq!(told(&soon("a message", inbox.recv()).await.unwrap().body), (0, n));
    }
    sleep(SECOND).await;
    for n in (0..WAITING as usize).filter(|n| n % 3 == 1) {
        sends[n] = None;
    }
    let left: Vec<_> = sends.into_iter().flatten().collect();
    let reading = tokio::spawn(async move {
        for n in 20..accepted {
            assert_eq!(told(&soon("a message", inbox.recv()).await.unwrap().body), (0, n));
        }
        for n in (0..WAITING).filter(|n| n % 3 == 2) {
            assert_eq!(told(&soon("a message", inbox.recv()).await.unwrap().body), (1, n));
        }
        sleep(SECOND).await;
        assert!(inbox.try_recv().is_none(), "a send that was dropped was sent");
    });
    for send in futures_util::future::join_all(left).await {
        send.unwrap();
    }
    soon("the reader", reading).await.unwrap();
    assert_eq!(a.snapshot().sessions[0].queue_bytes, 0);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs messages of many frames")]
async fn large_and_small_messages_keep_their_order() {
    const COUNT: usize = 40;
    let net = Net::default();
    let (a, _in_a) = net.pool(identity(1), Config::default());
    let (b, mut inbox) = net.pool(identity(2), Config::default());
    let lease = lease(&a, &b).await;
    // Each with its own content, of its own length.
    let body = |n: usize| {
        let len = if n % 4 == 1 { KIB * KIB } else { 7 * n };
        Bytes::from((0..len).map(|at| (at + at / 251 + n) as u8).collect::<Vec<_>>())
    };
    let sending = tokio::spawn(async move {
        for n in 0..COUNT {
            lease.send(body(n)).await.unwrap();
        }
        lease.flush().await.unwrap();
    });
    for n in 0..COUNT {
        let got = soon("a message", inbox.recv()).await.unwrap();
        assert!(got.body == body(n), "message {n} of {} bytes differs", got.body.len());
    }
    soon("the sender", sending).await.unwrap();
    drop((a, b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_senders_share_one_session_each_in_its_own_order() {
    const SENDERS: usize = 1_000;
    const EACH: u64 = 20;
    let net = Net::default();
    let (a, _in_a) = net.pool(identity(1), small());
    let (b, mut inbox) = net.pool(identity(2), small());
    let first = lease(&a, &b).await;
    let tasks: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let lease = first.try_clone().unwrap();
            tokio::spawn(async move {
                for n in 0..EACH {
                    lease.send(message(sender, n)).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = HashMap::new();
    for _ in 0..SENDERS as u64 * EACH {
        let got = soon("a message", inbox.recv()).await.unwrap();
        let (sender, number) = told(&got.body);
        let expected = next.entry(sender).or_insert(0);
        assert_eq!(number, *expected, "sender {sender}");
        *expected += 1;
    }
    for task in tasks {
        soon("a sender", task).await.unwrap();
    }
    assert!(inbox.try_recv().is_none());
    assert_eq!((a.stats().dials, a.stats().closed), (1, 0));
    drop(first);
}
