//! How long a thread waits for a core that others want too.
//!
//! For threads that stand for other machines, where they would have cores of their own: what they wait
//! here, and what others wait for them, belongs to no measurement.

use std::io;

/// When the system lets a thread run that has work.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// Soon: it asks for shorter slices of time than others have, and interrupts theirs (Linux 6.12
    /// and later; as any other before).
    Soon,
    /// When nobody else wants the core, and until somebody does.
    Last,
}

/// As `sched_setattr(2)` has it.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Nanoseconds; for ordinary threads the length of a slice, 0 for the usual one.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The shortest slice that there is.
const SHORT: u64 = 100_000;

impl Turn {
    /// Asks for it, for this thread.
    ///
    /// # Panics
    /// If the system refuses: anybody may ask for either.
    pub fn take(self) {
        let (policy, runtime) = match self {
            Self::Soon => (libc::SCHED_OTHER, SHORT),
            Self::Last => (libc::SCHED_IDLE, 0),
        };
        let attributes = Attributes {
            size: size_of::<Attributes>() as u32,
            policy: policy as u32,
            flags: 0,
            nice: 0,
            priority: 0,
            runtime,
            deadline: 0,
            period: 0,
        };
        // SAFETY: the call reads `size` bytes, all of the structure, and changes nothing but how this
        // thread (0) is scheduled.
        let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        assert!(done == 0, "how a thread is scheduled: {}", io::Error::last_os_error());
    }
}
