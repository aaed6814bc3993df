//! What the pool of buffers keeps, and for whom.

use super::*;

#[test]
fn keeps_no_more_than_its_bound_and_hands_out_empty_write_buffers() {
    let pool = BufferPool::new(2);
    let mut used = pool.take_write();
    used.push(1);
    let (read, other) = (pool.take_read(), pool.take_write());
    pool.give_write(used);
    pool.give_read(read);
    pool.give_write(other);
    assert_eq!(pool.spare(), (1, 1));
    assert!(pool.take_write().is_empty());
    assert_eq!(pool.take_read().len(), READ_BUFFER);
    assert_eq!(pool.spare(), (0, 0));
}

#[test]
fn a_plaintexts_memory_comes_back_with_the_last_message_in_it_and_shows_nothing_old() {
    let pool = Arc::new(BufferPool::new(2));
    let mut plaintext = pool.plaintext(60_000);
    plaintext.as_mut().fill(7);
    let mut frame = Bytes::from(plaintext);
    let message = frame.split_to(64);
    drop(frame);
    assert_eq!(pool.spare(), (0, 0));
    assert_eq!(message, [7; 64][..]);
    drop(message);
    assert_eq!(pool.spare(), (0, 1));
    assert_eq!(pool.plaintext(61_000).as_ref(), [0; 61_000]);
}

#[test]
fn whoever_holds_a_buffer_for_long_gets_none_that_has_grown() {
    let pool = Arc::new(BufferPool::new(8));
    for _ in 0..2 {
        pool.give_write(Vec::with_capacity(LARGEST_KEPT));
    }
    let length = WRITE_BUFFER.div_ceil(2);
    assert!(pool.plaintext(length).size() <= 2 * length);
    assert_eq!(pool.take_write().capacity(), WRITE_BUFFER);
    // Batches do, and leave the others to those who need them.
    assert_eq!(pool.take_batch().capacity(), LARGEST_KEPT);
    assert_eq!(pool.spare(), (0, 1));
}

#[test]
fn buffers_that_have_grown_take_no_room_from_those_that_serve_everybody() {
    let pool = BufferPool::new(8);
    for capacity in [LARGEST_KEPT, WRITE_BUFFER] {
        (0..6).for_each(|_| pool.give_write(Vec::with_capacity(capacity)));
        assert_eq!(pool.spare(), (0, 4));
    }
    assert_eq!(pool.lock().write.len(), 4);
    pool.give_write(Vec::with_capacity(LARGEST_KEPT));
    assert_eq!((pool.spare(), pool.lock().write.len()), ((0, 4), 4));
}

#[test]
fn no_more_are_kept_than_there_is_room_for_and_half_of_it_is_for_reading() {
    for (max, reads, writes) in [(0, 0, 0), (1, 1, 0), (2, 1, 1), (7, 4, 3), (8, 4, 4)] {
        let pool = BufferPool::new(max);
        for _ in 0..10 {
            pool.give_read(vec![0; READ_BUFFER].into());
            pool.give_write(Vec::with_capacity(WRITE_BUFFER));
        }
        assert_eq!(pool.spare(), (reads, writes));
    }
}

#[test]
fn buffers_of_odd_sizes_are_not_kept() {
    let pool = BufferPool::new(2);
    pool.give_write(Vec::with_capacity(LARGEST_KEPT + 1));
    pool.give_write(vec![1, 2, 3]);
    assert_eq!(pool.spare(), (0, 0));
}
