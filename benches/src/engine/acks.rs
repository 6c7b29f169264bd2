//! Who was acked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;

/// The longest that an ack may take before a benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Acks on their way from a log's thread to the one that plays the producers.
#[derive(Debug, Default)]
pub struct Acks {
    arrived: Mutex<Arrived>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Arrived {
    producers: Vec<u32>,
    error: Option<String>,
}

impl Acks {
    /// A producer's record is durable.
    pub fn push(&self, producer: u32) {
        let mut arrived = self.lock();
        arrived.producers.push(producer);
        // Nobody waits when there were some already.
        if arrived.producers.len() == 1 {
            self.bell.notify_one();
        }
    }

    /// A record is not stored and never will be.
    pub fn fail(&self, error: String) {
        self.lock().error.get_or_insert(error);
        self.bell.notify_one();
    }

    /// Puts the producers acked since the last call into `out`, which must be empty; waits for one, or until the deadline.
    ///
    /// # Errors
    ///
    /// A record was not stored, or no ack came for a minute.
    pub fn take(&self, out: &mut Vec<u32>, deadline: Option<Instant>) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        let mut arrived = self.lock();
        loop {
            if let Some(error) = &arrived.error {
                bail!("a record was not stored: {error}");
            }
            if !arrived.producers.is_empty() {
                std::mem::swap(out, &mut arrived.producers);
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                if now >= patience {
                    bail!("no ack within {} s", PATIENCE.as_secs());
                }
                return Ok(());
            }
            arrived = self
                .bell
                .wait_timeout(arrived, until - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
