//! Liveness, age, stalls, panics, and ends of every kind.

use std::pin::pin;

use super::*;
use crate::base::timer::Timer;

#[tokio::test(start_paused = true)]
async fn an_idle_session_lives_on_pings_and_is_in_doubt_in_between() {
    let (ours, theirs) = pair(Config::default(), 1 << 16).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(ours.session.availability(), Availability::NeedsProbe);
    assert!(ours.session.probe().await.is_ok());
    assert_eq!(ours.session.availability(), Availability::Ready);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!((ours.session.ended(), theirs.session.ended()), (None, None));
    assert!(ours.session.snapshot(Instant::now()).rtt.is_some());
}

/// Two ends whose responder neither reads nor writes from now on.
async fn dead_peer() -> (End, End) {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (b, gates) = Gated::new(b);
    // It hears nothing either, and must not be the first to end.
    let patient = Config::default()
        .keepalive(Duration::from_secs(3_600))
        .stall_timeout(Duration::from_secs(3_600));
    let (ours, theirs) = join(settings(Config::default()), settings(patient), a, b);
    settle().await;
    gates.closed_for_reading.store(true, Ordering::Relaxed);
    gates.closed_for_writing.store(true, Ordering::Relaxed);
    (ours, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_found_dead() {
    let (ours, _theirs) = dead_peer().await;
    let start = Instant::now();
    assert_eq!(ours.end().await.0, CloseReason::PingTimeout);
    let passed = passed(start);
    assert!(passed >= Duration::from_secs(64) && passed <= Duration::from_secs(66), "{passed:?}");
    assert_eq!(*ours.host.retired.lock().unwrap(), [CloseReason::PingTimeout]);
}

/// A peer that takes its time, and then answers before the write that asked has returned.
struct Instantaneous {
    core: NativeConnection,
    answers: Vec<u8>,
}

/// What its round trips take: they pass within one poll, where no test can move the clock.
const SPIN: Duration = Duration::from_millis(2);

impl AsyncRead for Instantaneous {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.answers.is_empty() {
            return Poll::Pending;
        }
        buf.put_slice(&std::mem::take(&mut self.answers));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Instantaneous {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let Self { core, answers } = self.get_mut();
        let start = std::time::Instant::now();
        while start.elapsed() < SPIN {
            std::hint::spin_loop();
        }
        core.open(&buf[2..], start).unwrap();
        let mut none = std::collections::VecDeque::new();
        core.seal(&mut none, &mut Vec::new(), answers, usize::MAX).unwrap();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The initiator's core, which has the verdict, and the responder's.
fn accepted() -> (NativeConnection, NativeConnection) {
    let (ours, theirs) = transports(Suite::default());
    let mut theirs = NativeConnection::new(theirs, params(HandshakeRole::Responder));
    theirs.verdict(accept());
    let (mut none, mut verdict) = (std::collections::VecDeque::new(), Vec::new());
    theirs.seal(&mut none, &mut Vec::new(), &mut verdict, usize::MAX).unwrap();
    let mut ours = NativeConnection::new(ours, params(HandshakeRole::Initiator));
    ours.open(&verdict[2..], std::time::Instant::now()).unwrap();
    (ours, theirs)
}

#[tokio::test]
async fn a_ping_answered_within_its_own_turn_has_taken_its_time() {
    let (core, theirs) = accepted();
    let stream = Instantaneous { core: theirs, answers: Vec::new() };

    let (shared, _inbox) = SessionContext::new(settings(Config::default()));
    let session = Session::new(spec(2, Origin::Outbound, &shared.settings), &shared);
    let host = Arc::new(FakeHost::default());
    tokio::spawn(driver(&session, Box::new(stream), core, &host));
    let took = session.probe().await.unwrap();
    assert!(took >= SPIN, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn many_probes_are_one_ping_and_fail_together() {
    let (ours, _theirs) = dead_peer().await;
    let start = Instant::now();
    let probes: Vec<_> = (0..20)
        .map(|_| {
            let session = Arc::clone(&ours.session);
            tokio::spawn(async move { session.probe().await })
        })
        .collect();
    settle().await;
    // The first who asked goes away.
    probes[0].abort();
    for probe in probes.into_iter().skip(1) {
        assert_eq!(probe.await.unwrap(), Err(PingError::TimedOut));
    }
    assert_eq!(passed(start), Duration::from_secs(5));
    assert_eq!(ours.end().await.0, CloseReason::PingTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_leaves_the_session_usable() {
    let (ours, mut theirs) = pair(Config::default(), 1 << 16).await;
    {
        let mut probe = std::pin::pin!(ours.session.probe());
        assert!(futures_util::poll!(&mut probe).is_pending());
    }
    settle().await;
    assert!(ours.session.probe().await.is_ok());
    ours.lease().send(message(3, 10)).await.unwrap();
    assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), 3);
}

#[tokio::test(start_paused = true)]
async fn the_applications_own_check_decides_after_the_pong() {
    let (ours, _theirs) = pair(Config::default(), 1 << 16).await;
    *ours.host.healthy.lock().unwrap() = Some(true);
    assert!(ours.session.probe().await.is_ok());
    assert_eq!(ours.host.checks.load(Ordering::Relaxed), 1);
    *ours.host.healthy.lock().unwrap() = Some(false);
    let unhealthy = Err(PingError::Closed(CloseReason::Unhealthy));
    assert_eq!(ours.session.probe().await, unhealthy);
    assert_eq!(*ours.host.retired.lock().unwrap(), [CloseReason::Unhealthy]);
    assert_eq!(ours.end().await.0, CloseReason::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_progress_ends_the_session_as_stalled() {
    let (a, b) = tokio::io::duplex(100);
    let (b, gates) = Gated::new(b);
    let settings = settings(Config::default());
    let (ours, theirs) = join(Arc::clone(&settings), settings, a, b);
    settle().await;
    gates.closed_for_reading.store(true, Ordering::Relaxed);
    let start = Instant::now();
    ours.lease().send(message(1, 1_000)).await.unwrap();
    // It is not dead: it goes on sending, though so little that it waits for no word of ours.
    let lease = theirs.lease();
    let sends = tokio::spawn(async move {
        while lease.send(message(1, 8)).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    let (reason, report) = ours.end().await;
    sends.abort();
    assert_eq!(reason, CloseReason::Stalled);
    assert_eq!(passed(start), Duration::from_secs(30));
    // The peer's end of the stream takes none of it.
    assert_eq!((report.unknown, report.unsent), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn at_its_age_a_session_is_retired_and_drained() {
    let settings = settings(Config::default());
    let (a, b) = tokio::io::duplex(1 << 16);
    let age = Instant::now() + Duration::from_secs(1_000);
    let (ours, theirs) = join_shared(
        SessionContext::new(Arc::clone(&settings)),
        SessionContext::new(settings),
        a,
        b,
        |spec| {
            if spec.origin == Origin::Outbound {
                spec.expires_at = Some(age);
            }
        },
    );
    assert_eq!(ours.end().await.0, CloseReason::Age);
    assert_eq!(Instant::now(), age);
    assert_eq!(*ours.host.retired.lock().unwrap(), [CloseReason::Age]);
    theirs.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_panics_ends_its_session_once_and_wakes_everybody() {
    let (ours, theirs) = pair(Config::default(), 1 << 16).await;
    ours.host.panic_when_retired.store(true, Ordering::Relaxed);
    ours.host.panic_when_ended.store(true, Ordering::Relaxed);
    let lease = ours.lease();
    let probe = ours.session.probe();
    theirs.retire(CloseReason::Idle);
    assert_eq!(lease.closed().await, CloseReason::Internal);
    assert_eq!(probe.await, Err(PingError::Closed(CloseReason::Internal)));
    assert_eq!(ours.outcome().0, CloseReason::Internal);
    assert!(ours.driver.await.unwrap_err().is_panic());
    let error = lease.send(message(1, 1)).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Closed(CloseReason::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_unrun_resolves_all_who_wait() {
    let (shared, _inbox) = SessionContext::new(settings(Config::default()));
    let session = Session::new(spec(1, Origin::Outbound, &shared.settings), &shared);
    let host = Arc::new(FakeHost::default());
    let lease = {
        let core = LeaseCore::new(Arc::clone(&session), None);
        Lease::try_checkout(&core).unwrap()
    };
    lease.try_send(message(1, 10)).unwrap();
    let core =
        NativeConnection::new(transports(Suite::default()).0, params(HandshakeRole::Initiator));
    let driver = driver(&session, Box::new(tokio::io::duplex(10).0), core, &host);
    let waiting = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { (session.flush().await, session.probe().await) })
    };
    settle().await;
    drop(driver);
    let reason = CloseReason::PoolClosed;
    assert_eq!(
        waiting.await.unwrap(),
        (Err(SessionClosed(reason)), Err(PingError::Closed(reason)))
    );
    assert_eq!(lease.closed().await, reason);
    let ended = host.ended.lock().unwrap();
    assert_eq!((ended.len(), ended[0].0, ended[0].1.unsent), (1, reason, 1));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_frames_end_the_session_with_their_name() {
    use crate::base::error::ProtocolError;
    use tokio::io::AsyncWriteExt;
    for (bytes, error) in [
        (&[0_u8, 3][..], ProtocolError::FrameLength(3)),
        (
            &[0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
            ProtocolError::Decrypt,
        ),
    ] {
        let (shared, _inbox) = SessionContext::new(settings(Config::default()));
        let session = Session::new(spec(1, Origin::Outbound, &shared.settings), &shared);
        let host = Arc::new(FakeHost::default());
        let (a, mut b) = tokio::io::duplex(1_000);
        let core =
            NativeConnection::new(transports(Suite::default()).0, params(HandshakeRole::Initiator));
        tokio::spawn(driver(&session, Box::new(a), core, &host));
        b.write_all(bytes).await.unwrap();
        assert_eq!(session.closed().await, CloseReason::Protocol(error));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_has_given_its_buffers_back() {
    let (ours, mut theirs) = pair(Config::default(), 1 << 12).await;
    for count in 0..50 {
        ours.lease().send(message(count, 20_000)).await.unwrap();
        theirs.inbox.recv().await.unwrap();
    }
    settle().await;
    // One to read into, one for ciphertext, one for a frame's plaintext: all that is ever in use at
    // one moment.
    assert_eq!(ours.shared.buffers.spare(), (1, 2));
}

/// A write buffer that is a little larger than what is kept would be allocated for each batch.
#[tokio::test(start_paused = true)]
async fn the_buffer_of_a_full_batch_is_used_again() {
    let (ours, mut theirs) = pair(Config::default(), 1 << 20).await;
    for count in 0..50 {
        ours.lease().send(message(count, 20_000)).await.unwrap();
    }
    for _ in 0..50 {
        theirs.inbox.recv().await.unwrap();
    }
    settle().await;
    assert_eq!(ours.shared.buffers.spare(), (1, 2));
}

#[test]
fn a_session_is_small() {
    // A pool holds a hundred thousand idle ones. These two are an idle session's memory, besides what
    // snow, the timer and the stream keep; whoever makes them grow had better say why.
    let (driver, session) = (size_of::<Driver>(), size_of::<Session>());
    // What the link takes at a time, and what went one way without an answer, are 104 bytes of it; the
    // messages of the frames that are being written, and where those end, are 80; how fast the peer
    // answers is 32.
    assert!(driver <= 1_272, "{driver} bytes");
    // How many messages came with the handshake, were carried over and have left, and who waits for
    // those, are 40 bytes of it.
    assert!(session <= 944, "{session} bytes");
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_handshake_do_not_wake_its_session() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let (core, _) = accepted();
    let (stream, _silent) = tokio::io::duplex(1 << 16);
    let (shared, _inbox) = SessionContext::new(settings(
        Config::default().ping_after(HOUR).keepalive(HOUR).stall_timeout(HOUR),
    ));
    let session = Session::new(spec(2, Origin::Outbound, &shared.settings), &shared);
    let mut timer = Timer::default();
    {
        let work = pin!(std::future::pending::<()>());
        let limit = pin!(timer.timeout(Duration::from_secs(10), work));
        assert!(futures_util::poll!(limit).is_pending());
    }
    let host = Arc::new(FakeHost::default());
    let mut driver = driver(&session, Box::new(stream), core, &host);
    driver.take_over(timer);
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    tokio::spawn(std::future::poll_fn(move |cx| {
        counted.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut driver).poll(cx)
    }));
    settle().await;
    assert_eq!(session.ended(), None);
    let begun = polls.load(Ordering::Relaxed);
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(polls.load(Ordering::Relaxed), begun, "it was woken for nothing");
    // Its own limits still do.
    tokio::time::sleep(HOUR).await;
    assert!(polls.load(Ordering::Relaxed) > begun);
}
