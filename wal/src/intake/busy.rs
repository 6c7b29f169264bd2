//! Which threads have appended and go on working: they are likely to append more in a moment.
//!
//! A thread takes part by calling [`rest`] whenever it has nothing more to do. From its first append after that to the next
//! call it counts as busy. Threads that never call it never do.

use std::cell::RefCell;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A log that is told when the threads that appended to it have done what they had to do.
pub(crate) trait Rests: Send + Sync {
    /// The threads that have appended to it and not rested since.
    fn busy_threads(&self) -> &BusyThreads;
    /// The last of them rests now.
    fn all_rest(&self);
}

/// How many threads have appended and not rested since.
#[derive(Debug, Default)]
pub(crate) struct BusyThreads(AtomicUsize);

impl BusyThreads {
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn enter(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether it was the last.
    fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// What is known of a thread. When the thread ends, it rests.
struct Here {
    takes_part: bool,
    busy_for: Option<Weak<dyn Rests>>,
}

thread_local! {
    static HERE: RefCell<Here> = const { RefCell::new(Here { takes_part: false, busy_for: None }) };
}

impl Here {
    fn rest(&mut self) {
        let Some(log) = self.busy_for.take().and_then(|log| log.upgrade()) else {
            return;
        };
        if log.busy_threads().leave() {
            log.all_rest();
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Something was appended to `log` on this thread. Of several logs, one thread is busy for one at a time.
pub(crate) fn appended<L: Rests + 'static>(log: &std::sync::Arc<L>) {
    // Not while the thread ends.
    let marked = HERE.try_with(|here| {
        let mut here = here.borrow_mut();
        if here.takes_part && here.busy_for.is_none() {
            let busy_for: Weak<L> = std::sync::Arc::downgrade(log);
            here.busy_for = Some(busy_for);
            log.busy_threads().enter();
        }
    });
    marked.ok();
}

/// Says that this thread has nothing more to do for now. To be called whenever that is so, as by a runtime whose thread parks,
/// or never: a batch that a thread which calls this has appended to is committed when the thread rests, or after 5 ms.
pub fn rest() {
    let rested = HERE.try_with(|here| {
        let mut here = here.borrow_mut();
        here.takes_part = true;
        here.rest();
    });
    rested.ok();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Default)]
    struct Log(BusyThreads, AtomicUsize);

    impl Rests for Log {
        fn busy_threads(&self) -> &BusyThreads {
            &self.0
        }

        fn all_rest(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_thread_is_busy_from_its_append_until_it_rests_or_ends() {
        let log = Arc::<Log>::default();
        let rested = || log.1.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                appended(&log);
                assert!(!log.0.is_any(), "it never rests, so nobody waits for it");
                rest();
                assert!(!log.0.is_any());
                appended(&log);
                appended(&log);
                assert!(log.0.is_any() && rested() == 0);
                rest();
                assert!(!log.0.is_any() && rested() == 1);
                rest();
                assert_eq!(rested(), 1, "it had appended nothing");
                appended(&log);
            });
        });
        // A scope ends before what its threads leave behind is dropped.
        while log.0.is_any() {
            std::thread::yield_now();
        }
        assert_eq!(rested(), 2, "it has ended");
    }

    #[test]
    fn of_two_busy_threads_the_last_one_counts() {
        let log = Arc::<Log>::default();
        rest();
        appended(&log);
        let other = Arc::clone(&log);
        let thread = std::thread::spawn(move || {
            rest();
            appended(&other);
        });
        thread.join().unwrap();
        assert!(log.0.is_any() && log.1.load(Ordering::Relaxed) == 0);
        rest();
        assert!(!log.0.is_any() && log.1.load(Ordering::Relaxed) == 1);
    }
}
