//! Bounds, turns and wake-ups of the inbox.

use std::pin::pin;

use super::*;
use crate::base::config::Config;
use crate::base::id::{PeerId, SessionId};
use crate::base::key::StaticKey;
use crate::proto::native::record::Record;
use crate::proto::wire::batch::MessageBatch;
use crate::session::signal::CAPACITY;

fn window() -> Arc<ReceiveWindow> {
    let peer = PeerId::from_bytes(*StaticKey::new([1; 32]).public());
    ReceiveWindow::new(peer, SessionId::next(), Arc::default())
}

fn wakes(window: &ReceiveWindow) -> bool {
    window.signal.take(Waker::noop()) & CAPACITY != 0
}

fn messages(count: usize) -> ReceiveQueue {
    let mut messages = ReceiveQueue::default();
    (0..count).for_each(|_| messages.push(MessageBatch::Message(Bytes::from_static(&[0; 936]))));
    messages
}

/// The same, as they come in one frame.
fn frame(count: usize) -> ReceiveQueue {
    let mut records = Vec::new();
    (0..count).for_each(|_| Record::Data(&[0; 936]).encode(&mut records));
    let mut messages = ReceiveQueue::default();
    messages.push(MessageBatch::Frame { blocks: records.into(), messages: count as u32 });
    messages
}

fn small() -> (InboxSender, Inbox) {
    let config = Config::default().max_message_size(1_000).max_undelivered(4_000);
    let config = config.min_queue(2_000).max_queue(2_000);
    inbox(&config.inbox_bytes(8_000).max_buffered_bytes(3_000).validate().unwrap())
}

#[test]
fn room_is_given_in_turn_and_those_who_leave_hold_nobody_up() {
    let (sender, mut inbox) = small();
    let gates: Vec<_> = (0..4).map(|_| window()).collect();
    for window in &gates[..2] {
        drop(sender.offer(window, &mut messages(4), Priority::Usual));
    }
    let mut waiting = messages(1);
    drop(sender.offer(&gates[2], &mut waiting, Priority::Usual));
    drop(sender.offer(&gates[3], &mut messages(1), Priority::Usual));
    assert_eq!(waiting.len(), 1);
    assert!(inbox.try_recv().is_some());
    assert!(wakes(&gates[2]) && !wakes(&gates[3]));
    drop(sender.leave(&gates[2]));
    assert!(wakes(&gates[3]));
    // Nobody passes the one whose turn it is.
    drop(sender.offer(&gates[2], &mut waiting, Priority::Usual));
    assert_eq!(waiting.len(), 1);
}

#[test]
fn a_session_at_its_own_bound_is_woken_when_half_of_it_is_free() {
    let (sender, mut inbox) = small();
    let window = window();
    let mut pending = messages(6);
    drop(sender.offer(&window, &mut pending, Priority::Usual));
    assert_eq!((pending.len(), window.undelivered()), (2, 4_000));
    assert!(inbox.try_recv().is_some() && !wakes(&window));
    assert!(inbox.try_recv().is_some() && wakes(&window));
}

#[test]
fn a_session_that_drains_holds_a_bounded_amount_more_and_passes_those_in_line() {
    let (sender, mut inbox) = small();
    let (full, draining, waiting) = (window(), window(), window());
    drop(sender.offer(&full, &mut messages(4), Priority::Usual));
    drop(sender.offer(&draining, &mut messages(4), Priority::Usual));
    let mut rest = messages(1);
    drop(sender.offer(&waiting, &mut rest, Priority::Usual));
    assert_eq!(rest.len(), 1, "the inbox is full");
    // Up to the second bound of the whole inbox, 11,000 bytes ..
    let mut pending = messages(9);
    drop(sender.offer(&draining, &mut pending, Priority::Draining));
    assert_eq!((pending.len(), draining.undelivered()), (6, 7_000));
    // .. and to its own, of 8,000; it is woken like any other.
    for _ in 0..4 {
        assert_eq!(inbox.try_recv().map(|m| m.session), Some(full.session));
    }
    drop(sender.offer(&draining, &mut pending, Priority::Draining));
    assert_eq!((pending.len(), draining.undelivered()), (5, 8_000));
    while draining.undelivered() > 2_000 {
        assert!(!wakes(&draining));
        assert!(inbox.try_recv().is_some());
    }
    assert!(wakes(&draining));
}

