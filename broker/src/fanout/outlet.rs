//! From the router to each subscriber, and how far that has come.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::envelope;
use super::router::{Exit, RouterGone};
use super::{SILENCE, Shared, TICK};
use crate::observe::add;

/// The thread's state.
pub(super) struct Outlet {
    exit: Exit,
    shared: Arc<Shared>,
}

/// Which of the pushed messages have been delivered, by their numbers.
#[derive(Default)]
pub(super) struct Progress {
    delivered: Mutex<Delivered>,
    changed: Condvar,
}

#[derive(Default)]
struct Delivered {
    /// The last one that was delivered to its subscribers.
    through: u64,
    /// Who waits for which message, in order.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
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
                        if let Ok(topic) = std::str::from_utf8(&message.topic) {
                            self.shared.table().deliver(topic, &message);
                        }
                        let missed = self.shared.progress.advance(number);
                        add(&self.shared.stats.fanout_dropped, missed);
                    }
                }
                // Everything that the inlet pushed before it ended has come out: the tick is longer than that takes.
                Ok(None) if self.shared.is_stopping.load(Ordering::Acquire) => break,
                Ok(None) => {}
                Err(RouterGone) => {
                    self.shared.die();
                    break;
                }
            }
        }
        self.shared.progress.end();
    }
}

impl Progress {
    /// Blocks until this message has been delivered to its subscribers.
    ///
    /// # Errors
    /// The router has not returned it for [`SILENCE`], or has ended.
    pub(super) fn wait(&self, number: u64) -> Result<(), RouterGone> {
        let (delivered, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), SILENCE, |delivered| delivered.through < number && !delivered.is_over)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() || delivered.through < number {
            return Err(RouterGone);
        }
        Ok(())
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

    /// Everything up to this message has been delivered; returns how many before it were left out.
    fn advance(&self, number: u64) -> u64 {
        let mut delivered = self.lock();
        let missed = number.saturating_sub(delivered.through + 1);
        delivered.through = number;
        while let Some((_, done)) = delivered.waiting.pop_front_if(|(waits, _)| *waits <= number) {
            done.send(()).ok();
        }
        drop(delivered);
        self.changed.notify_one();
        missed
    }

    fn end(&self) {
        let mut delivered = self.lock();
        delivered.is_over = true;
        delivered.waiting.clear();
        drop(delivered);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
