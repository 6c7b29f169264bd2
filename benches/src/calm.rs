//! Slices of a benchmark that begin only when nobody else has the disk and the processor.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

/// How long a calm moment is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many probes in a row must be quick.
const IN_A_ROW: usize = 3;
const PROBES: usize = 200;

/// Probes the disk with a small durable write.
#[derive(Debug)]
pub struct Calm {
    file: File,
    limit: Duration,
    noisy: u64,
}

impl Calm {
    /// Learns what a quick write is: at most twice the tenth part of 200.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn learn(directory: &Path) -> anyhow::Result<Calm> {
        let path = directory.join("probe");
        let options = OpenOptions::new().create(true).append(true).open(&path);
        let mut calm = Calm {
            file: options.with_context(|| format!("creating {}", path.display()))?,
            limit: Duration::ZERO,
            noisy: 0,
        };
        let mut costs = (0..PROBES).map(|_| calm.probe()).collect::<anyhow::Result<Vec<_>>>()?;
        costs.sort_unstable();
        calm.limit = costs[PROBES / 10] * 2;
        Ok(calm)
    }

    /// Waits for a calm moment, a second at most.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut quick = 0;
        while quick < IN_A_ROW {
            if Instant::now() > deadline {
                self.noisy += 1;
                break;
            }
            quick = if self.probe()? <= self.limit { quick + 1 } else { 0 };
        }
        Ok(())
    }

    /// How often no calm moment came.
    pub fn noisy(&self) -> u64 {
        self.noisy
    }

    /// What counts as quick.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    fn probe(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.file.write_all(&[0x5a; 4096])?;
        self.file.sync_data()?;
        Ok(began.elapsed())
    }
}
