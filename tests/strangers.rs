//! Strangers: whoever does not get through the handshake has its named error, or gets nothing.
//!
//! Most tests run in memory under paused time, so that "nothing" and "until when" are exact.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::{Loopback, Suite};
use noise_pool::error::{AdoptError, DialError, HandshakeError, Limit, Retry};
use noise_pool::event::{DialFailure, Events, HandshakeFailure, PoolEvent};
use noise_pool::io::BoxFuture;
use noise_pool::{Config, Hooks, Origin, PeerId, Pool, Role, Target};
use support::net::gate::{Gate, Way};
use support::raw::{self, Clock, NOW, Raw, config};
use support::{Node, identity, soon, until};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Bytes of message 2 with its length: what somebody gets who knows our key, and no more.
const MESSAGE_2: usize = 67;

fn pool(n: u8, config: Config) -> Pool {
    Pool::builder(identity(n)).config(config).build().unwrap().0
}

/// The pool's part as responder on this stream; the error, if there is one.
fn adopt<S>(pool: &Pool, stream: S) -> JoinHandle<Option<AdoptError<S>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let pool = pool.clone();
    tokio::spawn(async move { pool.adopt(stream, Role::Responder).await.err() })
}

fn handshake_error<S>(error: Option<AdoptError<S>>) -> HandshakeError {
    match error {
        Some(AdoptError::Handshake(error)) => error,
        other => panic!("a failed handshake, not {other:?}"),
    }
}

/// The next event that is of interest.
async fn next<T>(events: &mut Events, wanted: impl Fn(PoolEvent) -> Option<T>) -> T {
    let next = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap().unwrap()) {
                return found;
            }
        }
    };
    soon("an event", next).await
}

fn handshake_failed(event: PoolEvent) -> Option<HandshakeFailure> {
    match event {
        PoolEvent::HandshakeFailed { cause, .. } => Some(cause),
        _ => None,
    }
}

/// What became of a stranger.
#[derive(Debug)]
struct Fate {
    error: HandshakeError,
    cause: HandshakeFailure,
    /// Until the pool had made up its mind.
    decided: Duration,
    /// Until the stream was closed.
    closed: Duration,
    /// Bytes that the stranger got.
    got: usize,
}

impl Fate {
    /// Whatever went wrong, the stranger's stream is read for a while and then closed.
    fn is_told_nothing(&self, got: usize) {
        assert_eq!(self.got, got, "bytes for a stranger: {self:?}");
        let discarded = self.closed - self.decided;
        assert!(SECOND / 2 <= discarded && discarded <= 10 * SECOND, "{self:?}");
    }
}

/// A stranger who writes these bytes and waits.
async fn stranger(pool: &Pool, bytes: &[u8]) -> Fate {
    let mut events = pool.subscribe();
    let (mut near, far) = duplex(1 << 17);
    let began = Instant::now();
    let adopting = adopt(pool, far);
    near.write_all(bytes).await.unwrap();
    let error = handshake_error(soon("the verdict of the pool", adopting).await.unwrap());
    let decided = began.elapsed();
    let cause = next(&mut events, handshake_failed).await;
    let got = soon("the close", raw::rest(&mut near)).await;
    Fate { error, cause, decided, closed: began.elapsed(), got }
}

