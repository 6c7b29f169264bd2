//! The watch's thread, and the handle to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_broker::Observer;
use forebay_wal::Clock;

use super::checkpoint;
use super::connections::Moment;
use super::engine::{Engine, time};
use super::handoff::{Event, QUEUE, Witness};
use super::report::{Counters, Report, add};
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
    counters: Arc<Counters>,
    report: Mutex<Arc<Report>>,
    /// The newest connections of each device, as of the last tick in which one came or went.
    history: Mutex<Arc<History>>,
    queue: SyncSender<Event>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type History = HashMap<Arc<str>, Vec<Moment>>;

struct Worker {
    engine: Engine,
    counters: Arc<Counters>,
    bytes: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    shared: Arc<Shared>,
    /// Something came that the file does not know.
    changed: bool,
    history_changed: bool,
    /// The last write failed: said once.
    failing: bool,
}

/// Starts the watch's thread; restores what an earlier process knew. `inner` is the observer that the witness stands in
/// front of. Blocks on the disk for a moment.
///
/// # Errors
/// The system's, when there can be no thread.
pub(crate) fn start(config: &Config, clock: Arc<dyn Clock>, inner: Arc<dyn Observer>) -> std::io::Result<(Watch, Witness)> {
    let counters = Arc::new(Counters::new(config.watch.iter().map(|item| item.topic.as_str())));
    let mut engine = Engine::new(&config.watch, Arc::clone(&counters));
    let (queue, events) = sync_channel(QUEUE);
    let bytes = Arc::new(AtomicUsize::new(0));
    let witness = Witness {
        inner,
        filters: config.watch.iter().map(|item| item.topic.clone()).collect(),
        references: engine.references().cloned().collect(),
        queue: queue.clone(),
        bytes: Arc::clone(&bytes),
        counters: Arc::clone(&counters),
    };
    let path = checkpoint::path(&config.gateway.data_dir);
    let now = clock.now();
    let loaded = checkpoint::load(&path, &mut engine, &config.watch, &now);
    let restored = match loaded {
        Ok(found) => found,
        Err(error) => {
            add(&counters.checkpoint_failures, 1);
            let aside = checkpoint::set_aside(&path);
            tracing::warn!(file = %path.display(), %error, set_aside = aside.is_ok(), "the watch's state is not used and begins anew");
            false
        }
    };
    let shared = Arc::new(Shared {
        counters: Arc::clone(&counters),
        report: Mutex::default(),
        history: Mutex::default(),
        queue,
        thread: Mutex::new(None),
    });
    let mut worker = Worker {
        engine,
        counters,
        bytes,
        clock,
        path,
        shared: Arc::clone(&shared),
        changed: false,
        history_changed: true,
        failing: false,
    };
    // From now on the file says that more may have been seen than it knows.
    if restored {
        worker.save(false);
    }
    let thread = std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || worker.run(&events))?;
    *lock(&shared.thread) = Some(thread);
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
        lock(&self.shared.history).get(identity).cloned().unwrap_or_default()
    }

    /// Ends the thread after what was handed over, and writes what is known. Blocks.
    pub(crate) fn stop(&self) {
        // A thread that has ended needs no word.
        self.shared.queue.send(Event::Stop).ok();
        let thread = lock(&self.shared.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the watch's thread failed");
        }
    }
}

impl Worker {
    fn run(mut self, events: &Receiver<Event>) {
        let mut tick = Instant::now();
        let mut saved = Instant::now();
        loop {
            match events.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= tick {
                tick = now + TICK;
                self.tick();
            }
            if self.changed && now.duration_since(saved) >= SAVE {
                saved = now;
                self.save(false);
            }
        }
        self.save(true);
    }

    fn take(&mut self, event: Event) {
        self.changed = true;
        match event {
            Event::Publish(publish) => {
                self.engine.take(&publish);
                let bytes = publish.payload.map_or(0, |payload| payload.len());
                self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
            Event::Connected(identity, address, at) => {
                let device = self.engine.device(&identity);
                device.connected(time(&at), at.wall_ms, address.to_string());
                self.history_changed = true;
            }
            Event::Ended(identity, address, cause, at) => {
                let device = self.engine.device(&identity);
                let flapped = device.ended(time(&at), at.wall_ms, address.to_string(), cause);
                if let Some(cause) = cause.filter(|_| flapped) {
                    self.counters.flapped(cause);
                }
                self.history_changed = true;
            }
            Event::Stop => {}
        }
    }

    fn tick(&mut self) {
        let report = self.engine.tick(time(&self.clock.now()));
        *lock(&self.shared.report) = Arc::new(report);
        if std::mem::take(&mut self.history_changed) {
            let devices = self.engine.devices.iter();
            let history = devices.map(|(identity, device)| (Arc::clone(identity), device.history().cloned().collect()));
            *lock(&self.shared.history) = Arc::new(history.collect());
        }
    }

    fn save(&mut self, clean: bool) {
        self.changed = false;
        match checkpoint::save(&self.path, &self.engine, &self.clock.now(), clean) {
            Ok(()) => self.failing = false,
            Err(error) => {
                add(&self.counters.checkpoint_failures, 1);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(file = %self.path.display(), %error, "the watch's state could not be written; it would be lost with a restart");
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
