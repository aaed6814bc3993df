//! A peer that has authenticated and then keeps no rule: bounded in bytes and time, and named.
//!
//! The hostile side is made from `docs/wire.md` (`support::raw`). Everything runs in memory under
//! paused time, so that bounds in time are exact.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::{
    AdoptError, CloseReason, DialError, GoodbyeReason, HandshakeError, ProtocolError, RejectReason,
    Retry, SendErrorKind,
};
use noise_pool::event::{DialFailure, Events, PoolEvent, RejectedBy};
use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::snapshot::{SessionReport, SessionSnapshot};
use noise_pool::{Address, Config, Connector, Disconnect, Inbox, Lease, Pool, Role, Target};
use support::raw::{self, Raw, Session, config};
use support::{identity, soon};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);
const KIB: usize = 1024;

/// A frame of the greatest size, with its length.
const FRAME: usize = 65_537;

type Hostile = Session<DuplexStream>;

/// A pool, and what it tells.
struct Victim {
    pool: Pool,
    inbox: Inbox,
    events: Events,
}

impl Victim {
    fn new(config: Config) -> Self {
        let (pool, inbox) = Pool::builder(identity(1)).config(config).build().unwrap();
        let events = pool.subscribe();
        Self { pool, inbox, events }
    }

    /// A session that the hostile peer has dialled, over a pipe of so many bytes each way.
    async fn dialled_by(&self, raw: &Raw, pipe: usize) -> Hostile {
        let (near, far) = duplex(pipe);
        let pool = self.pool.clone();
        let adopting = tokio::spawn(async move { pool.adopt(far, Role::Responder).await.is_ok() });
        let session = raw.open(near, &self.pool.id()).await;
        assert!(soon("the session", adopting).await.unwrap());
        session
    }

    /// A session that the pool has dialled, and a lease on it.
    async fn dials(&self, raw: &Raw, pipe: usize) -> (Hostile, Lease) {
        let (near, far) = duplex(pipe);
        let (pool, target) = (self.pool.clone(), Target::new(raw.id()));
        let dialling =
            tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await });
        let session = raw.accept(far).await;
        (session, soon("the dial", dialling).await.unwrap().unwrap())
    }

    /// Why the next session ends.
    async fn closed(&mut self) -> (CloseReason, SessionReport) {
        loop {
            if let PoolEvent::Closed { reason, report, .. } = self.event().await {
                return (reason, report);
            }
        }
    }

    async fn event(&mut self) -> PoolEvent {
        // Far beyond every bound that is tested, so that a missing end is a failure and no hang.
        let next = timeout(7200 * SECOND, self.events.recv()).await;
        next.expect("an event").unwrap().unwrap()
    }

    /// The one session that there is.
    fn session(&self) -> SessionSnapshot {
        let mut sessions = self.pool.snapshot().sessions;
        assert_eq!(sessions.len(), 1);
        sessions.remove(0)
    }

    fn is_empty(&self) -> bool {
        let snapshot = self.pool.snapshot();
        snapshot.sessions.is_empty() && snapshot.dials.is_empty() && self.pool.peers().is_empty()
    }
}

fn out_of_place(kind: u8) -> ProtocolError {
    ProtocolError::OutOfPlace(kind)
}

// ---- what may not be said -----------------------------------------------------------------------

/// The largest message that the victim of these tests takes.
const LIMIT: u32 = 10_000;

/// Records that may not be said in the first frames of a session, and the reason that names them.
fn violations() -> Vec<(Vec<u8>, ProtocolError)> {
    use ProtocolError::*;
    use raw::{data, fragment, goodbye, ping, pong, record};

    let drain = || record(raw::DRAIN, b"");
    let mut violations = vec![
        // Records that are none.
        (vec![raw::DATA], RecordLength),
        (vec![raw::DATA, 0], RecordLength),
        (vec![raw::DATA, 0, 2, 9], RecordLength),
        (vec![raw::DATA, 0xff, 0xff, 9], RecordLength),
        (record(raw::FRAGMENT, &[0, 0, 0, 1]), RecordForm(raw::FRAGMENT)),
        (record(raw::PING, &[0; 7]), RecordForm(raw::PING)),
        (record(raw::PONG, &[0; 9]), RecordForm(raw::PONG)),
        (record(raw::KEEP_ALIVE, b"?"), RecordForm(raw::KEEP_ALIVE)),
        (record(raw::REKEY, b"?"), RecordForm(raw::REKEY)),
        (record(raw::DRAIN, b"?"), RecordForm(raw::DRAIN)),
        (record(raw::GOODBYE, &[0; 8]), RecordForm(raw::GOODBYE)),
        // Messages and fragments.
        (data(&[0; LIMIT as usize + 1]), MessageTooLarge(LIMIT + 1)),
        (fragment(LIMIT, b"x"), MessageTooLarge(LIMIT + 1)),
        (fragment(u32::MAX - 1, b"x"), MessageTooLarge(u32::MAX)),
        (fragment(u32::MAX, &[0; 500]), MessageTooLarge(u32::MAX)),
        ([fragment(9, b"a"), fragment(9, b"b")].concat(), FragmentOrder),
        ([fragment(9, b"a"), fragment(7, b"b")].concat(), FragmentOrder),
        ([fragment(1, b"a"), fragment(0, b"bc")].concat(), FragmentOrder),
        ([fragment(9, b"a"), fragment(u32::MAX, b"b")].concat(), FragmentOrder),
        ([fragment(9, b"a"), data(b"b")].concat(), FragmentOrder),
        ([fragment(9, b"a"), drain()].concat(), FragmentOrder),
        // Life signs.
        ((0..11).flat_map(ping).collect(), PingFlood),
        (pong(1), UnknownPong),
        // Out of place.
        (raw::accept(9, "", b""), out_of_place(raw::VERDICT)),
        (raw::reject(1, 0), out_of_place(raw::VERDICT)),
        (goodbye(0, 0), out_of_place(raw::GOODBYE)),
        ([drain(), goodbye(5, 0)].concat(), out_of_place(raw::GOODBYE)),
        ([drain(), data(b"x")].concat(), out_of_place(raw::DATA)),
        ([drain(), fragment(0, b"x")].concat(), out_of_place(raw::FRAGMENT)),
        ([drain(), ping(1)].concat(), out_of_place(raw::PING)),
        ([drain(), record(raw::KEEP_ALIVE, b"")].concat(), out_of_place(raw::KEEP_ALIVE)),
        ([drain(), drain()].concat(), out_of_place(raw::DRAIN)),
        ([drain(), record(0x80, b"")].concat(), out_of_place(0x80)),
        ([record(raw::REKEY, b""), data(b"x")].concat(), out_of_place(raw::REKEY)),
    ];
    for kind in [0x00].into_iter().chain(0x0a..0x80) {
        violations.push((record(kind, b"?"), UnknownRecord(kind)));
    }
    violations
}