#[test]
fn the_second_bound_is_final() {
    let (sender, _inbox) = small();
    let window = window();
    let mut pending = messages(20);
    drop(sender.offer(&window, &mut pending, Priority::Ending));
    assert_eq!(sender.gauge().held, 11_000);
    assert_eq!(pending.len(), 9);
}

#[test]
fn a_frame_for_which_there_is_no_room_is_handed_over_as_far_as_there_is() {
    let (sender, mut inbox) = small();
    let (window, other) = (window(), window());
    // Its own bound, of 4,000 bytes, falls inside the frame.
    let mut pending = frame(6);
    drop(sender.offer(&window, &mut pending, Priority::Usual));
    assert_eq!((pending.size().messages, window.undelivered()), (2, 4_000));
    drop(sender.offer(&other, &mut frame(3), Priority::Usual));
    assert_eq!(sender.gauge().held, 7_000);
    for expected in [&window, &window, &window, &window, &other, &other, &other] {
        let message = inbox.try_recv().unwrap();
        assert_eq!((message.session, message.body.len()), (expected.session, 936));
    }
    assert_eq!((window.undelivered(), sender.gauge().held), (0, 0));
    drop(sender.offer(&window, &mut pending, Priority::Usual));
    assert_eq!((pending.is_empty(), window.undelivered()), (true, 2_000));
}

#[tokio::test]
async fn many_are_taken_as_one_by_one_in_order_and_up_to_the_limit() {
    let (sender, mut inbox) = small();
    let (window, other, third) = (window(), window(), window());
    let mut pending = frame(6);
    drop(sender.offer(&window, &mut pending, Priority::Usual));
    drop(sender.offer(&other, &mut messages(3), Priority::Usual));
    drop(sender.offer(&third, &mut frame(1), Priority::Usual));
    let mut got = Vec::new();
    assert_eq!(inbox.recv_many(&mut got, 0).await, 0);
    assert_eq!((inbox.recv_many(&mut got, 1).await, wakes(&window)), (1, false));
    assert_eq!((window.undelivered(), sender.gauge().held), (3_000, 7_000));
    assert_eq!((inbox.recv_many(&mut got, 4).await, wakes(&window)), (4, true));
    assert_eq!((window.undelivered(), other.undelivered(), sender.gauge().held), (0, 2_000, 3_000));
    assert_eq!(inbox.recv_many(&mut got, usize::MAX).await, 3);
    assert_eq!((other.undelivered(), third.undelivered(), sender.gauge().held), (0, 0, 0));
    let whose: Vec<_> = got.iter().map(|message| (message.session, message.body.len())).collect();
    let counts = [(&window, 4), (&other, 3), (&third, 1)];
    let each = |(window, count): (&Arc<ReceiveWindow>, _)| vec![(window.session, 936); count];
    assert_eq!(whose, counts.into_iter().flat_map(each).collect::<Vec<_>>());
    // None is there: it waits, until there is one or never will be.
    assert!(futures_util::poll!(pin!(inbox.recv_many(&mut got, 5))).is_pending());
    drop(sender.offer(&window, &mut pending, Priority::Usual));
    assert_eq!(inbox.recv_many(&mut got, 5).await, 2);
    sender.close();
    assert_eq!(inbox.recv_many(&mut got, 5).await, 0);
}

#[test]
fn where_nothing_is_held_one_message_has_room_and_a_frame_of_many_has_not() {
    let config = Config::default().max_message_size(1_000).max_undelivered(1_064);
    let settings = config.min_queue(2_000).max_queue(2_000).inbox_bytes(1_064).validate().unwrap();
    let (sender, mut inbox) = inbox(&settings);
    let window = window();
    let mut pending = frame(3);
    for left in [2, 1, 0] {
        drop(sender.offer(&window, &mut pending, Priority::Usual));
        assert_eq!((pending.size().messages, window.undelivered()), (left, 1_000));
        assert!(inbox.try_recv().is_some());
    }
}
