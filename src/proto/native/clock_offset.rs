//! How the clocks of the last peers differ from ours.

/// How many peers' clocks are remembered: enough that a few wrong ones do not show.
const REMEMBERED: usize = 64;

/// The clock offsets of the last peers, in seconds. A fixed amount of memory.
#[derive(Default)]
pub(crate) struct ClockOffsets {
    last: Vec<i64>,
    /// Where the next one goes once all places are taken: on the oldest.
    next: usize,
}

impl ClockOffsets {
    /// Notes a peer's clock less ours.
    pub(crate) fn note(&mut self, seconds: i64) {
        if self.last.len() < REMEMBERED {
            self.last.push(seconds);
        } else {
            self.last[self.next] = seconds;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    /// The middle one, the lower of two; none before the first peer.
    pub(crate) fn median(&self) -> Option<i64> {
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_last_peers() {
        let mut offsets = ClockOffsets::default();
        assert_eq!(offsets.median(), None);
        offsets.note(5);
        assert_eq!(offsets.median(), Some(5));
        offsets.note(-1);
        assert_eq!(offsets.median(), Some(-1));
        offsets.note(1_000);
        assert_eq!(offsets.median(), Some(5));
        for _ in 0..REMEMBERED {
            offsets.note(7);
        }
        assert_eq!(offsets.median(), Some(7));
        assert_eq!(offsets.last, [7; REMEMBERED]);
    }
}
