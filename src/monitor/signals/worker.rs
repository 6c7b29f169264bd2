//! The watch's thread, and the handle to it.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_broker::Observer;
use forebay_wal::Clock;

use super::checkpoint;
use super::connections::Moment;
use super::engine::{Engine, time};
use super::report::{Counters, Report, add};
use super::witness::Witness;
use super::{Ms, lock};
use crate::config::Config;

/// How often the time is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often what is known is written, if anything came.
const SAVE: Duration = Duration::from_secs(300);

/// What others see of the watch. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    counters: Arc<Counters>,
    report: Mutex<Arc<Report>>,
    /// Dropped to end the thread.
    running: Mutex<Option<(SyncSender<()>, JoinHandle<()>)>>,
}

struct Worker {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// For how long the machine had been suspended at the last tick.
    asleep: Duration,
    path: PathBuf,
    /// The last write failed: said once.
    failing: bool,
}

/// Starts the watch's thread; restores what an earlier process knew. `inner` is the observer that the witness stands in
/// front of. Blocks on the disk for a moment.
///
/// # Errors
/// The system's, when there can be no thread.
pub(crate) fn start(config: &Config, clock: Arc<dyn Clock>, inner: Arc<dyn Observer>) -> std::io::Result<(Watch, Witness)> {
    let counters = Arc::new(Counters::new(&config.watch));
    let engine = Arc::new(Engine::new(&config.watch, Arc::clone(&counters)));
    let witness = Witness {
        inner,
        engine: Arc::clone(&engine),
    };
    let path = checkpoint::path(&config.gateway.data_dir);
    let now = clock.now();
    let loaded = checkpoint::load(&path, &engine, &config.watch, &now);
    let restored = match loaded {
        Ok(found) => found,
        Err(error) => {
            add(&counters.checkpoint_failures, 1);
            let quarantined = checkpoint::quarantine(&path);
            tracing::warn!(file = %path.display(), %error, quarantined = quarantined.is_ok(), "the state of `watch` cannot be used; it begins anew");
            false
        }
    };
    let shared = Arc::new(Shared {
        engine,
        counters,
        report: Mutex::default(),
        running: Mutex::default(),
    });
    let mut worker = Worker {
        shared: Arc::clone(&shared),
        asleep: clock.asleep(),
        clock,
        path,
        failing: false,
    };
    // From now on the file says that more may have been seen than it knows.
    if restored {
        worker.save(false);
    }
    let (sender, end) = sync_channel(0);
    let thread = std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || worker.run(&end))?;
    *lock(&shared.running) = Some((sender, thread));
    Ok((Watch { shared }, witness))
}

impl Watch {
    /// The counters.
    #[must_use]
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Who is in trouble, as of the last second.
    #[must_use]
    pub(crate) fn report(&self) -> Arc<Report> {
        Arc::clone(&lock(&self.shared.report))
    }

    /// A device's newest connections, oldest first.
    #[must_use]
    pub(crate) fn history(&self, identity: &str) -> Vec<Moment> {
        self.shared.engine.history(identity)
    }

    /// Whether the thread runs; true once it was stopped.
    pub(crate) fn is_alive(&self) -> bool {
        lock(&self.shared.running).as_ref().is_none_or(|(_, thread)| !thread.is_finished())
    }

    /// Ends the thread, and writes what is known. Blocks.
    pub(crate) fn stop(&self) {
        let Some((sender, thread)) = lock(&self.shared.running).take() else {
            return;
        };
        drop(sender);
        if thread.join().is_err() {
            tracing::error!("the thread of `watch` failed");
        }
    }
}

impl Worker {
    fn run(mut self, end: &Receiver<()>) {
        let mut saved = Instant::now();
        self.tick();
        while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            forebay_wal::panic_if_asked("watch");
            self.tick();
            if saved.elapsed() >= SAVE && self.shared.engine.take_changed() {
                saved = Instant::now();
                self.save(false);
            }
        }
        self.save(true);
    }

    fn tick(&mut self) {
        let (now, asleep) = (time(&self.clock.now()), self.clock.asleep());
        let slept = asleep.saturating_sub(self.asleep);
        self.asleep = asleep;
        if slept >= TICK {
            self.shared.engine.slept(Ms::try_from(slept.as_millis()).unwrap_or(Ms::MAX), now);
        }
        let report = self.shared.engine.tick(now);
        *lock(&self.shared.report) = Arc::new(report);
    }

    fn save(&mut self, clean: bool) {
        match checkpoint::save(&self.path, &self.shared.engine, &self.clock.now(), clean) {
            Ok(()) => self.failing = false,
            Err(error) => {
                add(&self.shared.counters.checkpoint_failures, 1);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(file = %self.path.display(), %error, "the state of `watch` could not be written; a restart would lose it");
                }
            }
        }
    }
}
