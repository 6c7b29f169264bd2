//! Devices, a cloud and a person around one log, and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::checks::chain;
use super::disk::{Fault, Omission, SimDisk};
use super::model::{Model, Told};
use super::rng::Rng;
use crate::commit::producer::Producer;
use crate::commit::writer::Writer;
use crate::error::CommitError;
use crate::listener::CommitListener;
use crate::log::Log;
use crate::options::{Options, StreamOptions, WhenFull};
use crate::read::reader::Reader;
use crate::record::{Batch, Offset, PartitionSet, StreamId};
use crate::recovery::open::{Prepared, prepare};
use crate::sync::lock;
use crate::testing::{ManualClock, Unobserved};

/// What may go wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    PowerCuts,
    DiskErrors,
    FullDisks,
    Damage,
}

impl Weather {
    pub(crate) const fn test(self) -> &'static str {
        match self {
            Self::PowerCuts => "simulated_power_cuts",
            Self::DiskErrors => "simulated_disk_errors",
            Self::FullDisks => "simulated_disks_that_fill_up",
            Self::Damage => "simulated_damage",
        }
    }
}

const STEPS: u64 = 120;
pub(super) const DEVICES: u64 = 5;
/// Segments are small, so that there are many.
const FILE_BYTES: u64 = 160 << 10;

