//! Locks whose poison is of no interest: what they guard is changed in steps that cannot panic half way; and calls into
//! the code of others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever became of the last holder.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls what is not ours. A panic in there is logged and harms nobody else: the writer thread serves all.
pub(crate) fn guarded(what: &'static str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(
            what,
            "panicked when it was told of a commit; this is a fault of ours, please report it"
        );
    }
}