/// A stranger who knows the pool's key, and whose message 3 is what `third` makes.
async fn acquaintance(pool: &Pool, raw: &Raw, third: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Fate {
    let mut events = pool.subscribe();
    let (mut near, far) = duplex(1 << 17);
    let began = Instant::now();
    let adopting = adopt(pool, far);
    let (mut handshake, message1) = raw.message1(&pool.id());
    near.write_all(&message1).await.unwrap();
    handshake.read(&raw::prefixed(&mut near).await.unwrap());
    let message3 = third(raw.message3(&mut handshake));
    near.write_all(&message3).await.unwrap();
    let error = handshake_error(soon("the verdict of the pool", adopting).await.unwrap());
    let decided = began.elapsed();
    let cause = next(&mut events, handshake_failed).await;
    let got = MESSAGE_2 + soon("the close", raw::rest(&mut near)).await;
    Fate { error, cause, decided, closed: began.elapsed(), got }
}

// ---- another identity, network, suite, clock ----------------------------------------------------

/// Dials `target`, where `at` listens; what each side knows of it afterwards.
async fn dial_into_silence(from: &Pool, target: PeerId, at: &Pool) -> HandshakeFailure {
    let mut ours = from.subscribe();
    let mut theirs = at.subscribe();
    let (gate, near, far) = Gate::open();
    let adopting = adopt(at, far);
    let began = Instant::now();
    let dialled = from.get_or_dial_with(target, || async { Ok(near) }).await;
    let error = dialled.err().unwrap();
    let named = matches!(error.cause(), DialError::Handshake(HandshakeError::NoAnswer));
    assert!(named, "no message 2: {error:?}");
    assert!(matches!(error.retry(), Retry::At(_)), "{error:?}");
    assert!(began.elapsed() <= 10 * SECOND, "the accepting side closes");
    let cause = next(&mut ours, |event| match event {
        PoolEvent::DialFailed { cause, .. } => Some(cause),
        _ => None,
    });
    assert_eq!(cause.await, DialFailure::NoAnswer);
    handshake_error(soon("the handshake", adopting).await.unwrap());
    assert_eq!(gate.bytes_from_responder(), 0, "a stranger gets nothing");
    assert!(from.peers().is_empty() && at.peers().is_empty());
    next(&mut theirs, handshake_failed).await
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_meets_another_peer_network_or_suite_fails_and_gets_nothing() {
    let cases = [
        ("another identity", config(), identity(9).peer_id()),
        ("another network", config().network_id(b"other".to_vec()), identity(2).peer_id()),
        ("another suite", config().suite(Suite::AesGcmSha256), identity(2).peer_id()),
    ];
    for (what, theirs, target) in cases {
        let (from, at) = (pool(1, config()), pool(2, theirs));
        let cause = dial_into_silence(&from, target, &at).await;
        assert_eq!(cause, HandshakeFailure::Unverified, "{what}");
        assert_eq!(at.stats().handshake_failures.unverified, 1, "{what}");
        assert_eq!(from.stats().dial_failures.no_answer, 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_too_far_off_is_a_stranger_and_one_within_bounds_is_not() {
    for off in [NOW - 61, NOW + 61, NOW - 3600, 0] {
        let (from, at) = (pool(1, config().wall_clock(Clock(off))), pool(2, config()));
        let cause = dial_into_silence(&from, at.id(), &at).await;
        assert_eq!(cause, HandshakeFailure::Skewed, "a clock at {off}");
        assert_eq!(at.stats().handshake_failures.skewed, 1);

        let late = Raw { time: off, ..Raw::new(1) };
        let fate = stranger(&at, &late.message1(&at.id()).1).await;
        let seconds = i64::from(off) - i64::from(NOW);
        let named = matches!(fate.error, HandshakeError::Skewed { skew_seconds } if skew_seconds == seconds);
        assert!(named, "{fate:?}");
        fate.is_told_nothing(0);
    }
    for within in [NOW - 60, NOW + 60] {
        let (from, at) = (pool(1, config().wall_clock(Clock(within))), pool(2, config()));
        let (near, far) = duplex(1 << 16);
        let adopting = adopt(&at, far);
        from.get_or_dial_with(at.id(), || async { Ok(near) }).await.unwrap();
        assert!(adopting.await.unwrap().is_none());
    }
}

/// No message 2 is no message 2, also when the other side neither answers nor closes.
#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_and_never_answers_is_named_as_one_that_does_not_know_us() {
    let from = pool(1, config());
    let (near, far) = duplex(1 << 16);
    let began = Instant::now();
    let error = from.get_or_dial_with(identity(2).peer_id(), || async { Ok(near) }).await.err();
    let error = error.unwrap();
    assert!(
        matches!(error.cause(), DialError::Handshake(HandshakeError::NoAnswer)),
        "connected, but no message 2: {error:?}"
    );
    assert_eq!(began.elapsed(), 10 * SECOND, "handshake_timeout");
    drop(far);
}

// ---- ourselves ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_dial_to_ourselves_is_refused_before_anything_is_opened() {
    let pool = pool(1, config());
    let own = pool.id();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let with = pool.get_or_dial_with(own, move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(duplex(1).0) }
    });
    assert!(matches!(with.await, Err(DialError::OwnIdentity)));
    assert_eq!(opened.load(Ordering::Relaxed), 0);
    let target = Target::new(own).address(SocketAddr::from(([127, 0, 0, 1], 9)));
    assert!(matches!(pool.get_or_dial(target.clone()).await, Err(DialError::OwnIdentity)));
    assert!(matches!(pool.get_exclusive(target.clone()).await, Err(DialError::OwnIdentity)));
    assert!(pool.send(target, Bytes::new()).await.is_err());

    let (near, mut far) = duplex(1 << 10);
    let error = pool.adopt(near, Role::Initiator { peer: own }).await.err();
    assert!(matches!(error, Some(AdoptError::Dial(DialError::OwnIdentity))), "{error:?}");
    assert_eq!(raw::rest(&mut far).await, 0);
    assert_eq!(pool.stats().dials, 0);
    let snapshot = pool.snapshot();
    assert!(snapshot.dials.is_empty() && snapshot.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_our_own_key_hears_nothing_after_message_2() {
    let pool = pool(1, config());
    let fate = acquaintance(&pool, &Raw::new(1), |message3| message3).await;
    assert!(matches!(fate.error, HandshakeError::OwnIdentity), "{fate:?}");
    assert_eq!(fate.cause, HandshakeFailure::BadKey);
    fate.is_told_nothing(MESSAGE_2);
    assert_eq!(pool.stats().handshake_failures.bad_key, 1);
    assert!(pool.peers().is_empty());
}

// ---- replay -------------------------------------------------------------------------------------

/// An honest session between two pools, and all that its initiator wrote.
async fn recorded(from: &Pool, at: &Pool) -> Vec<u8> {
    let (gate, near, far) = Gate::open();
    let adopting = adopt(at, far);
    let lease = from.get_or_dial_with(at.id(), || async { Ok(near) }).await.unwrap();
    lease.send(Bytes::from_static(b"pay the bearer")).await.unwrap();
    soon("message 1, message 3 and a frame", gate.arrived(Way::ToResponder, 3)).await;
    assert!(adopting.await.unwrap().is_none());
    gate.recorded(Way::ToResponder)
}

#[tokio::test(start_paused = true)]
async fn a_recorded_handshake_is_of_no_use() {
    let (at, mut inbox) = Pool::builder(identity(2)).config(config()).build().unwrap();
    let tape = recorded(&pool(1, config()), &at).await;
    assert_eq!(soon("the message", inbox.recv()).await.unwrap().body, &b"pay the bearer"[..]);
    for (n, part) in [&tape[..54], &tape[..], &tape[..54]].into_iter().enumerate() {
        let fate = stranger(&at, part).await;
        assert!(matches!(fate.error, HandshakeError::Replayed), "{fate:?}");
        assert_eq!(fate.cause, HandshakeFailure::Replayed);
        fate.is_told_nothing(0);
        assert_eq!(at.stats().handshake_failures.replayed, n as u64 + 1);
    }
    assert_eq!(at.stats().opened, 1);
    assert!(inbox.try_recv().is_none(), "nothing was received twice");
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_a_full_table_has_forgotten_costs_a_handshake_and_yields_nothing() {
    let config = config().replay_table(1);
    let (at, mut inbox) = Pool::builder(identity(2)).config(config).build().unwrap();
    let tape = recorded(&pool(1, raw::config()), &at).await;
    recorded(&pool(3, raw::config()), &at).await;
    for _ in 0..2 {
        assert!(soon("the messages", inbox.recv()).await.is_some());
    }
    let fate = stranger(&at, &tape).await;
    assert!(matches!(fate.error, HandshakeError::Verify { message: 3 }), "{fate:?}");
    fate.is_told_nothing(MESSAGE_2);
    assert_eq!(at.stats().opened, 2);
    assert!(inbox.try_recv().is_none());
}

// ---- keys ---------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_key_in_another_form_or_of_low_order_is_refused_in_message_3() {
    let pool = pool(1, config());
    let mut same = *Raw::new(2).id().as_bytes();
    same[31] |= 0x80;
    let shown = [same, raw::LOW_ORDER[0], raw::LOW_ORDER[1]];
    for (n, key) in shown.into_iter().enumerate() {
        let raw = Raw { shown_key: Some(key), ..Raw::new(2) };
        let fate = acquaintance(&pool, &raw, |message3| message3).await;
        assert!(matches!(fate.error, HandshakeError::NonCanonicalKey), "{fate:?}");
        assert_eq!(fate.cause, HandshakeFailure::BadKey);
        fate.is_told_nothing(MESSAGE_2);
        assert_eq!(pool.stats().handshake_failures.bad_key, n as u64 + 1);
    }
    assert!(pool.peers().is_empty());

    for key in raw::LOW_ORDER {
        let raw = Raw { shown_ephemeral: Some(key), ..Raw::new(2) };
        let fate = stranger(&pool, &raw.message1(&pool.id()).1).await;
        assert!(matches!(fate.error, HandshakeError::Verify { message: 1 }), "{fate:?}");
        fate.is_told_nothing(0);
    }
}

/// Any 32 bytes name a peer, but one key has one name: the others are refused when they are dialled.
#[tokio::test(start_paused = true)]
async fn a_dial_to_a_key_that_nobody_can_hold_is_named_and_writes_nothing() {
    let mut high = *identity(1).peer_id().as_bytes();
    high[31] |= 0x80;
    let mut keys = vec![raw::LOW_ORDER[0], high];
    // 2^255 - 19 and what follows it.
    keys.extend((0xed..=0xff).map(|low| {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (low, 0x7f);
        key
    }));
    let pool = pool(1, config());
    for nobody in keys.into_iter().map(PeerId::from_bytes) {
        assert_eq!(nobody.to_string().parse(), Ok(nobody));
        let (near, mut far) = duplex(1 << 10);
        let error = pool.get_or_dial_with(nobody, || async { Ok(near) }).await.err().unwrap();
        assert!(
            matches!(error.cause(), DialError::Handshake(HandshakeError::NonCanonicalKey)),
            "{error:?}"
        );
        assert_eq!(raw::rest(&mut far).await, 0);
    }
}

// ---- malformed ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_impossible_length_of_message_1_is_refused_as_soon_as_it_is_read() {
    let pool = pool(1, config());
    for length in (0..=51).chain([53, 54, 16_727, u16::MAX]) {
        let fate = stranger(&pool, &length.to_be_bytes()).await;
        assert_eq!(fate.decided, Duration::ZERO, "without waiting for {length} bytes");
        let named =
            matches!(fate.error, HandshakeError::Length { message: 1, length: l } if l == length);
        assert!(named, "{fate:?}");
        assert_eq!(fate.cause, HandshakeFailure::Malformed);
        fate.is_told_nothing(0);
    }
    assert_eq!(pool.stats().handshake_failures.malformed, 52 + 4);
}

#[tokio::test(start_paused = true)]
async fn an_impossible_length_of_message_3_is_refused_as_soon_as_it_is_read() {
    let pool = pool(1, config());
    for length in (0..=16).chain([86, 16_728, u16::MAX]) {
        let fate = acquaintance(&pool, &Raw::new(2), |_| u16::to_be_bytes(length).to_vec()).await;
        assert_eq!(fate.decided, Duration::ZERO);
        let named =
            matches!(fate.error, HandshakeError::Length { message: 3, length: l } if l == length);
        assert!(named, "{fate:?}");
        fate.is_told_nothing(MESSAGE_2);
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_and_a_cut_at_any_byte_have_their_names_and_no_answer() {
    let pool = pool(1, config());
    let garbage = [&[0, 52][..], &[0x5a; 52]].concat();
    let fate = stranger(&pool, &garbage).await;
    assert!(matches!(fate.error, HandshakeError::Verify { message: 1 }), "{fate:?}");
    assert_eq!(fate.cause, HandshakeFailure::Unverified);
    fate.is_told_nothing(0);

    let (_, message1) = Raw::new(2).message1(&pool.id());
    for cut in 0..message1.len() {
        let (mut near, far) = duplex(1 << 10);
        let adopting = adopt(&pool, far);
        near.write_all(&message1[..cut]).await.unwrap();
        near.shutdown().await.unwrap();
        let error = handshake_error(soon("the end", adopting).await.unwrap());
        assert!(matches!(error, HandshakeError::Io(_)), "cut at {cut}: {error:?}");
        assert_eq!(raw::rest(&mut near).await, 0, "cut at {cut}");
    }
    assert_eq!(pool.stats().handshake_failures.io, 54);

    let flipped = |at: usize| {
        move |mut message: Vec<u8>| {
            message[at] ^= 1;
            message
        }
    };
    for at in [2, 50, 60, 88] {
        let fate = acquaintance(&pool, &Raw::new(2), flipped(at)).await;
        assert!(matches!(fate.error, HandshakeError::Verify { message: 3 }), "{fate:?}");
        fate.is_told_nothing(MESSAGE_2);
    }
    let malformed = [
        Raw { max_message: 0, ..Raw::new(2) },
        Raw { more: vec![0], ..Raw::new(2) },
        Raw { payload: vec![1; 16_385], ..Raw::new(2) },
        Raw { minor: 1, more: vec![0; 257], ..Raw::new(2) },
    ];
    for raw in malformed {
        let fate = acquaintance(&pool, &raw, |message3| message3).await;
        assert!(matches!(fate.error, HandshakeError::Payload { message: 3 }), "{fate:?}");
        assert_eq!(fate.cause, HandshakeFailure::Malformed);
        fate.is_told_nothing(MESSAGE_2);
    }
    assert_eq!(pool.stats().opened, 0);
}

// ---- time ---------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_stranger_who_dribbles_has_three_seconds_for_message_1() {
    let pool = pool(1, config());
    let (_, message1) = Raw::new(2).message1(&pool.id());
    // Silence, one byte a second, and the last byte a moment too late.
    for pause in [3600 * SECOND, SECOND, 3 * SECOND / 53] {
        let (near, far) = duplex(1 << 10);
        let (mut reading, mut writing) = tokio::io::split(near);
        let bytes = message1.clone();
        let began = Instant::now();
        let dribbling =
            tokio::spawn(async move { raw::dribble(&mut writing, &bytes, pause).await });
        let error = handshake_error(soon("the end", adopt(&pool, far)).await.unwrap());
        assert!(matches!(error, HandshakeError::TimedOut), "{error:?}");
        assert_eq!(began.elapsed().as_millis(), 3000, "message1_timeout, from the accept");
        assert_eq!(soon("the close", raw::rest(&mut reading)).await, 0);
        assert!(began.elapsed() <= 13 * SECOND, "then discarded for a random time");
        dribbling.abort();
    }
    assert_eq!(pool.stats().handshake_failures.timed_out, 3);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_dribbles_has_ten_seconds_in_all() {
    let pool = pool(1, config());
    let raw = Raw::new(2);
    for slow_first in [false, true] {
        let (mut near, far) = duplex(1 << 10);
        let began = Instant::now();
        let adopting = adopt(&pool, far);
        let (mut handshake, message1) = raw.message1(&pool.id());
        let pause = if slow_first { 2 * SECOND / 54 } else { Duration::ZERO };
        assert!(raw::dribble(&mut near, &message1, pause).await);
        handshake.read(&raw::prefixed(&mut near).await.unwrap());
        let message3 = raw.message3(&mut handshake);
        let (mut reading, mut writing) = tokio::io::split(near);
        let dribbling =
            tokio::spawn(async move { raw::dribble(&mut writing, &message3, SECOND).await });
        let error = handshake_error(soon("the end", adopting).await.unwrap());
        assert!(matches!(error, HandshakeError::TimedOut), "{error:?}");
        assert_eq!(began.elapsed().as_millis(), 10_000, "handshake_timeout, from the accept");
        assert_eq!(soon("the close", raw::rest(&mut reading)).await, 0, "after message 2");
        assert!(began.elapsed() <= 20 * SECOND);
        dribbling.abort();
    }
    assert_eq!(pool.stats().handshake_failures.timed_out, 2);
}

// ---- number -------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn when_silent_strangers_fill_the_door_the_first_of_them_is_shed_and_not_the_newcomer() {
    let pool = pool(1, config().max_pending_handshakes(3));
    let mut events = pool.subscribe();
    let limit = |event| match event {
        PoolEvent::LimitHit { limit, .. } => Some(limit),
        _ => None,
    };

    // The oldest has shown that it knows our key; two others are silent.
    let (mut acquaintance, far) = duplex(1 << 10);
    let _acquainted = adopt(&pool, far);
    let (mut handshake, message1) = Raw::new(2).message1(&pool.id());
    acquaintance.write_all(&message1).await.unwrap();
    handshake.read(&raw::prefixed(&mut acquaintance).await.unwrap());
    let mut silent = Vec::new();
    for _ in 0..2 {
        let (near, far) = duplex(1 << 10);
        silent.push((near, adopt(&pool, far)));
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.snapshot().limits.pending_handshakes.held, 3);

    // A newcomer comes in, and completes its handshake.
    let (near, far) = duplex(1 << 10);
    let newcomer = adopt(&pool, far);
    let _session = soon("the newcomer's session", Raw::new(3).open(near, &pool.id())).await;
    assert!(newcomer.await.unwrap().is_none());
    assert_eq!(next(&mut events, limit).await, Limit::PendingHandshakes);
    assert_eq!(pool.stats().handshake_failures.shed, 1);
    let (mut near, shed) = silent.remove(0);
    let error = soon("the oldest silent one is shed", shed).await.unwrap();
    assert!(matches!(error, Some(AdoptError::Limit(Limit::PendingHandshakes))), "{error:?}");
    assert_eq!(soon("its stream is closed", raw::rest(&mut near)).await, 0);
    assert!(!silent[0].1.is_finished(), "the younger one stays");

    // The one with a valid message 1 is not shed either, and can still complete.
    let (_near, far) = duplex(1 << 10);
    let _late = adopt(&pool, far);
    let (_near, far) = duplex(1 << 10);
    let _later = adopt(&pool, far);
    let (_, younger) = silent.remove(0);
    let error = soon("the next silent one is shed", younger).await.unwrap();
    assert!(matches!(error, Some(AdoptError::Limit(Limit::PendingHandshakes))), "{error:?}");
    let message3 = Raw::new(2).message3(&mut handshake);
    acquaintance.write_all(&message3).await.unwrap();
    assert!(raw::prefixed(&mut acquaintance).await.is_some(), "the verdict");
    assert_eq!(pool.stats().handshake_failures.shed, 2);
    assert_eq!(pool.snapshot().limits.pending_handshakes.high_water, 3);
}

/// Says nothing about peers for ever.
struct Silent;

impl Hooks for Silent {
    fn authorise<'a>(&'a self, _peer: &'a PeerId, _origin: Origin) -> BoxFuture<'a, bool> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_at_the_door_have_shown_who_they_are_the_newcomer_is_turned_away() {
    let builder = Pool::builder(identity(1)).config(config().max_pending_handshakes(2));
    let (pool, _inbox) = builder.hooks(Silent).build().unwrap();
    let mut whole = Vec::new();
    for n in 2..4 {
        let (near, far) = duplex(1 << 10);
        let adopting = adopt(&pool, far);
        whole.push((soon("message 2", Raw::new(n).initiate(near, &pool.id())).await, adopting));
    }
    // The pool has taken in the last message 3.
    tokio::task::yield_now().await;
    let (mut near, far) = duplex(1 << 10);
    let error = adopt(&pool, far).await.unwrap();
    assert!(matches!(error, Some(AdoptError::Limit(Limit::PendingHandshakes))), "{error:?}");
    assert_eq!(raw::rest(&mut near).await, 0);
    assert_eq!(pool.stats().handshake_failures.shed, 1, "a newcomer turned away is counted");
    assert!(whole.iter().all(|(_, adopting)| !adopting.is_finished()));
}

/// Our key is no secret: whoever knows it must not be able to close the door to others by handshakes
/// that are begun and left.
#[tokio::test(start_paused = true)]
async fn half_handshakes_do_not_hold_the_door() {
    let pool = pool(1, config().max_pending_handshakes(4));
    let mut halves = Vec::new();
    for n in 0..20 {
        let (mut near, far) = duplex(1 << 10);
        let adopting = adopt(&pool, far);
        near.write_all(&Raw::new(50 + n).message1(&pool.id()).1).await.unwrap();
        assert!(raw::prefixed(&mut near).await.is_some(), "message 2");
        halves.push((near, adopting));
    }
    // Neither do they together with silent ones, which come on as an honest peer takes its time.
    let mut silent = Vec::new();
    let mut come = || {
        let (near, far) = duplex(1 << 10);
        silent.push((near, adopt(&pool, far)));
        tokio::task::yield_now()
    };
    for _ in 0..3 {
        come().await;
    }
    let (mut near, far) = duplex(1 << 10);
    let honest = adopt(&pool, far);
    come().await;
    let raw = Raw::new(2);
    let (mut handshake, message1) = raw.message1(&pool.id());
    near.write_all(&message1).await.unwrap();
    handshake.read(&soon("message 2", raw::prefixed(&mut near)).await.unwrap());
    come().await;
    near.write_all(&raw.message3(&mut handshake)).await.unwrap();
    assert!(soon("the handshake", honest).await.unwrap().is_none(), "an honest peer comes in");

    // Who had to go was counted, and told no more than before.
    for (mut near, adopting) in halves.drain(..16) {
        let error = soon("the first were shed", adopting).await.unwrap();
        assert!(matches!(error, Some(AdoptError::Limit(Limit::PendingHandshakes))), "{error:?}");
        assert_eq!(raw::rest(&mut near).await, 0);
    }
    let stats = pool.stats();
    let gone = stats.handshake_failures.shed + stats.handshakes_accepted;
    assert_eq!(gone + pool.snapshot().limits.pending_handshakes.held, 26, "{stats:?}");
}

#[tokio::test]
async fn silent_sockets_do_not_hold_the_door() {
    let minute = 60 * SECOND;
    let config = Config::default()
        .max_pending_handshakes(8)
        .message1_timeout(minute)
        .handshake_timeout(minute);
    let node = Node::start(config).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(soon("a connection", TcpStream::connect(node.address)).await.unwrap());
    }
    let honest = Node::start(Config::default()).await;
    soon("an honest dial", honest.pool.get_or_dial(node.target())).await.unwrap();
    // All but the last few were shed, and nobody got a byte.
    until("the shed are counted", || node.pool.stats().handshake_failures.shed >= 92).await;
    for stream in &mut silent[..92] {
        assert_eq!(soon("a shed stranger's end", raw::rest(stream)).await, 0);
    }
    let pending = node.pool.snapshot().limits.pending_handshakes;
    assert!(pending.held <= 8 && pending.high_water == 8, "{pending:?}");
}

/// Says nothing about addresses for ever.
struct Undecided;

impl Hooks for Undecided {
    fn admit<'a>(&'a self, _source: &'a SocketAddr) -> BoxFuture<'a, bool> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn strangers_whom_the_application_has_not_admitted_yet_are_shed_as_well() {
    let config = Config::default().max_pending_handshakes(2).hook_timeout(60 * SECOND);
    let builder = Pool::builder(identity(1)).config(config).hooks(Undecided);
    let (pool, _inbox) = builder.build().unwrap();
    let address = pool.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(soon("a connection", TcpStream::connect(address)).await.unwrap());
    }
    for stream in &mut streams[..3] {
        assert_eq!(soon("a shed stranger's end", raw::rest(stream)).await, 0);
    }
    assert_eq!(pool.stats().handshake_failures.shed, 3);
}

#[tokio::test]
async fn a_source_that_comes_too_often_is_closed_at_once() {
    let config = Config::default()
        .limit_loopback(Loopback::Limited)
        .source_burst(5)
        .source_rate(1)
        .message1_timeout(60 * SECOND)
        .handshake_timeout(60 * SECOND);
    let node = Node::start(config).await;
    let mut events = node.pool.subscribe();
    let began = std::time::Instant::now();
    let mut streams = Vec::new();
    for _ in 0..60 {
        streams.push(soon("a connection", TcpStream::connect(node.address)).await.unwrap());
    }
    let counted = || {
        let limited = node.pool.stats().handshake_failures.source_limited;
        (limited, node.pool.snapshot().limits.pending_handshakes.held)
    };
    until("all are judged", || counted().0 + counted().1 == 60).await;
    let (limited, pending) = counted();
    // What the bucket has refilled meanwhile, on a machine of any speed.
    let refilled = began.elapsed().as_secs() + 1;
    assert!((5..=5 + refilled).contains(&pending), "{pending} admitted in {refilled} s");
    assert!(limited >= 55 - refilled);
    let limit = next(&mut events, |event| match event {
        PoolEvent::LimitHit { limit, .. } => Some(limit),
        _ => None,
    });
    assert_eq!(limit.await, Limit::SourceRate);
    let last = streams.last_mut().unwrap();
    assert_eq!(soon("a limited stranger's end", raw::rest(last)).await, 0);

    // The same from loopback, by default: nobody is limited.
    let exempt = Node::start(Config::default().source_burst(1).source_rate(1)).await;
    for _ in 0..20 {
        streams.push(soon("a connection", TcpStream::connect(exempt.address)).await.unwrap());
    }
    until("all are admitted", || exempt.pool.snapshot().limits.pending_handshakes.held == 20).await;
    assert_eq!(exempt.pool.stats().handshake_failures.source_limited, 0);
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_only_discarded_are_bounded_and_the_rest_is_closed_at_once() {
    let pool = pool(1, config().max_discarding(2));
    let mut events = pool.subscribe();
    let began = Instant::now();
    let mut ends = Vec::new();
    for _ in 0..5 {
        let (mut near, far) = duplex(1 << 10);
        let adopting = adopt(&pool, far);
        near.write_all(&[0xff; 54]).await.unwrap();
        handshake_error(soon("the failure", adopting).await.unwrap());
        ends.push(tokio::spawn(async move {
            assert_eq!(raw::rest(&mut near).await, 0);
            began.elapsed()
        }));
    }
    assert_eq!(pool.snapshot().limits.discarding.held, 2);
    let (mut at_once, mut discarded) = (0, 0);
    for end in ends {
        let after = soon("the close", end).await.unwrap();
        match after {
            Duration::ZERO => at_once += 1,
            _ if SECOND / 2 <= after && after <= 10 * SECOND => discarded += 1,
            _ => panic!("closed after {after:?}"),
        }
    }
    assert_eq!((at_once, discarded), (3, 2));
    let discarding = pool.snapshot().limits.discarding;
    assert_eq!((discarding.held, discarding.high_water), (0, 2));
    let mut hits = 0;
    while let Some(event) = events.try_recv() {
        let hit = matches!(event, Ok(PoolEvent::LimitHit { limit: Limit::Discarding, .. }));
        hits += usize::from(hit);
    }
    assert_eq!(hits, 3);
}

/// A pool that drains or closes does not wait for strangers.
#[tokio::test(start_paused = true)]
async fn strangers_do_not_hold_up_the_end_of_the_pool() {
    let pool = pool(1, config());
    let (near, far) = duplex(1 << 10);
    let silent = adopt(&pool, far);
    let (mut failed, far) = duplex(1 << 10);
    let failing = adopt(&pool, far);
    failed.write_all(&[0xff; 54]).await.unwrap();
    handshake_error(failing.await.unwrap());
    assert_eq!(pool.snapshot().limits.discarding.held, 1);
    let report = pool.drain(60 * SECOND).await;
    assert_eq!(report.elapsed, Duration::ZERO);
    assert!(matches!(silent.await.unwrap(), Some(AdoptError::PoolClosed)));
    for mut stream in [near, failed] {
        assert_eq!(raw::rest(&mut stream).await, 0);
    }
}

// ---- memory -------------------------------------------------------------------------------------

/// A stream that has everything ready at once, and notes what is asked of it.
struct Greedy {
    bytes: Vec<u8>,
    at: usize,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// The largest room for one read.
    max: usize,
    /// Read in all.
    read: usize,
    /// Written to the stranger.
    written: usize,
}

impl AsyncRead for Greedy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut asked = this.asked.lock().unwrap();
        asked.max = asked.max.max(buffer.remaining());
        let rest = &this.bytes[this.at..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        this.at += count;
        asked.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greedy {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked.lock().unwrap().written += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_read_no_further_than_it_is_due_and_gets_no_room_for_what_it_announces() {
    let mut flood = vec![0xff; 1 << 20];
    flood[..2].copy_from_slice(&[0, 52]);
    let pool = pool(1, config());
    let (_, mut announced) = Raw::new(2).message1(&pool.id());
    announced.extend_from_slice(&[0x41, 0x57, 1, 2, 3]);
    let cases = [
        ("a flood behind a false message 1", flood, 54, 0),
        ("a flood behind a false length", vec![0xff; 1 << 20], 54, 0),
        ("a message 1 that does not go on", vec![0, 52, 1], 3, 0),
        ("the longest message 3, announced", announced, 59, MESSAGE_2),
    ];
    for (what, bytes, max_read, written) in cases {
        let asked = Arc::<Mutex<Asked>>::default();
        let stream = Greedy { bytes, at: 0, asked: asked.clone() };
        handshake_error(pool.adopt(stream, Role::Responder).await.err());
        // The task that discards has had no turn: this is what the decision took.
        let asked = *asked.lock().unwrap();
        assert!(asked.read <= max_read, "{what}: {asked:?}");
        assert!(asked.max <= 2048, "{what}: {asked:?}");
        assert_eq!(asked.written, written, "{what}");
    }
}