#[derive(Debug, Default)]
struct Heard {
    committed: Option<Batch>,
    failed: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Ears(Mutex<Heard>);

impl CommitListener for Ears {
    fn committed(&self, batch: Batch) {
        lock(&self.0).committed = Some(batch);
    }
    fn failed(&self, batch: Batch, _error: &CommitError) {
        lock(&self.0).failed.insert(batch.0);
    }
}

/// A log that runs.
pub(super) struct Process {
    pub(super) log: Log,
    pub(super) writer: Writer,
    pub(super) producer: Producer,
    ears: Arc<Ears>,
    pub(super) readers: BTreeMap<StreamId, Reader>,
    /// Yielded and not settled.
    pub(super) open: BTreeMap<(StreamId, Offset), u64>,
    /// The highest offset of a reader's pass.
    pub(super) passed: BTreeMap<StreamId, Option<Offset>>,
}

pub(crate) struct World {
    pub(super) rng: Rng,
    pub(super) weather: Weather,
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<ManualClock>,
    pub(super) model: Model,
    pub(super) process: Option<Process>,
    pub(super) next: u64,
    pub(super) diary: Vec<String>,
    pub(super) options: Options,
    pub(super) was_clean: bool,
    /// What the last commit with records acked.
    pub(super) last_acked: Vec<u64>,
    /// Bits flipped since.
    pub(super) flipped_since: bool,
}

pub(super) type Verdict = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, weather: Weather, omission: Omission) -> Self {
        let mut rng = Rng::new(seed);
        let main = if rng.one_in(2) { WhenFull::DropOldest } else { WhenFull::Refuse };
        let stream = |name: &str, max_bytes, max_age: Option<u64>, when_full| StreamOptions {
            name: name.into(),
            max_bytes,
            max_age: max_age.map(Duration::from_secs),
            when_full,
        };
        let age = rng.one_in(3).then_some(500);
        let options = Options {
            directory: PathBuf::from("simulated"),
            max_disk: 64 << 20,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 3,
            streams: vec![
                stream("alarms", 200 << 10, None, WhenFull::Refuse),
                stream("main", 400 << 10, age, main),
            ],
        };
        Self {
            rng,
            weather,
            disk: SimDisk::new(seed, omission),
            clock: Arc::new(ManualClock::trusted()),
            model: Model::default(),
            process: None,
            next: 0,
            diary: Vec::new(),
            options,
            was_clean: true,
            last_acked: Vec::new(),
            flipped_since: false,
        }
    }

    pub(crate) fn trace(&self) -> u64 {
        self.disk.trace()
    }

    pub(crate) fn diary(&self) -> &[String] {
        &self.diary[self.diary.len().saturating_sub(60)..]
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.diary.push(what.into());
    }

    pub(crate) fn live(&mut self) -> Verdict {
        self.start()?;
        for _ in 0..STEPS {
            self.step()?;
        }
        self.end()
    }

    fn step(&mut self) -> Verdict {
        match self.rng.below(100) {
            0..30 => self.append()?,
            30..50 => self.commit()?,
            50..62 => self.read()?,
            62..74 => self.settle()?,
            74..79 => self.progress()?,
            79..84 => self.ticks()?,
            84..87 => self.hold_or_release()?,
            87..89 => self.person()?,
            89 => self.clock.advance(Duration::from_secs(self.rng.below(200))),
            90..92 => self.restart("a clean stop", true)?,
            92..94 => self.restart("a kill", false)?,
            _ => self.befall()?,
        }
        if self.disk.is_off() {
            self.restart("the power is gone", false)?;
        }
        Ok(())
    }

    /// Something goes wrong, now or soon.
    fn befall(&mut self) -> Verdict {
        match self.weather {
            Weather::PowerCuts => {
                let after = self.rng.below(60);
                self.note(format!("the power will go after {after} operations"));
                self.disk.plan(after, Fault::Cut);
                Ok(())
            }
            Weather::DiskErrors => {
                let after = self.rng.below(60);
                let fault = if self.rng.one_in(5) { Fault::Cut } else { Fault::Error };
                self.note(format!("{fault:?} after {after} operations"));
                self.disk.plan(after, fault);
                Ok(())
            }
            Weather::FullDisks => {
                let free = if self.rng.one_in(2) { None } else { Some(self.rng.below(120)) };
                self.note(format!("free pages: {free:?}"));
                self.disk.set_free(free);
                Ok(())
            }
            Weather::Damage => {
                let is_stopped = self.rng.one_in(2);
                if is_stopped {
                    self.flipped_since = true;
                    self.stop("to be damaged", self.rng.clone().one_in(2));
                }
                let flips = 1 + self.rng.below(4);
                let lost = self.rng.one_in(8);
                for _ in 0..flips {
                    self.model.is_corrupted |= self.disk.flip(&mut self.rng);
                }
                self.flipped_since = true;
                let newest_lost = if lost && is_stopped {
                    self.disk.lose_file(&mut self.rng)
                } else {
                    None
                };
                self.model.is_corrupted |= newest_lost.is_some();
                if newest_lost == Some(true) {
                    self.model.forget_all();
                }
                self.note(format!("{flips} bits flip; the newest segment is lost: {newest_lost:?}"));
                if is_stopped {
                    self.start()?;
                    if newest_lost == Some(true) && self.was_clean {
                        return Err("the loss of the newest segment went unnoticed".into());
                    }
                }
                Ok(())
            }
        }
    }

    // -- the life of the process

    pub(super) fn start(&mut self) -> Verdict {
        let prepared = prepare(
            Arc::new(self.disk.clone()),
            self.options.clone(),
            self.clock.clone(),
            Arc::new(Unobserved),
            None,
        );
        let Prepared {
            shared,
            mut writer,
            report,
            ..
        } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let text = chain(&error);
                self.note(format!("it does not start: {text}"));
                return self.after_failed_start(&text);
            }
        };
        writer.space.segment_bytes = FILE_BYTES;
        let log = Log::stepped(shared.clone());
        let ears = Arc::new(Ears::default());
        let readers: BTreeMap<StreamId, Reader> = shared
            .streams
            .iter()
            .map(|(id, _)| (*id, log.reader(*id, PartitionSet::ALL)))
            .collect();
        self.process = Some(Process {
            producer: log.producer(ears.clone()),
            log,
            writer,
            ears,
            readers,
            open: BTreeMap::new(),
            passed: BTreeMap::new(),
        });
        self.was_clean = report.clean;
        let recovered = report.recovered;
        self.note(format!(
            "started: clean {}, {recovered} recovered, {} damaged",
            report.clean, report.damaged
        ));
        Ok(())
    }

    /// A disk that fails or is full at the start may stop the log; better weather must let it start.
    fn after_failed_start(&mut self, text: &str) -> Verdict {
        if self.disk.is_off() {
            self.disk.power_cut();
        } else if self.weather == Weather::PowerCuts || (self.weather == Weather::Damage) {
            // A stream whose name was lost with everything else is for a person to put back.
            return Err(format!("the log does not open: {text}"));
        }
        self.disk.forget_plan();
        self.disk.set_free(None);
        self.start_in_good_weather()
    }

    fn start_in_good_weather(&mut self) -> Verdict {
        let before = self.diary.len();
        let weather = std::mem::replace(&mut self.weather, Weather::Damage);
        let started = self.start();
        self.weather = weather;
        self.note(format!("(started in good weather, {} notes)", self.diary.len() - before));
        started
    }

    pub(super) fn stop(&mut self, why: &str, clean: bool) {
        let stopped = self.process.take();
        if let Some(mut process) = stopped {
            if clean {
                lock(&process.log.shared().intake).closing = true;
                let shared = process.writer.shared.clone();
                let last = process.writer.swap(&mut lock(&shared.intake));
                process.writer.finish(last).ok();
            }
            self.hear(&process);
            self.note(format!("{why} (clean: {clean})"));
            // What it still does while it is dropped has no effect.
            self.disk.next_process();
        }
        self.model.process_ended();
        if !clean && self.flipped_since {
            // A last commit whose pages are damaged looks like one that the stop tore.
            self.model.nothing_is_promised_of(&self.last_acked);
        }
        if self.disk.is_off() {
            self.disk.power_cut();
        } else if self.rng.one_in(2) {
            self.disk.drop_clean_pages();
        }
    }

    pub(super) fn restart(&mut self, why: &str, clean: bool) -> Verdict {
        self.stop(why, clean);
        self.start()?;
        self.check()
    }

    pub(super) fn hear(&mut self, process: &Process) {
        let heard = lock(&process.ears.0);
        let mut acked = Vec::new();
        for (number, known) in &mut self.model.records {
            if let Told::Nothing(batch) = known.told {
                if heard.failed.contains(&batch.0) {
                    known.told = Told::Failed;
                } else if heard.committed.is_some_and(|committed| committed >= batch) {
                    known.told = Told::Acked;
                    acked.push(*number);
                }
            }
        }
        if !acked.is_empty() {
            self.last_acked = acked;
            self.flipped_since = false;
        }
    }

    pub(super) fn with(&mut self, act: impl FnOnce(&mut Self, &mut Process) -> Verdict) -> Verdict {
        let Some(mut process) = self.process.take() else {
            return Err("no process".into());
        };
        let result = act(self, &mut process);
        self.hear(&process);
        self.process = Some(process);
        result
    }
}

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("weather", &self.weather).finish_non_exhaustive()
    }
}
