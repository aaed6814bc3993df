//! How other tasks reach a session's driver: its waker, and flags that say what to look at.
//!
//! Owns the wake-up. A flag is set before the driver is woken; the driver registers its waker before it
//! reads the flags, so that none is missed. Commands themselves lie elsewhere; nothing here decides.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;

/// The session was retired, drained or closed.
pub(super) const COMMAND: u32 = 1;
/// A caller waits for a ping.
pub(super) const PROBE: u32 = 1 << 1;
/// The inbox, or the holder of the exclusive lease, has room again.
pub(super) const CAPACITY: u32 = 1 << 2;
/// A lease core of a retired session has gone.
pub(super) const LEASES: u32 = 1 << 3;
/// A newer session of the peer stands.
pub(super) const SUCCESSOR: u32 = 1 << 4;
/// The machine was suspended: nothing is known of the peer.
pub(super) const SUSPENDED: u32 = 1 << 5;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DriverSignal {
    flags: AtomicU32,
    waker: AtomicWaker,
}

impl DriverSignal {
    /// Sets `flag` and wakes the driver.
    pub(super) fn set(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::Release);
        self.waker.wake();
    }

    /// Wakes the driver.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// For the driver: registers `waker`, then takes the flags.
    pub(super) fn take(&self, waker: &Waker) -> u32 {
        self.waker.register(waker);
        // The common case is no flag; a plain load spares the cache line a write.
        if self.flags.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.flags.swap(0, Ordering::AcqRel)
    }
}
