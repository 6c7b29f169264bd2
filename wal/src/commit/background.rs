//! What can be done beside the commits, so that no ack waits for it.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long after one job the next may begin: one that fails is not tried with every commit.
const REST: Duration = Duration::from_secs(1);

/// Does one job at a time.
#[derive(Debug)]
pub(crate) struct Background {
    /// The name of its thread. Where one thread does everything, so that a run can be repeated, there is none, and a job is done at once.
    name: Option<&'static str>,
    thread: Option<JoinHandle<()>>,
    next: Instant,
}

impl Background {
    /// Jobs are done by the caller.
    pub(crate) fn here() -> Self {
        Self {
            name: None,
            thread: None,
            next: Instant::now(),
        }
    }

    /// Jobs are done on a thread of their own, which has this name.
    pub(crate) fn on_a_thread(name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..Self::here()
        }
    }

    /// Does a job, unless one was begun just now: it is asked for again.
    pub(crate) fn run(&mut self, job: impl FnOnce() + Send + 'static) {
        let Some(name) = self.name else { return job() };
        let now = Instant::now();
        let is_busy = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if is_busy || now < self.next {
            return;
        }
        self.next = now + REST;
        self.wait();
        match std::thread::Builder::new().name(name.into()).spawn(job) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::debug!(%error, "no thread for what can be done beside the commits"),
        }
    }

    /// Waits for the job that runs.
    pub(crate) fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It panics only by a fault of ours, and what it was to do is then not done.
            thread.join().ok();
        }
    }
}
