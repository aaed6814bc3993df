//! How much is sealed at a time: as much as the link takes in some tens of milliseconds.
//!
//! Owns the size of a batch. What is sealed can neither expire nor be passed by control records, so on a
//! slow link it must be little; on a fast one each system call must carry much. It must never read a
//! clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::proto::wire::connection::{LARGE_BATCH, MAX_FRAME};
use crate::session::buffers::LARGEST_KEPT;

const _: () = assert!(LARGE_BATCH + MAX_FRAME <= LARGEST_KEPT, "the pool keeps a batch's buffer");

/// The least: a message of an overlay's, and a control record beside it.
const SMALL_BATCH: usize = 2 * 1024;

/// A batch that was blocked for longer was too large.
const LONG: Duration = Duration::from_millis(40);

/// One that was blocked for less may be larger.
const SHORT: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    batch: usize,
    /// Since when the batch under way is blocked.
    blocked_since: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: LARGE_BATCH, blocked_since: None }
    }
}

impl Pace {
    /// Bytes of ciphertext after which a batch is closed.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Bytes of a frame: a large batch may be one, and none of its frames is cut short.
    fn frames(&self) -> usize {
        if self.batch < LARGE_BATCH { self.batch } else { MAX_FRAME }
    }

    /// The socket takes no more for now.
    pub(super) fn blocked(&mut self, now: Instant) {
        self.blocked_since.get_or_insert(now);
    }

    /// The batch is written. The size of frames from now on, if it is another.
    pub(super) fn written(&mut self, now: Instant) -> Option<usize> {
        let blocked = self.blocked_since.take().map_or(Duration::ZERO, |since| now - since);
        let before = self.batch;
        if blocked > LONG {
            self.batch = (before / 2).max(SMALL_BATCH);
        } else if blocked < SHORT {
            self.batch = (before * 2).min(LARGE_BATCH);
        }
        (self.batch != before).then(|| self.frames())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_follows_the_link_and_stays_in_its_bounds() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        assert_eq!((pace.batch(), pace.written(now)), (LARGE_BATCH, None));
        let mut takes = |pace: &mut Pace, millis| {
            pace.blocked(now);
            now += Duration::from_millis(millis);
            pace.blocked(now);
            pace.written(now)
        };
        assert_eq!(takes(&mut pace, 41), Some(LARGE_BATCH / 2));
        assert_eq!(takes(&mut pace, 20), None, "that is what it is to be");
        for _ in 0..10 {
            takes(&mut pace, 500);
        }
        assert_eq!((pace.batch(), takes(&mut pace, 500)), (SMALL_BATCH, None));
        assert_eq!(takes(&mut pace, 9), Some(2 * SMALL_BATCH));
        assert_eq!(pace.written(now), Some(4 * SMALL_BATCH), "it was not blocked at all");
        while pace.batch() < LARGE_BATCH / 2 {
            pace.written(now);
        }
        assert_eq!((pace.written(now), pace.batch()), (Some(MAX_FRAME), LARGE_BATCH));
    }
}
