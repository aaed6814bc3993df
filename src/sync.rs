//! Locks as this crate uses them.
//!
//! Owns one decision: a lock whose holder panicked is taken all the same. What our locks guard is
//! changed in single steps, so a panic leaves it whole, and a poisoned lock must not stop the pool.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever became of the last holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
