//! The native handshake over in-memory streams that split every message.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::time::Instant;

use super::*;
use crate::base::config::Config;
use crate::base::suite::Suite;
use crate::proto::wire::connection::Event;
use crate::transport::seam::{Answered as _, Committed as _, Proposed as _};
use crate::verify::crypto::TestEntropy;

const NOW: u64 = 1_700_000_000;
const MESSAGE1_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Clock(Arc<AtomicU64>);

impl WallClock for Clock {
    fn unix_seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A pool's side of handshakes, and its wall clock.
fn native_of(secret: u8, change: impl FnOnce(Config) -> Config) -> (Native, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(NOW));
    let config = Config::default()
        .network_id(b"test".to_vec())
        .application_payload(Bytes::from(vec![secret; 100]))
        .message1_timeout(MESSAGE1_TIMEOUT)
        .max_message_size(1000 + usize::from(secret))
        .wall_clock(Clock(Arc::clone(&time)))
        .entropy(TestEntropy::new(u64::from(secret)));
    let settings = change(config).validate().unwrap();
    (Native::new(Identity::from_secret([secret; 32]), &settings), time)
}

fn native(secret: u8) -> Native {
    native_of(secret, |config| config).0
}

impl Native {
    fn peer_id(&self) -> PeerId {
        self.shared.params.own_id()
    }
}

/// A stream that counts what is written to it.
struct Watched {
    inner: DuplexStream,
    written: Arc<AtomicUsize>,
}

