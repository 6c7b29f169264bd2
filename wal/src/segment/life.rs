//! Where each segment stands in its life, and how many read it: one owner for both.
//!
//! ```text
//!  ahead ──▶ active ──▶ closing ──▶ closed ──▶ spent
//! ```
//!
//! What is made ahead has no number yet. A segment that is closing is read by nobody: opened at that moment, it looks as if
//! it had never been closed, and redb would read all of it to repair a view of it. A spent one is unlinked, or the next
//! segment is laid over it, but only when nobody reads in it any more.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::sync::lock;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    Active,
    Closing,
    #[default]
    Closed,
    Spent,
}

#[derive(Debug, Default)]
struct Segment {
    life: Life,
    readers: usize,
}

/// The lives of all segments; a closed one without readers needs no entry.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    segments: Mutex<BTreeMap<u64, Segment>>,
    changed: Condvar,
}

impl Lives {
    pub(crate) fn enter(&self, number: u64, life: Life) {
        let mut segments = lock(&self.segments);
        segments.entry(number).or_default().life = life;
        segments.retain(|_, segment| segment.life != Life::Closed || segment.readers > 0);
        self.changed.notify_all();
    }

    /// Counts a reader until the guard is dropped.
    pub(crate) fn read(&self, number: u64) -> Reading<'_> {
        lock(&self.segments).entry(number).or_default().readers += 1;
        Reading { lives: self, number }
    }

    /// Waits while the segment is being closed; `false` if it is spent.
    pub(crate) fn wait_until_closed(&self, number: u64) -> bool {
        let mut segments = lock(&self.segments);
        loop {
            match segments.get(&number).map(|segment| segment.life) {
                Some(Life::Closing) => segments = self.changed.wait(segments).unwrap_or_else(PoisonError::into_inner),
                life => return life != Some(Life::Spent),
            }
        }
    }

    /// Takes a closed segment out of the reach of new readers; `false` if somebody still reads it.
    pub(crate) fn spend(&self, number: u64) -> bool {
        let mut segments = lock(&self.segments);
        let segment = segments.entry(number).or_default();
        segment.life = Life::Spent;
        segment.readers == 0
    }

    /// Forgets a segment that no name leads to any more.
    pub(crate) fn forget(&self, number: u64) {
        lock(&self.segments).retain(|known, segment| *known != number || segment.readers > 0);
    }
}

/// Somebody reads a segment.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    lives: &'a Lives,
    number: u64,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut segments = lock(&self.lives.segments);
        let Some(segment) = segments.get_mut(&self.number) else { return };
        segment.readers -= 1;
        if segment.readers == 0 && matches!(segment.life, Life::Closed | Life::Spent) {
            segments.remove(&self.number);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_reader_waits_until_the_segment_is_closed() {
        let lives = Arc::new(Lives::default());
        lives.enter(1, Life::Closing);
        let is_closed = Arc::new(AtomicBool::new(false));
        let (begun, begins) = std::sync::mpsc::channel();
        let reader = std::thread::spawn({
            let (lives, is_closed) = (Arc::clone(&lives), Arc::clone(&is_closed));
            move || {
                begun.send(()).unwrap();
                lives.wait_until_closed(1) && is_closed.load(Ordering::SeqCst)
            }
        });
        begins.recv().unwrap();
        // A reader that did not wait would be through by then.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        is_closed.store(true, Ordering::SeqCst);
        lives.enter(1, Life::Closed);
        assert!(reader.join().unwrap());
    }

    #[test]
    fn a_segment_that_is_read_is_not_laid_over() {
        let lives = Lives::default();
        let reading = lives.read(3);
        assert!(!lives.spend(3));
        assert!(!lives.wait_until_closed(3), "a new reader would find it");
        drop(reading);
        assert!(lives.spend(3));
    }
}
