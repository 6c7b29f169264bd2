//! The lines that wait to be written: bounded, and full rather than slow.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait for whoever reads the log. A busy start logs some 4 KiB.
const MAX_BYTES: usize = 256 * 1024;
/// Lines that may wait.
const MAX_LINES: usize = 4096;
/// For how long after the last loss it still counts as one of the present.
const RECENT: Duration = Duration::from_secs(60);

/// Log lines between the threads that log and the one that writes. A full queue drops what comes and counts it.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes who waits for an empty queue.
    emptied: Condvar,
}

/// What was lost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Lines lost since the start.
    pub(crate) total: u64,
    /// Of these, what the log does not say yet; all of them while nothing can be written.
    pub(crate) untold: u64,
    /// Whether lines were lost within the last minute, or the log could not say so yet.
    pub(crate) lasting: bool,
}

struct State {
    bytes: Vec<u8>,
    lines: usize,
    lost: u64,
    told: u64,
    last_lost: Option<Instant>,
    is_writing: bool,
}

impl Queue {
    /// An empty queue.
    pub(super) const fn new() -> Self {
        let state = State {
            bytes: Vec::new(),
            lines: 0,
            lost: 0,
            told: 0,
            last_lost: None,
            is_writing: false,
        };
        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Takes a line, which ends in a newline, or drops and counts it. Never waits for a write.
    pub(super) fn push(&self, line: &[u8], now: Instant) {
        let mut state = self.lock();
        if state.lines >= MAX_LINES || state.bytes.len() + line.len() > MAX_BYTES {
            state.lose(1, now);
            return;
        }
        state.bytes.extend_from_slice(line);
        state.lines += 1;
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for lines and swaps them into `batch`, which is cleared. Gives how many losses the log has not told yet.
    pub(super) fn take(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        let mut state = self.lock();
        state.is_writing = false;
        if state.bytes.is_empty() {
            self.emptied.notify_all();
        }
        while state.bytes.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.bytes, batch);
        state.lines = 0;
        state.is_writing = true;
        state.lost - state.told
    }

    /// Counts lines that could not be written.
    pub(super) fn lose(&self, lines: u64, now: Instant) {
        self.lock().lose(lines, now);
    }

    /// Notes that the log says of so many more lines that they are lost.
    pub(super) fn note_told(&self, lines: u64) {
        self.lock().told += lines;
    }

    /// What was lost.
    pub(super) fn losses(&self, now: Instant) -> Losses {
        let state = self.lock();
        let untold = state.lost - state.told;
        let is_recent = state.last_lost.is_some_and(|lost| now.saturating_duration_since(lost) < RECENT);
        Losses {
            total: state.lost,
            untold,
            lasting: untold > 0 || is_recent,
        }
    }

    /// Waits until all is written, at most so long; whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let has_work = |state: &mut State| state.is_writing || !state.bytes.is_empty();
        let waited = self.emptied.wait_timeout_while(self.lock(), patience, has_work);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lose(&mut self, lines: u64, now: Instant) {
        self.lost += lines;
        self.last_lost = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it() {
        let (queue, now) = (Queue::new(), Instant::now());
        let line = [b'x'; 1024];
        (0..300).for_each(|_| queue.push(&line, now));
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), 300 - 256);
        assert_eq!(batch.len(), MAX_BYTES);
        (0..5000).for_each(|_| queue.push(b"\n", now));
        assert_eq!(queue.losses(now).total, 44 + 5000 - MAX_LINES as u64);
    }

    #[test]
    fn a_loss_lasts_until_it_is_told_and_a_minute_has_passed() {
        let (queue, now) = (Queue::new(), Instant::now());
        assert_eq!(queue.losses(now), Losses::default());
        queue.lose(3, now);
        let later = now + RECENT;
        assert!(queue.losses(later).lasting, "nobody was told");
        queue.note_told(3);
        assert!(queue.losses(now).lasting);
        assert!(!queue.losses(later).lasting);
        assert_eq!(queue.losses(later).total, 3);
    }

    #[test]
    fn a_flush_ends_at_its_deadline_when_nothing_is_written() {
        let queue = Queue::new();
        assert!(queue.flush(Duration::ZERO));
        queue.push(b"one\n", Instant::now());
        assert!(!queue.flush(Duration::from_millis(1)));
        queue.take(&mut Vec::new());
        assert!(!queue.flush(Duration::from_millis(1)), "it is being written");
    }
}