/// Says one thing that may be said, then `bytes`, and sees how it ends: at once, and in silence.
async fn offend(victim: &mut Victim, mut hostile: Hostile, bytes: &[u8], why: ProtocolError) {
    let began = Instant::now();
    hostile.stream.write_all(bytes).await.unwrap();
    let (reason, report) = victim.closed().await;
    assert_eq!(reason, CloseReason::Protocol(why));
    assert_eq!(report.received, 1, "{why}: nothing of the bad frame counts");
    let kept = victim.inbox.try_recv().expect("what came before stays delivered");
    assert_eq!(kept.body, &b"before"[..]);
    assert!(victim.inbox.try_recv().is_none(), "{why}: nothing of the bad frame is delivered");
    assert_eq!(hostile.rest().await, 0, "{why}: closed without a word");
    assert_eq!(began.elapsed(), Duration::ZERO, "{why}: at once");
    assert!(victim.is_empty(), "{why}");
}

#[tokio::test(start_paused = true)]
async fn every_offence_ends_the_session_at_once_and_has_its_name() {
    let mut victim = Victim::new(config().max_message_size(LIMIT as usize));
    for (records, why) in violations() {
        let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
        hostile.say(&raw::data(b"before")).await;
        // Behind a message that is in order, in the same frame: it must not come through.
        let frame = hostile.frame(&[raw::data(b"beside"), records].concat());
        offend(&mut victim, hostile, &frame, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hostile_responder_fares_no_better() {
    let mut victim = Victim::new(config().max_message_size(LIMIT as usize));
    for (records, why) in violations() {
        let (mut hostile, lease) = victim.dials(&Raw::new(2), 1 << 17).await;
        hostile.say(&raw::data(b"before")).await;
        let frame = hostile.frame(&[raw::data(b"beside"), records].concat());
        offend(&mut victim, hostile, &frame, why).await;
        let error = lease.try_send(Bytes::from_static(b"too late")).unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Closed(CloseReason::Protocol(why)));
        assert_eq!(error.message, &b"too late"[..]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_too_short_to_be_one_ends_the_session_at_its_length() {
    let mut victim = Victim::new(config());
    for length in 0..=16_u16 {
        let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
        hostile.say(&raw::data(b"before")).await;
        let why = ProtocolError::FrameLength(length);
        offend(&mut victim, hostile, &length.to_be_bytes(), why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_was_changed_repeated_or_left_out_does_not_verify() {
    let mut victim = Victim::new(config());
    for case in 0..5 {
        let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
        let before = hostile.frame(&raw::data(b"before"));
        hostile.stream.write_all(&before).await.unwrap();
        let mut frame = hostile.frame(&raw::data(b"changed"));
        let last = frame.len() - 1;
        match case {
            0 => frame[2] ^= 1,
            1 => frame[last] ^= 0x80,
            2 => frame = before,
            3 => frame = hostile.frame(&raw::data(b"the one before is missing")),
            _ => {
                // A length that was made one less: the tag is in another place.
                frame[1] -= 1;
                frame.truncate(last);
            }
        }
        offend(&mut victim, hostile, &frame, ProtocolError::Decrypt).await;
    }

    // The old key, after a rekey was announced.
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    hostile.say(&[raw::data(b"before"), raw::record(raw::REKEY, b"")].concat()).await;
    let frame = hostile.frame(&raw::data(b"under the old key"));
    offend(&mut victim, hostile, &frame, ProtocolError::Decrypt).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_at_any_byte_is_truncated_and_loses_nothing_that_was_whole() {
    let mut victim = Victim::new(config());
    for half_close in [true, false] {
        for cut in 0..26 {
            let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
            hostile.say(&raw::data(b"before")).await;
            let frame = hostile.frame(&raw::data(b"after"));
            assert_eq!(frame.len(), 26);
            hostile.stream.write_all(&frame[..cut]).await.unwrap();
            if half_close {
                hostile.stream.shutdown().await.unwrap();
                let (reason, report) = victim.closed().await;
                assert_eq!((reason, report.received), (CloseReason::Truncated, 1), "at {cut}");
                assert_eq!(hostile.rest().await, 0);
            } else {
                drop(hostile);
                let (reason, report) = victim.closed().await;
                assert_eq!((reason, report.received), (CloseReason::Truncated, 1), "at {cut}");
            }
            assert_eq!(victim.inbox.try_recv().unwrap().body, &b"before"[..]);
            assert!(victim.inbox.try_recv().is_none() && victim.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_of_later_versions_are_skipped_and_what_is_around_them_is_not() {
    let mut victim = Victim::new(config());
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    for kind in 0x80..=0xff {
        let around = [&raw::data(&[kind])[..], &raw::record(kind, &[1; 300]), &raw::ping(1)];
        hostile.say(&around.concat()).await;
        assert_eq!(hostile.hear_one(raw::PONG).await, 1_u64.to_be_bytes());
        assert_eq!(victim.inbox.try_recv().unwrap().body, [kind][..]);
        // Within the bound on pings.
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!(victim.session().messages_in, 128);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_wait_for_the_verdict_with_what_is_no_message_gets_none() {
    let mut victim = Victim::new(config());
    let early = [raw::ping(1), raw::record(0x80, b""), raw::record(7, b"")];
    for (n, records) in early.iter().enumerate() {
        let raw = Raw::new(2);
        let (mut near, far) = duplex(1 << 17);
        let pool = victim.pool.clone();
        let adopting = tokio::spawn(async move { pool.adopt(far, Role::Responder).await });
        let (mut handshake, message1) = raw.message1(&victim.pool.id());
        near.write_all(&message1).await.unwrap();
        handshake.read(&raw::prefixed(&mut near).await.unwrap());
        let message3 = raw.message3(&mut handshake);
        let mut hostile = handshake.finish(near, raw::Hello::default());
        let frame = hostile.frame(records);
        hostile.stream.write_all(&[message3, frame].concat()).await.unwrap();
        let (reason, report) = victim.closed().await;
        assert_eq!(reason, CloseReason::Protocol(out_of_place(records[0])));
        assert_eq!(report.received, 0);
        assert_eq!(hostile.rest().await, 0, "no verdict either");
        // Whether the lease came before the end or not, there is none now.
        match soon("the adoption", adopting).await.unwrap() {
            Ok(lease) => assert_eq!(lease.closed().await, reason),
            Err(AdoptError::Dial(DialError::SessionEnded(ended))) => assert_eq!(ended, reason),
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(victim.pool.stats().dials, 0, "a peer that comes and goes is not dialled");
        assert_eq!(victim.pool.stats().opened, n as u64 + 1);
    }
}

// ---- life signs ---------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn pings_within_the_bound_are_answered_for_ever_and_one_more_ends_the_session() {
    let mut victim = Victim::new(config());
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    for burst in 0..20 {
        for n in 0..10 {
            hostile.say(&raw::ping(burst * 10 + n)).await;
        }
        // They may share a frame.
        let mut pongs = Vec::new();
        while pongs.len() < 10 {
            pongs.extend(soon("pongs", hostile.hear()).await.unwrap());
        }
        let expected = |n: u64| (raw::PONG, (burst * 10 + n).to_be_bytes().to_vec());
        assert_eq!(pongs, (0..10).map(expected).collect::<Vec<_>>());
        tokio::time::sleep(SECOND).await;
    }
    for n in 0..11 {
        hostile.try_say(&raw::ping(n)).await.unwrap();
    }
    let (reason, _) = victim.closed().await;
    assert_eq!(reason, CloseReason::Protocol(ProtocolError::PingFlood));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_given_up() {
    let mut victim = Victim::new(config());
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    let began = Instant::now();
    let task = tokio::spawn(async move {
        let kinds = hostile.hear().await.map(|records| records[0].0);
        (kinds, hostile.rest().await)
    });
    let (reason, report) = victim.closed().await;
    assert_eq!((reason, report.received), (CloseReason::PingTimeout, 0));
    assert_eq!(began.elapsed(), 65 * SECOND, "keepalive, then ping_timeout");
    let (first, rest) = soon("the hostile side's end", task).await.unwrap();
    assert_eq!((first, rest), (Some(raw::PING), 0), "one ping is all that it got");
    assert_eq!(victim.pool.stats().ping_failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_a_byte_a_second_is_life_and_is_told_so() {
    let mut victim = Victim::new(config().max_idle(None));
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    let frame = hostile.frame(&raw::data(&[0; 1000]));
    raw::dribble(&mut hostile.stream, &frame, SECOND).await;
    assert_eq!(soon("the message", victim.inbox.recv()).await.unwrap().body, vec![0; 1000]);
    assert_eq!((victim.pool.stats().closed, victim.pool.stats().ping_failed), (0, 0));
    // 1,021 bytes took as many seconds; a receipt is due two seconds after more than 64 of them.
    let mut receipts = 0;
    while let Ok(heard) = timeout(SECOND, hostile.hear()).await {
        assert_eq!(heard.unwrap(), [(raw::RECEIPT, vec![])]);
        receipts += 1;
    }
    assert!((10..=1_021 / 65).contains(&receipts), "{receipts} receipts");
}

#[tokio::test(start_paused = true)]
async fn a_false_pong_to_our_ping_ends_the_session() {
    let mut victim = Victim::new(config());
    let (mut hostile, lease) = victim.dials(&Raw::new(2), 1 << 17).await;
    let pinged = tokio::spawn(async move { lease.ping().await });
    let nonce = u64::from_be_bytes(hostile.hear_one(raw::PING).await.try_into().unwrap());
    hostile.say(&raw::pong(nonce ^ 1)).await;
    let (reason, _) = victim.closed().await;
    assert_eq!(reason, CloseReason::Protocol(ProtocolError::UnknownPong));
    assert!(pinged.await.unwrap().is_err());
}

// ---- a peer that does not read ------------------------------------------------------------------

/// Small bounds, so that they are met.
fn tight() -> Config {
    config()
        .max_message_size(4 * KIB)
        .min_queue(4 * KIB)
        .max_queue(64 * KIB)
        .max_undelivered(64 * KIB)
        .inbox_bytes(128 * KIB)
        .max_idle(None)
        .max_age(None)
}

/// Sends as much as is accepted now; how many messages.
fn fill(lease: &Lease) -> u64 {
    let mut accepted = 0;
    loop {
        match lease.try_send(vec![0; 1000].into()) {
            Ok(()) => accepted += 1,
            Err(error) => {
                assert_eq!(error.kind, SendErrorKind::Full);
                return accepted;
            }
        }
        assert!(accepted < 1000, "the queue has a bound");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_holds_one_queue_and_is_stalled() {
    let mut victim = Victim::new(tight());
    let (mut hostile, lease) = victim.dials(&Raw::new(2), 4 * KIB).await;
    let mut accepted = fill(&lease);
    // What the driver has sealed meanwhile is still paid for.
    tokio::time::sleep(SECOND).await;
    accepted += fill(&lease);
    let began = Instant::now();
    let held = victim.session().queue_bytes as usize;
    assert!(held <= 64 * KIB && held > 60 * KIB, "max_queue: {held}");
    assert!(accepted * 1064 <= (64 + 4 + 1) * KIB as u64, "the queue and the pipe: {accepted}");
    let waiting = {
        let lease = lease.try_clone().unwrap();
        tokio::spawn(async move { lease.send(vec![1; 1000].into()).await })
    };

    // It is not silent.
    let talking = tokio::spawn(async move {
        while hostile.try_say(&raw::data(&[0; 8])).await.is_ok() {
            tokio::time::sleep(10 * SECOND).await;
        }
        hostile
    });

    let (reason, report) = victim.closed().await;
    assert_eq!(reason, CloseReason::Stalled);
    assert_eq!(began.elapsed(), 29 * SECOND, "stall_timeout after the last progress");
    assert_eq!((report.accepted, report.delivered), (accepted, 0));
    assert!(report.unknown * 1_064 <= 4 * KIB as u64, "the pipe holds whole frames: {report:?}");
    assert_eq!(report.unknown + report.unsent, accepted);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Closed(CloseReason::Stalled));
    assert_eq!(error.message, vec![1; 1000]);
    assert_eq!(lease.closed().await, CloseReason::Stalled);
    let mut hostile = soon("it notices", talking).await.unwrap();
    assert!(hostile.rest().await <= 4 * KIB, "the pipe, and then the end");
    // What was left unsent waits for another session of the peer for `carry_over`.
    tokio::time::sleep(11 * SECOND).await;
    let buffered = victim.pool.snapshot().limits.buffered_bytes;
    assert_eq!(buffered.held, 0, "what it had taken of the pool's budget is back");
    assert!(buffered.high_water <= 60 * KIB as u64, "{buffered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_and_is_silent_is_dead_after_fifteen_seconds() {
    let mut victim = Victim::new(tight());
    let (_hostile, lease) = victim.dials(&Raw::new(2), 4 * KIB).await;
    let began = Instant::now();
    let accepted = fill(&lease);
    let (reason, report) = victim.closed().await;
    assert_eq!((reason, report.unknown + report.unsent), (CloseReason::PingTimeout, accepted));
    assert_eq!(began.elapsed(), 15 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_application_is_slow_says_so_and_is_not_stalled() {
    let mut victim = Victim::new(tight());
    let (mut hostile, lease) = victim.dials(&Raw::new(2), 4 * KIB).await;
    fill(&lease);
    tokio::time::sleep(2 * SECOND).await;
    hostile.say(&raw::record(raw::KEEP_ALIVE, b"")).await;
    for _ in 0..30 {
        tokio::time::sleep(20 * SECOND).await;
        hostile.say(&raw::record(raw::KEEP_ALIVE, b"")).await;
    }
    let spoken = Instant::now();
    assert!(victim.session().queue_bytes <= 64 * KIB as u64, "bounded all the while");
    let (reason, _) = victim.closed().await;
    assert_eq!(reason, CloseReason::Stalled, "once it says so no more");
    assert_eq!(spoken.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_pings_and_reads_no_pong_is_stalled_too() {
    let mut victim = Victim::new(tight());
    let hostile = victim.dialled_by(&Raw::new(2), KIB).await;
    let began = Instant::now();
    let pinging = tokio::spawn(async move {
        let mut hostile = hostile;
        for n in 0.. {
            if hostile.try_say(&raw::ping(n)).await.is_err() {
                break;
            }
            tokio::time::sleep(SECOND / 10).await;
        }
    });
    let (reason, _) = victim.closed().await;
    assert_eq!(reason, CloseReason::Stalled);
    // A pong takes 29 bytes, so the pipe is full within four seconds.
    assert!(began.elapsed() <= 34 * SECOND, "{:?}", began.elapsed());
    soon("its end", pinging).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_peer_that_does_not_read_does_not_delay_the_others() {
    let victim = Victim::new(tight().max_buffered_bytes(16 * KIB));
    let mut stuck = Vec::new();
    for n in 2..12 {
        let (hostile, lease) = victim.dials(&Raw::new(n), KIB).await;
        fill(&lease);
        stuck.push((hostile, lease));
    }
    let (mut healthy, lease) = victim.dials(&Raw::new(50), KIB).await;
    let began = Instant::now();
    for n in 0..100_u8 {
        lease.send(vec![n; 1000].into()).await.unwrap();
        assert_eq!(soon("the message", healthy.hear_one(raw::DATA)).await, vec![n; 1000]);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    let buffered = victim.pool.snapshot().limits.buffered_bytes;
    assert!(buffered.high_water <= 16 * KIB as u64, "{buffered:?}");
}

// ---- a peer that does not stop sending ----------------------------------------------------------

/// Says this for ever; gives up when a second has passed in which nobody read.
fn flood(hostile: Hostile, records: Vec<u8>) -> JoinHandle<Hostile> {
    tokio::spawn(async move {
        let mut hostile = hostile;
        loop {
            let frame = hostile.frame(&records);
            match timeout(SECOND, hostile.stream.write_all(&frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return hostile,
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_nobody_takes_is_read_up_to_its_bound_and_loses_nothing() {
    let floods = [
        ("messages", raw::data(&[7; 1000])),
        ("empty messages", raw::data(b"").repeat(20_000)),
        ("fragments", [raw::fragment(2000, &[7; 2000]), raw::fragment(0, &[7; 2000])].concat()),
    ];
    for (what, records) in floods {
        let mut victim = Victim::new(tight());
        let hostile = victim.dialled_by(&Raw::new(2), 4 * KIB).await;
        let mut hostile = flood(hostile, records).await.unwrap();
        for _ in 0..30 {
            // We are slow, not dead, and say so.
            let alive = timeout(21 * SECOND, hostile.hear()).await.expect("a keep-alive").unwrap();
            assert_eq!(alive, [(raw::KEEP_ALIVE, vec![])], "{what}");
        }
        let session = victim.session();
        assert!(session.undelivered_bytes <= 64 * KIB as u64, "{what}: {session:?}");
        let max = (64 * KIB + 2 * FRAME + 4 * KIB) as u64;
        assert!(session.bytes_in <= max, "{what}: {} bytes were read", session.bytes_in);
        let inbox = victim.pool.snapshot().limits.inbox_bytes;
        assert!(inbox.high_water <= 64 * KIB as u64, "{what}: {inbox:?}");

        drop(hostile);
        let mut taken = 0;
        let report = loop {
            tokio::select! {
                biased;
                message = victim.inbox.recv() => taken += u64::from(message.is_some()),
                event = victim.events.recv() => {
                    if let PoolEvent::Closed { reason, report, .. } = event.unwrap().unwrap() {
                        assert_eq!(reason, CloseReason::Truncated, "{what}");
                        break report;
                    }
                }
            }
        };
        while victim.inbox.try_recv().is_some() {
            taken += 1;
        }
        assert_eq!(taken, report.received, "{what}: all that was received is delivered");
        assert!(taken > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn many_floods_fill_the_inbox_no_further_than_its_bound() {
    let mut victim = Victim::new(tight());
    let mut hostile = Vec::new();
    for n in 2..12 {
        let session = victim.dialled_by(&Raw::new(n), 4 * KIB).await;
        hostile.push(flood(session, raw::data(&[7; 1000])).await.unwrap());
    }
    let snapshot = victim.pool.snapshot();
    assert_eq!(snapshot.sessions.len(), 10);
    assert!(snapshot.limits.inbox_bytes.high_water <= 128 * KIB as u64, "{:?}", snapshot.limits);
    for session in &snapshot.sessions {
        assert!(session.undelivered_bytes <= 64 * KIB as u64);
    }
    // As soon as the application reads, every one of them has its turn.
    let mut seen = std::collections::HashSet::new();
    while let Some(message) = victim.inbox.try_recv() {
        seen.insert(message.peer);
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.len(), 10);
}

/// A session that drains may go beyond the bound on what is undelivered, or a slow reader would lose
/// messages; a hostile peer must not make use of that by replacing its own sessions.
#[tokio::test(start_paused = true)]
async fn a_flood_over_sessions_that_replace_each_other_stays_bounded() {
    let victim = Victim::new(tight());
    let mut floods = Vec::new();
    for stamp in 1..=6 {
        let raw = Raw { stamp, ..Raw::new(2) };
        let hostile = victim.dialled_by(&raw, 4 * KIB).await;
        // Not awaited: the older ones go on while they drain.
        floods.push(flood(hostile, raw::data(&[7; 1000])));
        tokio::time::sleep(SECOND / 10).await;
    }
    let snapshot = victim.pool.snapshot();
    let max = (64 + 2 * 64) * KIB;
    for session in &snapshot.sessions {
        assert!(
            session.undelivered_bytes <= max as u64,
            "max_undelivered, and while it drains twice max_queue more: {session:?}"
        );
    }
    assert!(snapshot.sessions.len() >= 4, "the older ones still drain: {:?}", snapshot.limits);
    let inbox = snapshot.limits.inbox_bytes;
    assert!(inbox.high_water <= 6 * max as u64, "{inbox:?}");
    drop(floods);
}

#[tokio::test(start_paused = true)]
async fn a_fragment_bomb_that_never_ends_delivers_nothing_and_does_not_keep_the_session() {
    let config = config().max_message_size(4 * KIB).max_idle(Some(60 * SECOND));
    let mut victim = Victim::new(config);
    let hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    let began = Instant::now();
    let bomb = tokio::spawn(async move {
        let mut hostile = hostile;
        // The declared message never ends: its last byte is held back, and life signs go on.
        for remaining in (1..4096).rev() {
            hostile.say(&raw::fragment(remaining, b"x")).await;
        }
        while hostile.try_say(&raw::record(raw::KEEP_ALIVE, b"")).await.is_ok() {
            tokio::time::sleep(5 * SECOND).await;
        }
    });
    let (reason, report) = victim.closed().await;
    assert_eq!(reason, CloseReason::DrainTimeout, "its drain cannot come inside a message");
    assert_eq!(report.received, 0);
    let elapsed = began.elapsed();
    assert!((70..=72).contains(&elapsed.as_secs()), "max_idle, then drain_timeout: {elapsed:?}");
    soon("its end", bomb).await.unwrap();
    assert!(victim.inbox.try_recv().is_none());
}

// ---- drains -------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_drain_that_the_peer_does_not_answer_ends_in_time() {
    let ours = || async {
        let victim = Victim::new(config());
        let (hostile, lease) = victim.dials(&Raw::new(2), 1 << 17).await;
        lease.send(Bytes::from_static(b"accepted")).await.unwrap();
        drop(lease);
        assert!(victim.pool.disconnect(&Raw::new(2).id(), Disconnect::drain()));
        (victim, hostile)
    };

    // It ignores our drain.
    let (mut victim, mut hostile) = ours().await;
    let began = Instant::now();
    let (reason, report) = victim.closed().await;
    assert_eq!(reason, CloseReason::DrainTimeout);
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!((report.accepted, report.delivered, report.unknown), (1, 0, 1));
    assert_eq!(hostile.hear_one(raw::DRAIN).await, b"");
    assert_eq!(hostile.rest().await, 0, "no goodbye without its drain");

    // It goes on sending instead: that is received, and changes nothing.
    let (mut victim, hostile) = ours().await;
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let mut hostile = hostile;
        while hostile.try_say(&raw::data(b"more")).await.is_ok() {
            tokio::time::sleep(SECOND).await;
        }
    });
    let (reason, report) = victim.closed().await;
    assert_eq!((reason, began.elapsed()), (CloseReason::DrainTimeout, 10 * SECOND));
    assert!((10..=11).contains(&report.received), "{report:?}");
    soon("its end", sending).await.unwrap();

    // It drains, but says no goodbye.
    let (mut victim, mut hostile) = ours().await;
    let began = Instant::now();
    hostile.say(&raw::record(raw::DRAIN, b"")).await;
    assert_eq!(victim.closed().await.0, CloseReason::DrainTimeout);
    assert_eq!(began.elapsed(), 10 * SECOND);

    // It says all, but does not close.
    let (mut victim, mut hostile) = ours().await;
    let began = Instant::now();
    hostile.hear_one(raw::DRAIN).await;
    hostile.say(&[raw::record(raw::DRAIN, b""), raw::goodbye(0, 1)].concat()).await;
    let (reason, report) = victim.closed().await;
    assert_eq!((reason, began.elapsed()), (CloseReason::DrainTimeout, 10 * SECOND));
    assert_eq!((report.delivered, report.unknown), (1, 0), "its word counts all the same");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drains_and_then_does_not_go_ends_in_time() {
    let mut victim = Victim::new(config());
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    let began = Instant::now();
    hostile.say(&raw::record(raw::DRAIN, b"")).await;
    assert_eq!(hostile.hear_one(raw::GOODBYE).await[0], 0, "as asked");
    assert!(victim.pool.get(&Raw::new(2).id()).is_none(), "not handed out while it drains");
    let (reason, _) = victim.closed().await;
    assert_eq!((reason, began.elapsed()), (CloseReason::DrainTimeout, 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_believed_within_bounds() {
    for (said, delivered) in [(0, 0), (2, 2), (3, 3), (4, 3), (u64::MAX, 3)] {
        for code in [1, 6, 7, 255] {
            let mut victim = Victim::new(config());
            let (mut hostile, lease) = victim.dials(&Raw::new(2), 1 << 17).await;
            for _ in 0..3 {
                lease.send(Bytes::from_static(b"counted")).await.unwrap();
            }
            hostile.say(&raw::record(raw::DRAIN, b"")).await;
            hostile.hear_one(raw::GOODBYE).await;
            hostile.say(&raw::goodbye(code, said)).await;
            hostile.stream.shutdown().await.unwrap();
            let (reason, report) = victim.closed().await;
            let why = match code {
                1 => GoodbyeReason::Idle,
                6 => GoodbyeReason::Shutdown,
                code => GoodbyeReason::Other(code),
            };
            assert_eq!(reason, CloseReason::Peer(why));
            assert_eq!((report.delivered, report.unknown), (delivered, 3 - delivered));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_may_follow_a_drain_but_a_goodbye_and_nothing_a_goodbye() {
    let drain = raw::record(raw::DRAIN, b"");
    let after_drain: [(&[u8], _); 4] = [
        (&raw::data(b"x"), raw::DATA),
        (&raw::ping(1), raw::PING),
        (&drain, raw::DRAIN),
        (&raw::record(raw::KEEP_ALIVE, b""), raw::KEEP_ALIVE),
    ];
    for (records, kind) in after_drain {
        for goodbye in [false, true] {
            let mut victim = Victim::new(config());
            let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
            hostile.say(&drain).await;
            hostile.hear_one(raw::GOODBYE).await;
            if goodbye {
                hostile.say(&raw::goodbye(0, 0)).await;
            }
            hostile.say(records).await;
            let (reason, _) = victim.closed().await;
            assert_eq!(reason, CloseReason::Protocol(out_of_place(kind)));
        }
    }
    // The end of the stream is out of place as well.
    let mut victim = Victim::new(config());
    let mut hostile = victim.dialled_by(&Raw::new(2), 1 << 17).await;
    hostile.say(&drain).await;
    hostile.stream.shutdown().await.unwrap();
    assert_eq!(victim.closed().await.0, CloseReason::Truncated);
}

// ---- a hostile responder to our dial ------------------------------------------------------------

/// Dials a raw responder that goes as far as message 3, then says `bytes`; how the dial fails, and
/// how long that took. Everything that the pool wrote after message 3 is counted: nothing.
async fn dial_fails(
    victim: &mut Victim,
    bytes: impl FnOnce(&mut Hostile) -> Vec<u8>,
) -> (DialError, Duration) {
    let (near, far) = duplex(1 << 17);
    let (pool, raw) = (victim.pool.clone(), Raw::new(2));
    let target = Target::new(raw.id());
    let dialling =
        tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await });
    let mut hostile = raw.respond(far).await;
    let bytes = bytes(&mut hostile);
    let began = Instant::now();
    hostile.stream.write_all(&bytes).await.unwrap();
    let error = soon("the dial", dialling).await.unwrap().err().unwrap();
    let elapsed = began.elapsed();
    assert_eq!(soon("the end", hostile.rest()).await, 0, "silence until the verdict, and after");
    assert!(victim.is_empty(), "{error:?}");
    assert_eq!(victim.pool.stats().opened, 0);
    (error, elapsed)
}

async fn dial_failure(victim: &mut Victim) -> DialFailure {
    loop {
        if let PoolEvent::DialFailed { cause, .. } = victim.event().await {
            return cause;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_none_has_its_name() {
    use ProtocolError::{Decrypt, FrameLength, MessageTooLarge, RecordForm, UnknownRecord};

    let no_verdict = [
        raw::data(b"x"),
        raw::ping(1),
        raw::record(raw::DRAIN, b""),
        raw::record(raw::KEEP_ALIVE, b""),
        raw::record(0x80, b""),
        [raw::record(0x80, b""), raw::accept(1, "", b"")].concat(),
    ];
    for records in no_verdict {
        let mut victim = Victim::new(config());
        let (error, took) = dial_fails(&mut victim, |hostile| hostile.frame(&records)).await;
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::NoVerdict)),
            "{records:02x?}: {error:?}"
        );
        assert!(matches!(error.retry(), Retry::At(_)));
        assert_eq!(took, Duration::ZERO);
        assert_eq!(dial_failure(&mut victim).await, DialFailure::Handshake);
    }

    let verdict = |body: &[u8]| raw::record(raw::VERDICT, body);
    let form = RecordForm(raw::VERDICT);
    let accept = raw::accept(1, "ab", b"")[3..].to_vec();
    let mut broken = vec![
        (verdict(b""), form),
        (verdict(&[2, 1, 0, 0, 0, 0]), form),
        (verdict(&[1, 1, 0, 0, 0]), form),
        (verdict(&[1, 1, 0, 0, 0, 0, 0]), form),
        (verdict(b"\0\0\0\0\0\0\0\0\x01\x02\xff\xfe"), form),
        (raw::accept(1, "", &[0; 16_385]), MessageTooLarge(16_385)),
        (vec![raw::VERDICT, 0, 99, 0], ProtocolError::RecordLength),
        (raw::record(0x0a, b""), UnknownRecord(0x0a)),
        // The verdict is in order, but not the frame that it is in.
        ([raw::accept(1, "", b""), raw::pong(1)].concat(), ProtocolError::UnknownPong),
        ([raw::accept(1, "", b""), raw::data(b"x"), vec![1]].concat(), ProtocolError::RecordLength),
    ];
    broken.extend((0..accept.len()).map(|cut| (verdict(&accept[..cut]), form)));
    for (records, why) in broken {
        let mut victim = Victim::new(config());
        let (error, took) = dial_fails(&mut victim, |hostile| hostile.frame(&records)).await;
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::Protocol(w)) if *w == why),
            "{records:02x?}: {error:?}"
        );
        assert_eq!(took, Duration::ZERO);
        assert!(victim.inbox.try_recv().is_none());
    }

    for length in 0..=16_u16 {
        let mut victim = Victim::new(config());
        let (error, took) = dial_fails(&mut victim, |_| length.to_be_bytes().to_vec()).await;
        let why = FrameLength(length);
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::Protocol(w)) if *w == why),
            "{error:?}"
        );
        assert_eq!(took, Duration::ZERO);
    }
    let mut victim = Victim::new(config());
    let (error, _) = dial_fails(&mut victim, |_| [&[0, 40][..], &[7; 40]].concat()).await;
    assert!(
        matches!(error.cause(), DialError::Handshake(HandshakeError::Protocol(Decrypt))),
        "{error:?}"
    );
}

/// The second verdict in the frame of the first is found by the dial, a later one by the session.
#[tokio::test(start_paused = true)]
async fn a_second_verdict_ends_the_session() {
    for second in [raw::accept(2, "", b""), raw::reject(3, 0)] {
        let mut victim = Victim::new(config());
        let both = [raw::accept(1, "", b""), second.clone()].concat();
        let (error, _) = dial_fails(&mut victim, |hostile| hostile.frame(&both)).await;
        // The first record was a verdict, so this is not the absence of one.
        let why = out_of_place(raw::VERDICT);
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::Protocol(w)) if *w == why),
            "{error:?}"
        );

        let mut victim = Victim::new(config());
        let (mut hostile, _lease) = victim.dials(&Raw::new(2), 1 << 17).await;
        hostile.say(&second).await;
        assert_eq!(victim.closed().await.0, CloseReason::Protocol(why));
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_does_not_come_is_not_waited_for() {
    let mut victim = Victim::new(config());
    let (error, took) = dial_fails(&mut victim, |_| Vec::new()).await;
    assert!(matches!(error.cause(), DialError::VerdictTimedOut), "{error:?}");
    assert_eq!(took, 3 * SECOND);
    assert_eq!(dial_failure(&mut victim).await, DialFailure::VerdictTimedOut);

    // A frame that was announced long and never ends.
    let mut victim = Victim::new(config());
    let (error, took) = dial_fails(&mut victim, |_| [&[0xff; 2][..], &[0; 1000]].concat()).await;
    assert!(matches!(error.cause(), DialError::VerdictTimedOut), "{error:?}");
    assert_eq!(took, 3 * SECOND);

    // One that dribbles.
    let victim = Victim::new(config());
    let (near, far) = duplex(1 << 10);
    let (pool, raw) = (victim.pool.clone(), Raw::new(2));
    let target = Target::new(raw.id());
    let dialling =
        tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await });
    let mut hostile = raw.respond(far).await;
    let frame = hostile.frame(&raw::accept(1, "", b""));
    let began = Instant::now();
    assert!(!raw::dribble(&mut hostile.stream, &frame, SECOND / 2).await, "nobody reads on");
    let error = dialling.await.unwrap().err().unwrap();
    assert!(matches!(error.cause(), DialError::VerdictTimedOut), "{error:?}");
    assert!(began.elapsed() <= 4 * SECOND);

    // The end of the stream instead.
    let victim = Victim::new(config());
    let (near, far) = duplex(1 << 10);
    let (pool, target) = (victim.pool.clone(), Target::new(raw.id()));
    let dialling =
        tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await });
    drop(raw.respond(far).await);
    let error = dialling.await.unwrap().err().unwrap();
    assert!(matches!(error.cause(), DialError::Handshake(HandshakeError::Io(_))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_2_that_is_none_has_its_name() {
    /// Dials a responder whose message 2 is what `second` makes of an honest one.
    async fn dial(raw: Raw, second: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (DialError, Duration) {
        let victim = Victim::new(config());
        let (near, mut far) = duplex(1 << 17);
        let (pool, target) = (victim.pool.clone(), Target::new(raw.id()));
        let dialling =
            tokio::spawn(async move { pool.get_or_dial_with(target, || async { Ok(near) }).await });
        let message1 = raw::prefixed(&mut far).await.unwrap();
        let message2 = second(raw.message2(&message1).1);
        let began = Instant::now();
        far.write_all(&message2).await.unwrap();
        let error = soon("the dial", dialling).await.unwrap().err().unwrap();
        let elapsed = began.elapsed();
        assert_eq!(raw::rest(&mut far).await, 0, "no message 3");
        (error, elapsed)
    }

    for length in (0..=64).chain([322, 16_000, u16::MAX]) {
        let (error, took) = dial(Raw::new(2), |_| length.to_be_bytes().to_vec()).await;
        assert!(
            matches!(
                error.cause(),
                DialError::Handshake(HandshakeError::Length { message: 2, length: l }) if *l == length
            ),
            "{error:?}"
        );
        assert_eq!(took, Duration::ZERO, "as soon as it is read");
    }
    for at in [2, 40, 66] {
        let flip = move |mut message: Vec<u8>| {
            message[at] ^= 1;
            message
        };
        let (error, _) = dial(Raw::new(2), flip).await;
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::Verify { message: 2 })),
            "{error:?}"
        );
    }
    let malformed = [Raw { max_message: 0, ..Raw::new(2) }, Raw { more: vec![0], ..Raw::new(2) }];
    for raw in malformed {
        let (error, _) = dial(raw, |message2| message2).await;
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::Payload { message: 2 })),
            "{error:?}"
        );
    }
}

/// How long the pool will not dial after the peer has rejected it so.
async fn rejected(code: u8, retry_after_ms: u32) -> (RejectReason, Duration) {
    let mut victim = Victim::new(config());
    let (error, took) =
        dial_fails(&mut victim, |hostile| hostile.frame(&raw::reject(code, retry_after_ms))).await;
    assert_eq!(took, Duration::ZERO);
    let &DialError::Rejected { reason } = error.cause() else { panic!("rejected: {error:?}") };
    let Retry::At(until) = error.retry() else { panic!("says when to retry: {error:?}") };
    loop {
        if let PoolEvent::Rejected { reason: told, by, .. } = victim.event().await {
            assert_eq!((told, by), (reason, RejectedBy::Peer));
            break;
        }
    }
    assert_eq!(dial_failure(&mut victim).await, DialFailure::Rejected);
    // Until then a call costs nothing, not even a connection.
    let opened = Arc::new(AtomicBool::new(false));
    let opens = opened.clone();
    let early = victim.pool.get_or_dial_with(Raw::new(2).id(), || async move {
        opens.store(true, Ordering::Relaxed);
        Ok(duplex(1).0)
    });
    assert!(matches!(early.await, Err(DialError::Backoff { .. })));
    assert!(!opened.load(Ordering::Relaxed));
    (reason, until - Instant::now().into_std())
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_believed_within_bounds() {
    let max = 600 * SECOND;
    for (code, reason) in [(1, RejectReason::Full), (2, RejectReason::Draining)] {
        assert_eq!(rejected(code, 30_000).await, (reason, 30 * SECOND), "as it asks");
        assert_eq!(rejected(code, u32::MAX).await, (reason, max), "49 days are too long");
        // It says nothing, or what would make us dial it a thousand times a second.
        for short in [0, 1] {
            let (told, wait) = rejected(code, short).await;
            assert_eq!(told, reason);
            assert!(SECOND / 2 <= wait && wait <= SECOND, "{wait:?} after {short} ms");
        }
    }
    // Refused, and reasons of later versions: not again by ourselves, whatever it asks.
    for (code, reason) in [
        (3, RejectReason::Refused),
        (0, RejectReason::Other(0)),
        (6, RejectReason::Other(6)),
        (255, RejectReason::Other(255)),
    ] {
        for asked in [0, 1, u32::MAX] {
            assert_eq!(rejected(code, asked).await, (reason, max), "reason {code}");
        }
    }
}

/// "Simultaneous" and "duplicate" refer to another session between us; here there is none.
#[tokio::test(start_paused = true)]
async fn a_peer_that_refers_to_a_session_that_does_not_exist_is_asked_a_few_times_and_no_more() {
    struct Liar(u8, Arc<AtomicU32>);

    impl Connector for Liar {
        fn connect<'a>(
            &'a self,
            _address: &'a Address,
            _data: Option<&'a TargetData>,
        ) -> BoxFuture<'a, io::Result<BoxedStream>> {
            let (near, far) = duplex(1 << 16);
            let code = self.0;
            self.1.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut hostile = Raw::new(2).respond(far).await;
                hostile.say(&raw::reject(code, 0)).await;
                hostile.rest().await;
            });
            Box::pin(async move { Ok(Box::new(near) as BoxedStream) })
        }
    }

    for (code, reason) in [(4, RejectReason::Simultaneous), (5, RejectReason::Duplicate)] {
        let connects = Arc::new(AtomicU32::new(0));
        let (pool, _inbox) = Pool::builder(identity(1))
            .config(config())
            .connector(Liar(code, connects.clone()))
            .build()
            .unwrap();
        let address: Address = "192.0.2.1:1".parse().unwrap();
        let began = Instant::now();
        let target = Target::new(Raw::new(2).id()).address(address);
        let error = soon("the dial", pool.get_or_dial(target)).await.err().unwrap();
        assert!(
            matches!(error.cause(), DialError::Rejected { reason: r } if *r == reason),
            "{error:?}"
        );
        assert_eq!(connects.load(Ordering::Relaxed), 4);
        assert!(began.elapsed() <= SECOND);
        assert!(pool.snapshot().dials.is_empty());

        // A stream that the caller brought cannot be opened again: the reason is still the peer's.
        let mut victim = Victim::new(config());
        let (error, _) =
            dial_fails(&mut victim, |hostile| hostile.frame(&raw::reject(code, 0))).await;
        assert!(
            matches!(error.cause(), DialError::Rejected { reason: r } if *r == reason),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_an_absurd_limit_is_sent_nothing_over_it() {
    let victim = Victim::new(config());
    let raw = Raw { max_message: 1, ..Raw::new(2) };
    let (mut hostile, lease) = victim.dials(&raw, 1 << 17).await;
    let error = lease.send(Bytes::from_static(b"ab")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::TooLarge { len: 2, limit: 1 });
    lease.send(Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(soon("the message", hostile.hear_one(raw::DATA)).await, b"a");

    let victim = Victim::new(config());
    let raw = Raw { max_message: u32::MAX, ..Raw::new(2) };
    let (_hostile, lease) = victim.dials(&raw, 1 << 17).await;
    let error = lease.send(vec![0; (1 << 20) + 1].into()).await.unwrap_err();
    let limit = 1 << 20;
    assert_eq!(error.kind, SendErrorKind::TooLarge { len: limit + 1, limit }, "our own limit");
}

/// A peer that accepts, and hangs up after so long; counts its connections.
struct HangsUp(Duration, Arc<AtomicU32>);

impl Connector for HangsUp {
    fn connect<'a>(
        &'a self,
        _address: &'a Address,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        let (near, far) = duplex(1 << 16);
        let after = self.0;
        assert!(self.1.fetch_add(1, Ordering::Relaxed) < 2000, "dialled without pause");
        tokio::spawn(async move {
            let _hostile = Raw::new(2).accept(far).await;
            tokio::time::sleep(after).await;
        });
        Box::pin(async move { Ok(Box::new(near) as BoxedStream) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_peer_that_accepts_and_hangs_up_is_not_dialled_without_pause() {
    // At once: a call tries again up to eight times. A moment later: the call has its session.
    for (after, max) in [(Duration::ZERO, 8 * 101), (SECOND / 100, 101)] {
        let connects = Arc::new(AtomicU32::new(0));
        let connector = HangsUp(after, connects.clone());
        let builder = Pool::builder(identity(1)).config(config()).connector(connector);
        let (pool, _inbox) = builder.build().unwrap();
        let address: Address = "192.0.2.1:1".parse().unwrap();
        pool.keep(Target::new(Raw::new(2).id()).address(address));
        tokio::time::sleep(100 * SECOND).await;
        let dialled = connects.load(Ordering::Relaxed);
        assert!((50..=max).contains(&dialled), "{dialled} dials in 100 times initial_backoff");
    }
}
