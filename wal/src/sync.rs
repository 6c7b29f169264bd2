//! Locks whose poison is of no interest: what they guard is changed in steps that cannot panic half way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever became of the last holder.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
