//! From the router to each subscriber, and how far that has come.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::envelope;
use super::matches::Matches;
use super::router::{Exit, RouterGone};
use super::{Shared, TICK};
use crate::observe::add;

/// The thread's state.
pub(super) struct Outlet {
    exit: Exit,
    shared: Arc<Shared>,
}

/// Ticks in which nothing comes out of a router that has something, after which it is dead. Only ticks count in which the outlet
/// listened: how long it takes to deliver a message is for peers to decide, and proves nothing.
const SILENT_TICKS: u32 = 100;

/// What was pushed to the router, which of it has been delivered, and to whom the rest goes. By the messages' numbers.
#[derive(Default)]
pub(super) struct Progress {
    delivered: Mutex<Delivered>,
    changed: Condvar,
}

#[derive(Default)]
struct Delivered {
    /// The last one that was delivered to its subscribers.
    through: u64,
    /// Those after it, and their subscribers.
    under_way: VecDeque<(u64, Matches)>,
    /// Who waits for which message, in order.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    silent_ticks: u32,
    is_over: bool,
}

impl Outlet {
    pub(super) fn new(exit: Exit, shared: Arc<Shared>) -> Self {
        Self { exit, shared }
    }

    pub(super) fn run(mut self) {
        loop {
            forebay_wal::panic_if_asked(super::OUTLET);
            match self.exit.next(Instant::now() + TICK) {
                Ok(Some(payload)) => {
                    if let Some((number, message)) = envelope::unwrap(payload) {
                        let (matches, missed) = self.shared.progress.take(number);
                        add(&self.shared.stats.fanout_dropped, missed);
                        matches.deliver(&message);
                        self.shared.progress.advance(number);
                    }
                }
                // Everything that the inlet pushed before it ended has come out: the tick is longer than that takes.
                Ok(None) if self.shared.is_stopping.load(Ordering::Acquire) => break,
                Ok(None) if self.shared.progress.is_alive_after_silence() => {}
                Ok(None) | Err(RouterGone) => {
                    self.shared.die();
                    break;
                }
            }
        }
        self.shared.progress.end();
    }
}

impl Progress {
    /// Blocks until this message has been delivered to its subscribers, however long that takes.
    ///
    /// # Errors
    /// The outlet has ended, for instance because the router is dead.
    pub(super) fn wait(&self, number: u64) -> Result<(), RouterGone> {
        let delivered = self
            .changed
            .wait_while(self.lock(), |delivered| delivered.through < number && !delivered.is_over)
            .unwrap_or_else(PoisonError::into_inner);
        if delivered.through < number { Err(RouterGone) } else { Ok(()) }
    }

    /// These messages go to the router now, and behind it to these subscribers.
    pub(super) fn hand_over(&self, numbered: impl Iterator<Item = (u64, Matches)>) {
        self.lock().under_way.extend(numbered);
    }

    /// Sends `done` once this message has been delivered to its subscribers; drops it if that will never happen.
    pub(super) fn tell(&self, number: u64, done: oneshot::Sender<()>) {
        let mut delivered = self.lock();
        if delivered.through >= number {
            // The receiver may be gone.
            done.send(()).ok();
        } else if !delivered.is_over {
            delivered.waiting.push_back((number, done));
        }
    }

    /// The subscribers of a message that has come out, and how many messages before it were left out.
    fn take(&self, number: u64) -> (Matches, u64) {
        let mut delivered = self.lock();
        delivered.silent_ticks = 0;
        let mut missed = 0;
        while let Some((next, matches)) = delivered.under_way.pop_front_if(|(next, _)| *next <= number) {
            if next == number {
                return (matches, missed);
            }
            missed += 1;
        }
        (Matches::default(), missed)
    }

    /// Everything up to this message has been delivered.
    fn advance(&self, number: u64) {
        let mut delivered = self.lock();
        delivered.through = number;
        while let Some((_, done)) = delivered.waiting.pop_front_if(|(waits, _)| *waits <= number) {
            done.send(()).ok();
        }
        drop(delivered);
        self.changed.notify_one();
    }

    /// Notes that the outlet listened for a tick and nothing came; false if that makes the router a dead one.
    fn is_alive_after_silence(&self) -> bool {
        let mut delivered = self.lock();
        delivered.silent_ticks = if delivered.under_way.is_empty() {
            0
        } else {
            delivered.silent_ticks + 1
        };
        delivered.silent_ticks < SILENT_TICKS
    }

    fn end(&self) {
        let mut delivered = self.lock();
        delivered.is_over = true;
        delivered.waiting.clear();
        delivered.under_way.clear();
        drop(delivered);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a2_only_a_router_that_keeps_what_it_has_is_dead_and_no_delivery_that_takes_long() {
        let progress = Progress::default();
        for number in 1..=3 {
            progress.hand_over(std::iter::once((number, Matches::default())));
        }
        let listened = || (0..SILENT_TICKS - 1).all(|_| progress.is_alive_after_silence());
        for number in 1..=2 {
            assert!(listened());
            // It has come out. However long it is delivered, nothing is counted.
            assert_eq!(progress.take(number).1, 0);
            progress.advance(number);
        }
        assert!(listened());
        assert!(!progress.is_alive_after_silence(), "the third does not come");
        progress.take(3);
        progress.advance(3);
        assert!(
            listened() && progress.is_alive_after_silence() && listened(),
            "there is nothing to come"
        );
    }
}
