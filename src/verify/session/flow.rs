//! Messages: order, bounds, deadlines, waiting, flushing.

use super::*;
use crate::base::error::SendError;
use crate::session::send::buffer::{Entry, QueuedMessages};
use crate::session::send::queue::Queue;
use crate::session::signal::DriverSignal;

#[tokio::test(start_paused = true)]
async fn sixteen_tasks_send_and_every_message_arrives_once_and_in_order() {
    let (ours, mut theirs) = pair(Config::default(), 700).await;
    let tasks: Vec<_> = (0..16_u64)
        .map(|task| {
            let lease = ours.lease();
            tokio::spawn(async move {
                for count in 0..500 {
                    let size = [8, 64, 1_028, 5_000][(count % 4) as usize];
                    lease.send(message(task << 32 | count, size)).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = [0_u64; 16];
    for _ in 0..16 * 500 {
        let got = theirs.inbox.recv().await.unwrap();
        assert_eq!(got.peer, theirs.session.peer());
        assert_eq!(got.session, theirs.session.id());
        let (task, count) = (number(&got.body) >> 32, number(&got.body) as u32);
        assert_eq!(next[task as usize], u64::from(count));
        next[task as usize] += 1;
    }
    for task in tasks {
        task.await.unwrap();
    }
    ours.lease().flush().await.unwrap();
    assert!(theirs.inbox.try_recv().is_none());
    ours.assert_settled();
}

#[tokio::test(start_paused = true)]
async fn empty_and_largest_messages_arrive_through_a_tiny_stream() {
    let (ours, mut theirs) = pair(Config::default(), 97).await;
    let lease = ours.lease();
    for size in [0, 1 << 20, 0, 65_535, 1] {
        lease.send(Bytes::from(vec![9; size])).await.unwrap();
    }
    for size in [0, 1 << 20, 0, 65_535, 1] {
        let got = theirs.inbox.recv().await.unwrap();
        assert_eq!(got.body.len(), size);
        assert!(got.body.iter().all(|&byte| byte == 9));
    }
    let error = lease.send(Bytes::from(vec![0; (1 << 20) + 1])).await.unwrap_err();
    assert_eq!(error.message.len(), (1 << 20) + 1);
    assert_eq!(error.kind, SendErrorKind::TooLarge { len: (1 << 20) + 1, limit: 1 << 20 });
}

#[tokio::test(start_paused = true)]
async fn messages_in_the_frame_of_the_verdict_wait_for_no_other_frame() {
    let (ours, theirs) = transports(Suite::default());
    let mut theirs = NativeConnection::new(theirs, params(HandshakeRole::Responder));
    theirs.verdict(accept());
    let mut queue = std::collections::VecDeque::from([message(1, 1_028), message(2, 1_028)]);
    let (mut scratch, mut wire) = (Vec::new(), Vec::new());
    theirs.seal(&mut queue, &mut scratch, &mut wire, usize::MAX).unwrap();
    // The whole frame is opened by the handshake, which takes nothing but the verdict out of it.
    let mut core = NativeConnection::new(ours, params(HandshakeRole::Initiator));
    let (length, body) = wire.split_at(2);
    assert_eq!(usize::from(u16::from_be_bytes([length[0], length[1]])), body.len());
    core.open(body, Instant::now().into_std()).unwrap();
    assert!(core.poll_verdict().is_some());

    let (shared, mut inbox) = SessionContext::new(settings(Config::default()));
    let session = Session::new(spec(2, Origin::Outbound, &shared.settings), &shared);
    let (stream, _silent) = tokio::io::duplex(64);
    let host = Arc::new(FakeHost::default());
    tokio::spawn(driver(&session, Box::new(stream), core, &host));
    settle().await;
    let got: Vec<u64> =
        std::iter::from_fn(|| inbox.try_recv()).map(|got| number(&got.body)).collect();
    assert_eq!(got, [1, 2]);
}

/// Two ends whose initiator cannot write.
async fn blocked(config: Config) -> (End, End, Arc<Gates>) {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, gates) = Gated::new(a);
    let settings = settings(config);
    let (ours, theirs) = join(Arc::clone(&settings), settings, a, b);
    settle().await;
    gates.closed_for_writing.store(true, Ordering::Relaxed);
    (ours, theirs, gates)
}

fn small() -> Config {
    Config::default()
        .max_message_size(4_000)
        .min_queue(2_000)
        .max_queue(10_000)
        .max_buffered_bytes(20_000)
        .max_undelivered(5_000)
        .inbox_bytes(50_000)
}

#[tokio::test(start_paused = true)]
async fn expired_messages_are_dropped_counted_and_delay_nobody() {
    let (ours, mut theirs, gates) = blocked(Config::default()).await;
    let lease = ours.lease();
    // The first is sealed at once; the rest wait behind it.
    lease.send(message(0, 10)).await.unwrap();
    settle().await;
    let soon = SendOptions::default().deadline((Instant::now() + Duration::from_secs(1)).into());
    for count in 1..10 {
        let options = if count % 2 == 0 { soon } else { SendOptions::default() };
        lease.send_with(message(count, 10), options).await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = lease.send_with(message(10, 10), soon).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Expired);
    gates.closed_for_writing.store(false, Ordering::Relaxed);
    ours.session.signal.wake();
    lease.flush().await.unwrap();
    settle().await;
    let got: Vec<_> = theirs.received().iter().map(number).collect();
    assert_eq!(got, [0, 1, 3, 5, 7, 9]);
    assert_eq!(ours.session.snapshot(Instant::now()).expired, 4);
    ours.assert_settled();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_senders_wait_in_turn_and_gives_messages_back() {
    let (ours, mut theirs, gates) = blocked(small()).await;
    let lease = ours.lease();
    let mut sent = 0;
    let full = loop {
        match lease.try_send(message(sent, 936)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind, SendErrorKind::Full);
    assert_eq!(number(&full.message), sent);
    // 2,000 of its own and 8,000 of the budget, at 1,000 each.
    assert_eq!(sent, 10);
    assert_eq!(ours.session.queue.level().bytes, 10_000);

    let waiting: Vec<_> = (sent..sent + 20)
        .map(|count| {
            let lease = ours.lease();
            tokio::spawn(async move { lease.send(message(count, 936)).await })
        })
        .collect();
    settle().await;
    // A little one does not pass those who wait, though there may be room for it.
    assert_eq!(lease.try_send(Bytes::new()).unwrap_err().kind, SendErrorKind::Full);
    let deadline =
        SendOptions::default().deadline((Instant::now() + Duration::from_secs(1)).into());
    let error = lease.send_with(message(99, 10), deadline).await.unwrap_err();
    assert_eq!((error.kind, number(&error.message)), (SendErrorKind::Expired, 99));

    gates.closed_for_writing.store(false, Ordering::Relaxed);
    ours.session.signal.wake();
    for expected in 0..30 {
        assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), expected);
    }
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    ours.lease().flush().await.unwrap();
    ours.assert_settled();
}

/// A message's memory may be the application's own, and its drop the application's code.
#[tokio::test]
async fn no_message_is_dropped_under_the_queues_lock() {
    struct Owned(Arc<Session>, [u8; 64]);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }
    impl Drop for Owned {
        fn drop(&mut self) {
            // Would wait for itself for ever.
            assert!(self.0.queue.level().accepted > 0);
        }
    }
    let (ours, mut theirs) = pair(Config::default(), 1 << 20).await;
    for _ in 0..3 {
        let body = Bytes::from_owner(Owned(Arc::clone(&ours.session), [7; 64]));
        ours.lease().send(body).await.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(theirs.inbox.recv().await.unwrap().body, [7; 64][..]);
    }
}

/// Many senders of one full queue handed the turn from one to the next for each message, also when
/// there was room for hundreds.
#[tokio::test]
async fn a_newcomer_passes_those_who_wait_only_where_there_is_room_for_all() {
    let settings = settings(small());
    let (queue, control) = (Queue::new(&settings, &ABILITIES, 0), DriverSignal::default());
    let (shared, _inbox) = SessionContext::new(settings);
    let offer = |size| queue.try_push(&control, &shared.budget, message(0, size), None).is_ok();
    // 2,000 of its own and 8,000 of the budget, at 1,000 each.
    while offer(936) {}
    let mut waits = std::pin::pin!(queue.push(&control, &shared.budget, message(0, 936), None));
    assert!(futures_util::poll!(&mut waits).is_pending());

    let mut taken = QueuedMessages::default();
    queue.take_all(&mut taken);
    let mut free = || {
        let Some(Entry::Message(first)) = taken.pop() else { panic!("it is not small") };
        queue.release(&shared.budget, first.reserved());
    };
    free();
    assert!(!offer(8), "there is room for it, but then none for the one who waits");
    free();
    assert!(offer(936), "there is room for both");
    assert!(!offer(8));
    assert!(futures_util::poll!(&mut waits).is_ready());
    assert!(!offer(8));
}

#[tokio::test(start_paused = true)]
async fn a_send_cancelled_at_any_poll_was_not_accepted_or_was_accepted_whole() {
    for polls in 0..6 {
        let (ours, mut theirs, gates) = blocked(small()).await;
        let lease = ours.lease();
        let mut accepted = 0;
        while lease.try_send(message(accepted, 936)).is_ok() {
            accepted += 1;
        }
        {
            let mut send = std::pin::pin!(lease.send(message(1_000, 936)));
            for poll in 0..polls {
                if poll == 3 {
                    gates.closed_for_writing.store(false, Ordering::Relaxed);
                    ours.session.signal.wake();
                }
                if futures_util::poll!(&mut send).is_ready() {
                    accepted += 1;
                    break;
                }
                settle().await;
            }
        }
        gates.closed_for_writing.store(false, Ordering::Relaxed);
        ours.session.signal.wake();
        let last = lease.send(message(2_000, 936));
        let read_all = async {
            let mut count = 0;
            while number(&theirs.inbox.recv().await.unwrap().body) != 2_000 {
                count += 1;
            }
            count
        };
        let (sent, count) = tokio::join!(last, read_all);
        sent.unwrap();
        assert_eq!(count, accepted, "cancelled after {polls} polls");
        lease.flush().await.unwrap();
        ours.assert_settled();
    }
}

#[tokio::test(start_paused = true)]
async fn three_hundred_stalled_peers_take_the_budget_and_a_healthy_one_never_waits() {
    let config = Config::default()
        .max_message_size(4_000)
        .min_queue(8_000)
        .max_queue(64_000)
        .max_buffered_bytes(1_000_000)
        .max_undelivered(8_000)
        .inbox_bytes(8_000);
    let settings = settings(config);
    let (shared, _inbox) = SessionContext::new(Arc::clone(&settings));
    let mut stalled = Vec::new();
    for _ in 0..300 {
        let (a, b) = tokio::io::duplex(256);
        let (a, gates) = Gated::new(a);
        let ends = join_shared(
            (Arc::clone(&shared), SessionContext::new(Arc::clone(&settings)).1),
            SessionContext::new(Arc::clone(&settings)),
            a,
            b,
            |_| {},
        );
        stalled.push((ends, gates));
    }
    settle().await;
    for ((ours, _), gates) in &stalled {
        gates.closed_for_writing.store(true, Ordering::Relaxed);
        let lease = ours.lease();
        while lease.try_send(message(1, 936)).is_ok() {}
    }
    settle().await;
    let paid: usize = stalled.iter().map(|((ours, _), _)| ours.session.queue.level().bytes).sum();
    assert!(paid <= 1_000_000 + 300 * 8_000, "{paid} bytes are paid for");
    assert!(shared.budget.permits.available_permits() < 1_000);

    let (a, b) = tokio::io::duplex(1 << 16);
    let healthy = join_shared(
        (Arc::clone(&shared), SessionContext::new(Arc::clone(&settings)).1),
        SessionContext::new(settings),
        a,
        b,
        |_| {},
    );
    let (ours, mut theirs) = healthy;
    let lease = ours.lease();
    for count in 0..1_000 {
        lease.try_send(message(count, 936)).unwrap();
        assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), count);
    }
    for ((ours, _), _) in &stalled {
        ours.session.close(CloseReason::PoolClosed);
    }
    settle().await;
    for ((ours, _), _) in &stalled {
        ours.host.unsent.lock().unwrap().clear();
    }
    ours.assert_settled();
}

#[tokio::test(start_paused = true)]
async fn a_slow_inbox_loses_neither_message_nor_session() {
    let (ours, mut theirs) = pair(small(), 1_000).await;
    let lease = ours.lease();
    let sender = tokio::spawn(async move {
        for count in 0..100 {
            lease.send(message(count, 900)).await?;
        }
        lease.flush().await.unwrap();
        Ok::<_, SendError>(lease)
    });
    // Ten times keepalive without a look at the inbox.
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(theirs.shared.inbox.gauge().high_water <= 50_000);
    assert!(!sender.is_finished());
    for count in 0..100 {
        let got = theirs.inbox.recv().await.unwrap();
        assert_eq!(number(&got.body), count);
    }
    let _lease = sender.await.unwrap().unwrap();
    assert_eq!(ours.session.ended(), None);
    assert_eq!(theirs.session.ended(), None);
    assert!(ours.session.probe().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn two_slow_applications_at_once_lose_nothing() {
    let (mut ours, mut theirs) = pair(small(), 1_000).await;
    let senders = [ours.lease(), theirs.lease()].map(|lease| {
        tokio::spawn(async move {
            for count in 0..100 {
                lease.send(message(count, 900)).await.unwrap();
            }
            lease
        })
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((ours.session.ended(), theirs.session.ended()), (None, None));
    for count in 0..100 {
        assert_eq!(number(&ours.inbox.recv().await.unwrap().body), count);
        if count == 50 {
            tokio::time::sleep(Duration::from_secs(300)).await;
        }
    }
    for count in 0..100 {
        assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), count);
    }
    for sender in senders {
        sender.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_on_one_session_does_not_keep_another_from_the_inbox() {
    let settings = settings(small().inbox_bytes(12_000));
    let (theirs_shared, mut inbox) = SessionContext::new(Arc::clone(&settings));
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (a, b) = tokio::io::duplex(1_000);
        let unused = SessionContext::new(Arc::clone(&settings)).1;
        ends.push(join_shared(
            SessionContext::new(Arc::clone(&settings)),
            (Arc::clone(&theirs_shared), unused),
            a,
            b,
            |_| {},
        ));
    }
    let senders: Vec<_> = ends
        .iter()
        .map(|(ours, _)| {
            let lease = ours.lease();
            tokio::spawn(async move {
                for count in 0..200 {
                    lease.send(message(count, 900)).await.unwrap();
                }
            })
        })
        .collect();
    settle().await;
    let mut next = std::collections::HashMap::new();
    let mut window = Vec::new();
    for taken in 0..600 {
        settle().await;
        let got = inbox.recv().await.unwrap();
        assert!(theirs_shared.inbox.gauge().held <= 12_000);
        let next = next.entry(got.session).or_insert(0);
        assert_eq!(number(&got.body), *next);
        *next += 1;
        if taken < 300 {
            window.push(got.session);
        }
    }
    // While all three press, none gets less than half of its share.
    for (_, theirs) in &ends {
        let share = window.iter().filter(|&&session| session == theirs.session.id()).count();
        assert!(share >= 50, "{share} of 300");
    }
    for sender in senders {
        sender.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_the_socket_and_ends_with_the_session() {
    let (ours, _theirs, _gates) = blocked(Config::default()).await;
    let lease = ours.lease();
    lease.flush().await.unwrap();
    lease.send(message(1, 10)).await.unwrap();
    let mut flush = std::pin::pin!(lease.flush());
    assert!(futures_util::poll!(&mut flush).is_pending());
    settle().await;
    assert!(futures_util::poll!(&mut flush).is_pending());
    ours.session.close(CloseReason::Disconnected);
    assert_eq!(flush.await, Err(SessionClosed(CloseReason::Disconnected)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dribbles_bytes_is_understood() {
    let (ours, mut theirs) = pair(Config::default(), 1).await;
    ours.lease().send(message(5, 3_000)).await.unwrap();
    assert_eq!(number(&theirs.inbox.recv().await.unwrap().body), 5);
    assert!(ours.session.probe().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_inbox_discards_and_counts_and_stops_nobody() {
    let (ours, theirs) = pair(small(), 1_000).await;
    let End { inbox, shared, session, .. } = theirs;
    let lease = ours.lease();
    for count in 0..8 {
        lease.send(message(count, 900)).await.unwrap();
    }
    settle().await;
    drop(inbox);
    for count in 0..50 {
        lease.send(message(count, 900)).await.unwrap();
    }
    lease.flush().await.unwrap();
    settle().await;
    assert_eq!(shared.inbox.gauge().discarded, 58);
    assert_eq!((session.ended(), session.has_backlog()), (None, false));
}

/// A reader's waker that looks at the session, as one that takes a snapshot does.
struct Looks {
    session: Arc<Session>,
    woken: AtomicBool,
}

impl std::task::Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert_eq!(self.session.receiver.undelivered(), 0);
        self.session.context.inbox.gauge();
        self.woken.store(true, Ordering::Relaxed);
    }
}

/// A waker that is called under a lock hangs this test.
#[tokio::test(start_paused = true)]
async fn the_readers_waker_is_called_when_the_locks_are_free() {
    let (ours, mut theirs) = pair(Config::default(), 1 << 16).await;
    let looks = Arc::new(Looks { session: theirs.session.clone(), woken: AtomicBool::new(false) });
    let waker = std::task::Waker::from(looks.clone());
    let mut next = Box::pin(theirs.inbox.recv());
    let polled = next.as_mut().poll(&mut std::task::Context::from_waker(&waker));
    assert!(polled.is_pending() && !looks.woken.load(Ordering::Relaxed));
    ours.lease().send(message(7, 10)).await.unwrap();
    settle().await;
    assert!(looks.woken.load(Ordering::Relaxed));
    assert_eq!(number(&next.await.unwrap().body), 7);
}

/// Real threads, a tiny stream and tiny queues: a wake-up that is lost anywhere hangs this test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_no_wake_up_is_lost() {
    let (ours, theirs) = pair(small(), 333).await;
    let mut tasks = Vec::new();
    for end in [&ours, &theirs] {
        for task in 0..8_u64 {
            let lease = end.lease();
            tasks.push(tokio::spawn(async move {
                for count in 0..500 {
                    lease.send(message(task << 32 | count, 700)).await.unwrap();
                    if count % 50 == 0 {
                        lease.flush().await.unwrap();
                    }
                }
            }));
        }
    }
    let readers = [ours, theirs].map(|mut end| {
        tokio::spawn(async move {
            let mut next = [0; 8];
            for _ in 0..8 * 500 {
                let number = number(&end.inbox.recv().await.unwrap().body);
                let task = (number >> 32) as usize;
                assert_eq!(number as u32, next[task]);
                next[task] += 1;
            }
            end
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    let mut ends = Vec::new();
    for reader in readers {
        ends.push(reader.await.unwrap());
    }
    ends[0].retire(CloseReason::Age);
    for end in &ends {
        let (_, report) = end.end().await;
        assert_eq!((report.accepted, report.delivered, report.received), (4_000, 4_000, 4_000));
        end.assert_settled();
    }
}