fn watched(inner: DuplexStream) -> (BoxedStream, Arc<AtomicUsize>) {
    let written = Arc::new(AtomicUsize::new(0));
    let stream = Watched { inner, written: Arc::clone(&written) };
    (Box::new(stream), written)
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = poll {
            self.written.fetch_add(n, Ordering::Relaxed);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Both sides up to the verdict, over a stream that holds `hold` bytes.
async fn shake(a: &Native, b: &Native, hold: usize) -> (Committed, Proposed) {
    let (ours, theirs) = duplex(hold);
    let initiate = async {
        let answered = a.initiate(&b.peer_id(), Box::new(ours)).await.unwrap();
        answered.commit(77, Vec::new()).await.unwrap()
    };
    let respond = async { b.respond(Box::new(theirs), || {}).await.ok().unwrap() };
    tokio::join!(initiate, respond)
}

/// Message 1 from `a` to `b`, with its prefix.
fn message1(a: &Native, b: &Native) -> Vec<u8> {
    let (_, message) = Initiator::start(&a.shared.params, &b.peer_id(), a.time()).unwrap();
    framed(&message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

/// What `b` makes of `input` and then the end of the stream, and how much it answers.
async fn hears(b: &Native, input: &[u8]) -> (Result<Proposed, Failed>, usize) {
    let (mut ours, theirs) = duplex(1 << 16);
    ours.write_all(input).await.unwrap();
    ours.shutdown().await.unwrap();
    let (stream, written) = watched(theirs);
    let outcome = b.respond(stream, || {}).await;
    (outcome, written.load(Ordering::Relaxed))
}

/// The error of a responder that must have said nothing.
async fn refused(b: &Native, input: &[u8]) -> HandshakeError {
    let (outcome, written) = hears(b, input).await;
    assert_eq!(written, 0, "a stranger was answered");
    let failed = outcome.err().unwrap();
    assert!(failed.stream.is_some(), "the stream is to be discarded slowly");
    failed.error
}

const OBSERVED: &str = "192.0.2.1:9";

fn accept(b: &Native) -> record::Verdict {
    record::Verdict::Accept {
        stamp: 5,
        observed: OBSERVED.to_owned(),
        payload: b.application_payload(),
    }
}

/// What came of a commit that the peer has accepted.
async fn accepted(committed: Committed) -> Accepted {
    match committed.verdict().await.unwrap() {
        Verdict::Accepted(accepted) => accepted,
        Verdict::Rejected { reason, .. } => panic!("{reason}"),
    }
}

/// All frames of `verdict` and `messages`.
fn sealed(core: &mut NativeConnection, verdict: record::Verdict, messages: Vec<Bytes>) -> Vec<u8> {
    core.verdict(verdict);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    core.seal(&mut VecDeque::from(messages), &mut scratch, &mut out, 1 << 20).unwrap();
    out
}

#[tokio::test(start_paused = true)]
async fn both_roles_end_with_one_session_over_any_split() {
    for suite in [Suite::ChaChaPolyBlake2s, Suite::AesGcmSha256] {
        for hold in [1, 3, 64, 1 << 16] {
            let (a, _) = native_of(1, |config| config.suite(suite));
            let (b, _) = native_of(2, |config| config.suite(suite));
            let (committed, proposed) = shake(&a, &b, hold).await;
            let proposal = proposed.proposal();
            assert_eq!(proposal.peer, a.peer_id());
            assert_eq!(
                (proposal.instance, proposal.claim),
                (a.instance(), Claim::stamped(a.instance(), 77, 1))
            );
            assert_eq!(proposal.max_message, 1001);
            assert_eq!(proposal.application_payload, vec![1; 100]);
            let hash = proposal.handshake_hash;

            let mut theirs = proposed.undecided;
            let messages = vec![Bytes::from_static(b"early")];
            let frames = sealed(&mut theirs.connection, accept(&b), messages);
            let answer = async { theirs.stream.write_all(&frames).await.unwrap() };
            let (accepted, ()) = tokio::join!(accepted(committed), answer);
            let Accepted { established: mut ours, claim, observed, application_payload } = accepted;
            assert_eq!(claim, Claim::stamped(b.instance(), 5, 1));
            assert_eq!(observed, OBSERVED);
            assert_eq!(application_payload, vec![2; 100]);
            assert_eq!(ours.peer_max_message, 1002);
            assert_eq!((ours.handshake_hash, theirs.handshake_hash), (hash, hash));
            // What came in the verdict's frame is not lost.
            assert_eq!(
                ours.connection.poll_event(),
                Some(Event::Message(Bytes::from_static(b"early")))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn frames_behind_the_verdict_are_left_over_whole() {
    let (a, b) = (native(1), native(2));
    let (committed, proposed) = shake(&a, &b, 1 << 16).await;
    let mut theirs = proposed.undecided;
    let mut input = sealed(&mut theirs.connection, accept(&b), Vec::new());
    let (mut scratch, mut second) = (Vec::new(), Vec::new());
    let message = Bytes::from(vec![9; 100]);
    theirs
        .connection
        .seal(&mut VecDeque::from([message.clone()]), &mut scratch, &mut second, 1 << 20)
        .unwrap();
    input.extend_from_slice(&second);
    theirs.stream.write_all(&input).await.unwrap();
    let mut ours = accepted(committed).await.established;
    assert_eq!(ours.leftover, second);
    ours.connection.open(&ours.leftover[2..], now()).unwrap();
    assert_eq!(ours.connection.poll_event(), Some(Event::Message(message)));
}

#[tokio::test(start_paused = true)]
async fn first_messages_are_heard_in_their_order() {
    let (a, b, c) = (native(1), native(2), native(3));
    let (_, first) = shake(&b, &a, 64).await;
    let (second, _) = shake(&a, &b, 64).await;
    let (_, third) = shake(&c, &a, 64).await;
    assert!(first.proposal.claim.heard < second.heard);
    assert!(second.heard < third.proposal.claim.heard);
}

#[tokio::test(start_paused = true)]
async fn the_application_payload_is_the_newest_at_commit() {
    let (a, b) = (native(1), native(2));
    let (ours, theirs) = duplex(64);
    let peer = b.peer_id();
    let initiate = async {
        let answered = a.initiate(&peer, Box::new(ours)).await.unwrap();
        a.set_application_payload(Bytes::from_static(b"new"));
        answered.commit(1, Vec::new()).await.unwrap()
    };
    let respond = b.respond(Box::new(theirs), || {});
    let (_, proposed) = tokio::join!(initiate, respond);
    assert_eq!(proposed.ok().unwrap().proposal.application_payload, "new");
}

#[tokio::test(start_paused = true)]
async fn the_callback_comes_after_message_1_and_before_message_3() {
    let (a, b) = (native(1), native(2));
    let called = AtomicBool::new(false);
    let (mut ours, theirs) = duplex(1 << 10);
    ours.write_all(&message1(&a, &b)).await.unwrap();
    ours.shutdown().await.unwrap();
    let outcome = b.respond(Box::new(theirs), || called.store(true, Ordering::Relaxed)).await;
    assert!(called.load(Ordering::Relaxed));
    assert!(matches!(outcome.err().unwrap().error, HandshakeError::Io(_)));

    let called = AtomicBool::new(false);
    let (mut ours, theirs) = duplex(1 << 10);
    ours.write_all(&framed(&[7; MESSAGE_1])).await.unwrap();
    let outcome = b.respond(Box::new(theirs), || called.store(true, Ordering::Relaxed)).await;
    assert!(outcome.is_err());
    assert!(!called.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn strangers_get_no_byte() {
    let (a, b) = (native(1), native(2));
    let verify1 = |error: &HandshakeError| matches!(error, HandshakeError::Verify { message: 1 });

    let (other, _) = native_of(1, |config| config.network_id(b"other".to_vec()));
    assert!(verify1(&refused(&b, &message1(&other, &b)).await));
    let (other, _) = native_of(1, |config| config.suite(Suite::AesGcmSha256));
    assert!(verify1(&refused(&b, &message1(&other, &b)).await));
    assert!(verify1(&refused(&b, &message1(&a, &native(3))).await));

    let good = message1(&a, &b);
    for at in 2..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(verify1(&refused(&b, &bad).await), "byte {at}");
    }
    for length in [0_u16, 1, 16, 17, 51, 53, 255, 16_000, 65_535] {
        let mut bad = length.to_be_bytes().to_vec();
        bad.resize(200, 0);
        let error = refused(&b, &bad).await;
        let named =
            matches!(error, HandshakeError::Length { message: 1, length: l } if l == length);
        assert!(named, "{error:?}");
    }
    for cut in 0..good.len() {
        let error = refused(&b, &good[..cut]).await;
        let named =
            matches!(&error, HandshakeError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof);
        assert!(named, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn skewed_and_replayed_messages_get_no_byte() {
    let (a, a_clock) = native_of(1, |config| config);
    let (b, b_clock) = native_of(2, |config| config);
    for skew in [61_i64, -61, 100_000] {
        a_clock.store(NOW.wrapping_add_signed(skew), Ordering::Relaxed);
        let error = refused(&b, &message1(&a, &b)).await;
        let named =
            matches!(error, HandshakeError::Skewed { skew_seconds } if skew_seconds == skew);
        assert!(named, "{error:?}");
    }
    a_clock.store(NOW + 60, Ordering::Relaxed);
    let message = message1(&a, &b);
    let (_, answered) = hears(&b, &message).await;
    assert_eq!(answered, 2 + MIN_MESSAGE_2);
    // For as long as its date is believed, a copy is known; then the date is not believed.
    for seconds in [0, 1, 59, 60] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        b_clock.fetch_add(seconds, Ordering::Relaxed);
        assert!(matches!(refused(&b, &message).await, HandshakeError::Replayed));
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    b_clock.fetch_add(1, Ordering::Relaxed);
    assert!(matches!(refused(&b, &message).await, HandshakeError::Skewed { .. }));
}

#[tokio::test(start_paused = true)]
async fn silence_at_any_byte_of_message_1_ends_in_time() {
    let (a, b) = (native(1), native(2));
    let good = message1(&a, &b);
    for cut in 0..good.len() {
        let (mut ours, theirs) = duplex(1 << 10);
        ours.write_all(&good[..cut]).await.unwrap();
        let (stream, written) = watched(theirs);
        let begin = Instant::now();
        let failed = b.respond(stream, || {}).await.err().unwrap();
        assert!(matches!(failed.error, HandshakeError::TimedOut), "{:?}", failed.error);
        assert!(failed.stream.is_some());
        let took = begin.elapsed();
        assert!((MESSAGE1_TIMEOUT..MESSAGE1_TIMEOUT + Duration::from_millis(2)).contains(&took));
        assert_eq!(written.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_does_not_stretch_the_time_for_message_1() {
    let (a, b) = (native(1), native(2));
    let good = message1(&a, &b);
    let (mut ours, theirs) = duplex(1);
    let dribble = async {
        for byte in &good {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if ours.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let begin = Instant::now();
    let respond = async {
        let failed = b.respond(Box::new(theirs), || {}).await.err().unwrap();
        assert!(matches!(failed.error, HandshakeError::TimedOut));
        begin.elapsed()
    };
    let (_, took) = tokio::join!(dribble, respond);
    assert!(took < MESSAGE1_TIMEOUT + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_does_not_stretch_the_whole_handshake() {
    let (a, b) = (native(1), native(2));
    let (mut ours, theirs) = duplex(1 << 10);
    let begin = Instant::now();
    let dribble = async {
        ours.write_all(&message1(&a, &b)).await.unwrap();
        // Message 3 is announced as long as it may be.
        ours.write_all(&(MAX_MESSAGE_3 as u16).to_be_bytes()).await.unwrap();
        while ours.write_all(&[7]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let respond = async {
        let failed = b.respond(Box::new(theirs), || {}).await.err().unwrap();
        assert!(matches!(failed.error, HandshakeError::TimedOut));
        assert!(failed.stream.is_some());
        begin.elapsed()
    };
    let (_, took) = tokio::join!(dribble, respond);
    let limit = Duration::from_secs(10);
    assert!((limit..limit + Duration::from_millis(2)).contains(&took), "{took:?}");
}

/// Runs the handshake from `a` to `b`, with message 3 spoilt.
async fn third(
    a: &Native,
    b: &Native,
    spoil: impl FnOnce(&mut Vec<u8>),
) -> (HandshakeError, usize) {
    let (mut ours, theirs) = duplex(1 << 16);
    let (stream, written) = watched(theirs);
    let script = async {
        let (state, one) = Initiator::start(&a.shared.params, &b.peer_id(), a.time()).unwrap();
        ours.write_all(&framed(&one)).await.unwrap();
        let mut two = [0; 2 + MIN_MESSAGE_2];
        ours.read_exact(&mut two).await.unwrap();
        let (state, _) = state.read_message2(&two[2..]).unwrap();
        let hello = Message3 {
            instance: 1,
            stamp: 2,
            max_message: 3,
            application_payload: Bytes::from_static(b"payload"),
        };
        let (_, three) = state.write_message3(&hello, 0).unwrap();
        let mut input = framed(&three);
        spoil(&mut input);
        ours.write_all(&input).await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let (failed, ()) = tokio::join!(b.respond(stream, || {}), script);
    let failed = failed.err().unwrap();
    assert!(failed.stream.is_some());
    (failed.error, written.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_bad_message_3_gets_no_answer() {
    let (a, b) = (native(1), native(2));
    let message2 = 2 + MIN_MESSAGE_2;
    let whole = 2 + MIN_MESSAGE_3 + 7;
    for at in 2..whole {
        let (error, written) = third(&a, &b, |input| input[at] ^= 4).await;
        assert!(matches!(error, HandshakeError::Verify { message: 3 }), "{error:?}");
        assert_eq!(written, message2, "byte {at}");
    }
    for cut in 0..whole {
        let (error, written) = third(&a, &b, |input| input.truncate(cut)).await;
        assert!(matches!(error, HandshakeError::Io(_)), "{error:?}");
        assert_eq!(written, message2, "cut at {cut}");
    }
    for length in [0_u16, 1, 86, 16_728, 65_535] {
        let (error, written) = third(&a, &b, |input| {
            input[..2].copy_from_slice(&length.to_be_bytes());
        })
        .await;
        let named =
            matches!(error, HandshakeError::Length { message: 3, length: l } if l == length);
        assert!(named, "{error:?}");
        assert_eq!(written, message2);
    }
    assert_eq!(b.clock_offset(), None, "strangers do not move the median");
}

#[tokio::test(start_paused = true)]
async fn our_own_key_is_refused_on_both_sides() {
    let (ours, theirs) = duplex(1 << 10);
    let (stream, written) = watched(ours);
    let a = native(1);
    let error = a.initiate(&a.peer_id(), stream).await.err().unwrap();
    assert!(matches!(error, HandshakeError::OwnIdentity));
    assert_eq!(written.load(Ordering::Relaxed), 0);
    drop(theirs);

    // Another process with the same key dials us by a name that hides the check on its side.
    let b = native(1);
    let (error, written) = third_of_thief(&b).await;
    assert!(matches!(error, HandshakeError::OwnIdentity), "{error:?}");
    assert_eq!(written, 2 + MIN_MESSAGE_2);
}

/// An initiator with `b`'s own secret, which skips the check on itself.
async fn third_of_thief(b: &Native) -> (HandshakeError, usize) {
    let (mut ours, theirs) = duplex(1 << 16);
    let (stream, written) = watched(theirs);
    let secret = Identity::from_secret([1; 32]);
    let script = async {
        let mut prologue = b"\x0cnoise-pool/1\x21Noise_XK_25519_ChaChaPoly_BLAKE2s".to_vec();
        prologue.extend_from_slice(b"\x04test");
        let entropy: Arc<dyn crate::base::environment::Entropy> = Arc::new(TestEntropy::new(9));
        let resolver = crate::proto::native::crypto::resolver(secret.key(), &entropy);
        let mut state = snow::Builder::with_resolver(Suite::default().params(), resolver)
            .prologue(&prologue)
            .unwrap()
            .local_private_key(secret.key().secret())
            .unwrap()
            .remote_public_key(b.peer_id().as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut buffer = [0; 200];
        let n = state.write_message(&(NOW as u32).to_be_bytes(), &mut buffer).unwrap();
        ours.write_all(&framed(&buffer[..n])).await.unwrap();
        let mut two = [0; 2 + MIN_MESSAGE_2];
        ours.read_exact(&mut two).await.unwrap();
        state.read_message(&two[2..], &mut [0; 100]).unwrap();
        let payload = [&[0; 8][..], &[1; 13], &[0, 0]].concat();
        let n = state.write_message(&payload, &mut buffer).unwrap();
        ours.write_all(&framed(&buffer[..n])).await.unwrap();
    };
    let (failed, ()) = tokio::join!(b.respond(stream, || {}), script);
    (failed.err().unwrap().error, written.load(Ordering::Relaxed))
}

/// What an initiator makes of `answer` and then the end of the stream.
async fn answered_with(answer: &[u8]) -> HandshakeError {
    let (a, b) = (native(1), native(2));
    let (ours, mut theirs) = duplex(1 << 16);
    theirs.write_all(answer).await.unwrap();
    theirs.shutdown().await.unwrap();
    a.initiate(&b.peer_id(), Box::new(ours)).await.err().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_initiator_names_what_it_hears() {
    assert!(matches!(answered_with(&[]).await, HandshakeError::NoAnswer));
    let partial = framed(&[1; MIN_MESSAGE_2]);
    for cut in 1..partial.len() {
        assert!(matches!(answered_with(&partial[..cut]).await, HandshakeError::NoAnswer));
    }
    let error = answered_with(&partial).await;
    assert!(matches!(error, HandshakeError::Verify { message: 2 }), "{error:?}");
    for length in [0_u16, 64, 322, 65_535] {
        let error = answered_with(&length.to_be_bytes()).await;
        let named =
            matches!(error, HandshakeError::Length { message: 2, length: l } if l == length);
        assert!(named, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_another_network_gives_no_answer() {
    let (b, _) = native_of(2, |config| config.network_id(b"other".to_vec()));
    let a = native(1);
    let (ours, theirs) = duplex(64);
    let peer = b.peer_id();
    let respond = async {
        let failed = b.respond(Box::new(theirs), || {}).await.err().unwrap();
        drop(failed.stream);
    };
    let (error, ()) = tokio::join!(a.initiate(&peer, Box::new(ours)), respond);
    assert!(matches!(error.err(), Some(HandshakeError::NoAnswer)));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_arrives_and_both_sides_part_at_once() {
    for hold in [1, 1 << 10] {
        let (committed, proposed) = shake(&native(1), &native(2), hold).await;
        let begin = Instant::now();
        let after = Some(Duration::from_secs(7));
        let initiator = async {
            let verdict = committed.verdict().await.unwrap();
            let Verdict::Rejected { reason, retry_after, closing } = verdict else {
                panic!("accepted");
            };
            closing.await;
            (reason, retry_after)
        };
        let (verdict, ()) = tokio::join!(initiator, proposed.reject(RejectReason::Full, after));
        assert_eq!(verdict, (RejectReason::Full, after));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn parting_waits_a_second_for_a_peer_that_stays_or_talks_on() {
    for chatter in [false, true] {
        let (committed, proposed) = shake(&native(1), &native(2), 16).await;
        let mut theirs = committed.undecided.stream;
        let begin = Instant::now();
        let talk = async {
            // Until the other side is gone, or for ever without a word.
            if chatter {
                while theirs.write_all(&[7; 100]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } else {
                let mut discarded = Vec::new();
                theirs.read_to_end(&mut discarded).await.unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        };
        let reject = async {
            proposed.reject(RejectReason::Draining, None).await;
            begin.elapsed()
        };
        let (took, ()) = tokio::join!(reject, talk);
        let second = Duration::from_secs(1);
        assert!((second..second + Duration::from_millis(2)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_verdict_is_named() {
    for (input, expected) in [
        (vec![0, 16], "Protocol(FrameLength(16))"),
        (framed(&[1; 30]), "Protocol(Decrypt)"),
        (framed(&[1; 30])[..20].to_vec(), "UnexpectedEof"),
        (Vec::new(), "UnexpectedEof"),
    ] {
        let (committed, proposed) = shake(&native(1), &native(2), 1 << 16).await;
        let mut stream = proposed.undecided.stream;
        stream.write_all(&input).await.unwrap();
        drop(stream);
        let error = committed.verdict().await.err().unwrap();
        assert!(format!("{error:?}").contains(expected), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_offset_of_the_clocks_is_known_to_both_sides() {
    let (a, clock) = native_of(1, |config| config);
    let b = native(2);
    clock.fetch_add(25, Ordering::Relaxed);
    let _ = shake(&a, &b, 64).await;
    assert_eq!(a.clock_offset(), Some(-25));
    assert_eq!(b.clock_offset(), Some(25));
}

#[test]
fn pools_have_numbers_of_their_own() {
    assert_ne!(native(1).instance(), native(2).instance());
}

/// A handshake that waits must not hold its largest messages in its future.
#[tokio::test(start_paused = true)]
async fn the_futures_are_small() {
    let (a, b) = (native(1), native(2));
    let peer = b.peer_id();
    let (one, two) = duplex(64);
    let initiate = a.initiate(&peer, Box::new(one));
    let respond = b.respond(Box::new(two), || {});
    let sizes = (size_of_val(&initiate), size_of_val(&respond));
    assert!(sizes.0 <= 1024 && sizes.1 <= 1024, "{sizes:?}");
}
