//! Devices, a cloud and a person around one log, and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::{Fault, Omission, SimDisk};
use super::model::{End, Known, Model, Told, payload};
use super::rng::Rng;
use crate::open::{Prepared, prepare};
use crate::requeue::What;
use crate::sync::lock;
use crate::testing::{ManualClock, Unobserved};
use crate::writer::Writer;
use crate::{
    Batch, Clock, CommitError, CommitListener, HoldKey, Log, NewRecord, Offset, Options, PartitionSet, Producer, Reader, Record,
    Settlement, StreamId, StreamOptions, WhenFull,
};

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
const DEVICES: u64 = 5;
/// Files are small, so that there are many.
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
struct Process {
    log: Log,
    writer: Writer,
    producer: Producer,
    ears: Arc<Ears>,
    readers: BTreeMap<StreamId, Reader>,
    /// Yielded and not settled.
    open: BTreeMap<(StreamId, Offset), u64>,
    /// The highest offset of a reader's pass.
    passed: BTreeMap<StreamId, Option<Offset>>,
}

pub(crate) struct World {
    rng: Rng,
    weather: Weather,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    model: Model,
    process: Option<Process>,
    next: u64,
    diary: Vec<String>,
    options: Options,
    was_clean: bool,
    /// What the last commit with records acked.
    last_acked: Vec<u64>,
    /// Bits flipped since.
    flipped_since: bool,
}

type Verdict = Result<(), String>;

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

    fn note(&mut self, what: impl Into<String>) {
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
                self.note(format!("{flips} bits flip; the newest file is lost: {newest_lost:?}"));
                if is_stopped {
                    self.start()?;
                    if newest_lost == Some(true) && self.was_clean {
                        return Err("the loss of the newest file went unnoticed".into());
                    }
                }
                Ok(())
            }
        }
    }

    // -- the life of the process

    fn start(&mut self) -> Verdict {
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
        writer.space.file_bytes = FILE_BYTES;
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

    fn stop(&mut self, why: &str, clean: bool) {
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

    fn restart(&mut self, why: &str, clean: bool) -> Verdict {
        self.stop(why, clean);
        self.start()?;
        self.check()
    }

    fn hear(&mut self, process: &Process) {
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

    // -- what goes on

    fn with(&mut self, act: impl FnOnce(&mut Self, &mut Process) -> Verdict) -> Verdict {
        let Some(mut process) = self.process.take() else {
            return Err("no process".into());
        };
        let result = act(self, &mut process);
        self.hear(&process);
        self.process = Some(process);
        result
    }

    fn append(&mut self) -> Verdict {
        self.with(|world, process| {
            let count = 1 + world.rng.below(12);
            for _ in 0..count {
                let stream = StreamId(world.rng.below(2) as u8);
                let device = world.rng.below(DEVICES) as u8;
                let size = match world.rng.below(20) {
                    0 => 20_000,
                    1 => 5000,
                    _ => world.rng.below(600) as usize,
                };
                let number = world.next;
                world.next += 1;
                let expiry = world.rng.one_in(6).then(|| world.rng.below(300) as u32);
                let max_age = process.log.shared().policy(stream.0).and_then(|options| options.max_age);
                let record = NewRecord {
                    stream,
                    received: world.clock.now(),
                    identity: &format!("d{device}"),
                    route: "r",
                    topic: &format!("t/{number}"),
                    payload: &payload(number, size),
                    qos: 1,
                    retain: false,
                    expiry,
                    properties: &[],
                };
                if let Ok(ticket) = process.producer.append(&[record]) {
                    world.model.records.insert(
                        number,
                        Known {
                            stream,
                            device,
                            size,
                            may_expire: expiry.is_some() || max_age.is_some(),
                            told: Told::Nothing(ticket.batch),
                            may_be_there: false,
                            offset: None,
                            end: None,
                            is_final: false,
                            is_touched: false,
                        },
                    );
                }
            }
            Ok(())
        })
    }

    /// Runs the writer once, and takes note of what is on disk after it.
    fn write(&mut self, process: &mut Process, act: impl FnOnce(&mut Writer) -> bool) {
        let settled: Vec<u64> = {
            let tracker = lock(&process.log.shared().tracker);
            let is_counted = |known: &Known| {
                let tracked = tracker.streams.get(&known.stream.0);
                let is_gone = known
                    .offset
                    .zip(tracked)
                    .is_some_and(|(offset, tracked)| !tracked.outstanding.contains_key(&offset.0));
                known.end.is_some() && is_gone
            };
            self.model
                .records
                .iter()
                .filter(|(_, known)| is_counted(known))
                .map(|(number, _)| *number)
                .collect()
        };
        let done = act(&mut process.writer);
        process.writer.reject_late();
        if done {
            for number in settled {
                if let Some(known) = self.model.records.get_mut(&number) {
                    known.is_final = true;
                }
            }
        }
    }

    fn commit(&mut self) -> Verdict {
        self.with(|world, process| {
            world.write(process, |writer| {
                let shared = writer.shared.clone();
                let batch = writer.swap(&mut lock(&shared.intake));
                writer.commit(batch).is_ok()
            });
            Ok(())
        })
    }

    fn progress(&mut self) -> Verdict {
        self.with(|world, process| {
            world.write(process, |writer| writer.broken.is_none() && writer.commit_progress().is_ok());
            Ok(())
        })
    }

    fn ticks(&mut self) -> Verdict {
        self.with(|world, process| {
            // Long enough, sometimes, for a file to have stood still.
            let ticks = if world.rng.one_in(3) { 40 } else { 1 + world.rng.below(3) };
            let mut carried = 0;
            for _ in 0..ticks {
                process.writer.tick();
                while process.writer.carrying.is_under_way() && process.writer.broken.is_none() && !world.disk.is_off() {
                    process.writer.carry_step().ok();
                    carried += 1;
                }
            }
            process.writer.reject_late();
            if carried > 0 {
                world.note(format!("carried in {carried} steps"));
            }
            Ok(())
        })
    }

    fn read(&mut self) -> Verdict {
        self.with(|world, process| {
            let stream = StreamId(world.rng.below(2) as u8);
            if world.rng.one_in(6)
                && let Some(reader) = process.readers.get_mut(&stream)
            {
                reader.rewind();
                process.passed.insert(stream, None);
            }
            let bytes = 1 + world.rng.below(30_000) as usize;
            world.read_on(process, stream, bytes).map(|_| ())
        })
    }

    fn read_on(&mut self, process: &mut Process, stream: StreamId, bytes: usize) -> Result<usize, String> {
        let Some(reader) = process.readers.get_mut(&stream) else {
            return Ok(0);
        };
        let Ok(records) = reader.read(bytes) else { return Ok(0) };
        for record in &records {
            let passed = process.passed.entry(stream).or_default();
            if passed.is_some_and(|passed| passed >= record.offset) {
                return Err(format!("out of order: {:?} after {passed:?} in {stream:?}", record.offset));
            }
            *passed = Some(record.offset);
            let number = self.model.yielded(record)?;
            process.open.insert((stream, record.offset), number);
        }
        Ok(records.len())
    }

    fn settle(&mut self) -> Verdict {
        self.with(|world, process| {
            let places: Vec<(StreamId, Offset)> = process.open.keys().copied().collect();
            for place in places {
                if !world.rng.one_in(3) {
                    world.settle_one(process, place);
                }
            }
            Ok(())
        })
    }

    fn settle_one(&mut self, process: &mut Process, place: (StreamId, Offset)) {
        let Some(number) = process.open.remove(&place) else { return };
        let (settlement, end) = match self.rng.below(12) {
            0 => (
                Settlement::Dead {
                    reason: "x",
                    detail: "simulated".into(),
                },
                End::Dead,
            ),
            1 => (Settlement::Expired, End::Expired),
            _ => (Settlement::Delivered, End::Delivered),
        };
        process.log.settle(place.0, place.1, settlement);
        if let Some(known) = self.model.records.get_mut(&number) {
            known.end = Some(end);
        }
    }

    fn hold_or_release(&mut self) -> Verdict {
        self.with(|world, process| {
            let stream = StreamId(world.rng.below(2) as u8);
            let holds = process.log.holds(stream);
            if let Some(hold) = world.rng.pick(&holds).cloned() {
                world.look_at_hold(process, &hold.key)?;
                return Ok(());
            }
            let open: Vec<((StreamId, Offset), u64)> = process.open.iter().map(|(place, number)| (*place, *number)).collect();
            if let Some((place, number)) = world.rng.pick(&open)
                && let Some(known) = world.model.records.get(number)
            {
                let identity = format!("d{}", known.device);
                let key = HoldKey {
                    stream: place.0,
                    route: "r".into(),
                    identity,
                };
                process.log.hold(key, place.1);
            }
            Ok(())
        })
    }

    /// Takes some of a suspended pair's records and settles them; ends the suspension when nothing is left.
    fn look_at_hold(&mut self, process: &mut Process, key: &HoldKey) -> Result<bool, String> {
        let Ok(records) = process.log.read_held(key, 1 + self.rng.below(20) as usize) else {
            return Ok(false);
        };
        for record in &records {
            let number = self.model.yielded(record)?;
            process.open.insert((key.stream, record.offset), number);
            self.settle_one(process, (key.stream, record.offset));
        }
        Ok(records.is_empty() && process.log.release(key))
    }

    /// A person puts dead letters back, drops them, or replays what was settled.
    fn person(&mut self) -> Verdict {
        self.with(|world, process| {
            let mut reader = process.log.reader(StreamId::DEAD, PartitionSet::ALL);
            let letters: Vec<Record> = reader.read(100_000).unwrap_or_default();
            let chosen: Vec<Record> = letters.into_iter().filter(|_| world.rng.one_in(2)).collect();
            let offsets: Vec<Offset> = chosen.iter().map(|letter| letter.offset).collect();
            let touched: Vec<u64> = chosen
                .iter()
                .filter_map(|letter| {
                    let payload = crate::DeadLetter::open(letter)?.payload;
                    payload.first_chunk().map(|number| u64::from_le_bytes(*number))
                })
                .collect();
            let (what, numbers) = match world.rng.below(3) {
                0 => (What::Drop(offsets), Vec::new()),
                1 => (What::Requeue(offsets), touched),
                _ => {
                    let stream = StreamId(world.rng.below(2) as u8);
                    let is_settled = |known: &Known| known.stream == stream && known.is_final && known.offset.is_some();
                    let settled: Vec<(u64, Offset)> = world
                        .model
                        .records
                        .iter()
                        .filter(|(_, known)| is_settled(known))
                        .filter_map(|(number, known)| Some((*number, known.offset?)))
                        .take(5)
                        .collect();
                    let numbers = settled.iter().map(|(number, _)| *number).collect();
                    (
                        What::Replay(stream, settled.into_iter().map(|(_, offset)| offset).collect()),
                        numbers,
                    )
                }
            };
            for number in numbers {
                if let Some(known) = world.model.records.get_mut(&number) {
                    known.is_touched = true;
                }
            }
            let text = format!("{what:?}");
            let Ok(answer) = process.log.shared().post(what) else {
                return Ok(());
            };
            let job = lock(&process.log.shared().intake).jobs.pop_front();
            if let Some(job) = job {
                world.write(process, |writer| {
                    writer.do_job(job);
                    false
                });
            }
            world.note(format!("{text}: {:?}", answer.try_recv()));
            Ok(())
        })
    }

    // -- what must hold

    /// Everything that waits is what must wait, and the ledger balances.
    fn check(&mut self) -> Verdict {
        self.disk.forget_plan();
        self.disk.set_free(None);
        if self.disk.is_off() {
            return Ok(());
        }
        self.mend()?;
        let mut found = BTreeSet::new();
        self.with(|world, process| {
            for stream in [StreamId(0), StreamId(1)] {
                let mut reader = process.log.reader(stream, PartitionSet::ALL);
                let mut last = None;
                loop {
                    let records = reader.read(1 << 20).map_err(|error| chain(&error))?;
                    if records.is_empty() {
                        break;
                    }
                    for record in &records {
                        if last >= Some(record.offset) {
                            return Err(format!("out of order: {:?} after {last:?}", record.offset));
                        }
                        last = Some(record.offset);
                        let number = world.model.yielded(record)?;
                        process.open.insert((stream, record.offset), number);
                        found.insert(number);
                    }
                }
                for hold in process.log.holds(stream) {
                    let held = process.log.read_held(&hold.key, usize::MAX).map_err(|error| chain(&error))?;
                    for record in held {
                        found.insert(world.model.yielded(&record)?);
                    }
                }
                if let Some(reader) = process.readers.get_mut(&stream) {
                    reader.rewind();
                }
                process.passed.insert(stream, None);
            }
            Ok(())
        })?;
        // A suspended record's damage is found by looking for it, and what redb passes by in silence by the audit.
        self.mend()?;
        self.with(|_, process| process.log.audit().map(|_| ()).map_err(|error| chain(&error)))?;
        self.mend()?;
        self.with(|world, process| world.judge(process, &found))
    }

    fn judge(&mut self, process: &Process, found: &BTreeSet<u64>) -> Verdict {
        let audit = process.log.audit().map_err(|error| chain(&error))?;
        if !audit.balances() {
            return Err(format!("the ledger does not balance: {audit:?}\n{}", uneven(process)));
        }
        if !self.model.is_corrupted && audit.damaged > 0 {
            return Err(format!("records are counted as damaged that nothing damaged: {audit:?}"));
        }
        let missing = self.model.missing(found);
        let excused = audit.evicted + audit.damaged + self.model.count(|known| known.may_expire && known.end.is_none()).min(audit.expired);
        if missing.len() as u64 > excused {
            return Err(format!("acked and gone: {missing:?}, by {audit:?}"));
        }
        if !self.model.is_corrupted {
            let acked = self.model.count(|known| known.told == Told::Acked);
            let perhaps = self.model.count(|known| known.may_be_there);
            if !(acked..=acked + perhaps).contains(&audit.accepted) {
                return Err(format!("{acked} acked, {perhaps} perhaps, by the ledger {}", audit.accepted));
            }
        }
        Ok(())
    }

    /// Gives the writer the time to mend what it met.
    fn mend(&mut self) -> Verdict {
        for _ in 0..200 {
            let mut is_mended = false;
            self.with(|_, process| {
                // Reading finds what is to be mended.
                for reader in process.readers.values_mut() {
                    while reader.read(1 << 20).is_ok_and(|records| !records.is_empty()) {}
                    reader.rewind();
                }
                process.passed.clear();
                let writer = &mut process.writer;
                if let Some(broken) = &mut writer.broken {
                    broken.retry_at = std::time::Instant::now();
                }
                writer.tick();
                while writer.carrying.is_under_way() && writer.broken.is_none() {
                    writer.carry_step().ok();
                }
                writer.reject_late();
                let progressed = writer.broken.is_none() && writer.commit_progress().is_ok();
                let mending = lock(&writer.shared.mending);
                is_mended = progressed && mending.damaged.is_empty() && mending.unsure.is_empty();
                Ok(())
            })?;
            if is_mended {
                return Ok(());
            }
        }
        Err("it is never mended".into())
    }

    /// Good weather comes, everything is delivered, and the books are closed.
    fn end(&mut self) -> Verdict {
        self.disk.forget_plan();
        self.disk.set_free(None);
        self.restart("the end", true)?;
        self.mend()?;
        self.with(|world, process| {
            for _ in 0..1000 {
                let mut some = false;
                for stream in [StreamId(0), StreamId(1)] {
                    some |= world.read_on(process, stream, 1 << 20)? > 0;
                    for hold in process.log.holds(stream) {
                        some |= !world.look_at_hold(process, &hold.key)?;
                    }
                }
                let places: Vec<_> = process.open.keys().copied().collect();
                places.into_iter().for_each(|place| world.settle_one(process, place));
                process.writer.commit_progress().map_err(|error| chain(&error))?;
                process.writer.tick();
                if !some {
                    break;
                }
            }
            process.writer.commit_progress().map_err(|error| chain(&error))?;
            let audit = process.log.audit().map_err(|error| chain(&error))?;
            if audit.waiting != 0 || !audit.balances() {
                return Err(format!("not all is settled at the end: {audit:?}"));
            }
            let missing = world.model.missing(&BTreeSet::new());
            let excused = audit.evicted + audit.damaged + audit.expired;
            if missing.len() as u64 > excused {
                return Err(format!("acked and never seen: {missing:?}, by {audit:?}"));
            }
            Ok(())
        })?;
        self.with(|_, process| {
            for _ in 0..4 {
                process.writer.commit_progress().map_err(|error| chain(&error))?;
            }
            let left = lock(&process.log.shared().state).files.clone();
            let number = process.writer.number;
            let pinned: Vec<_> = left.iter().filter(|file| file.number != number).collect();
            let letters =
                |file: &&&crate::state::FileEntry| file.parts.iter().any(|part| part.stream == StreamId::DEAD.0 && part.waiting > 0);
            let strays: Vec<_> = pinned.iter().filter(|file| !letters(file)).collect();
            if strays.is_empty() {
                return Ok(());
            }
            Err(format!("files are left that nothing waits in: {strays:?}"))
        })
    }
}

/// Where the catalogue counts other than the disk, block by block: offset, counted as waiting, readable.
fn uneven(process: &Process) -> String {
    let shared = process.log.shared();
    let tracker = lock(&shared.tracker);
    let files = lock(&shared.state).files.clone();
    let mut text = format!("{:?}", tracker.pending);
    for (file, part) in files.iter().flat_map(|file| file.parts.iter().map(|part| (file.number, part))) {
        let found = process.writer.count_in(&tracker, file, part.stream);
        if found.as_ref().ok() == Some(&part.waiting) {
            continue;
        }
        text += &format!("\nfile {file} of {}, found {found:?}: {part:?}", process.writer.number);
        let Some(tracked) = tracker.streams.get(&part.stream) else {
            continue;
        };
        for raw in shared.files.blocks(file, part.stream, 0, u64::MAX, usize::MAX).unwrap_or_default() {
            let block = crate::block::Block::parse(raw);
            let entries =
                (0..block.entries.len()).map(|nth| (block.offset(nth), tracked.is_counted(&block, nth), block.record(nth).is_some()));
            let entries: Vec<_> = entries.collect();
            text += &format!("\n  {}..{} unsure {}: {entries:?}", block.first, block.until, block.is_unsure);
        }
        text += &format!("\n  delivered up to {:?}, holds {:?}", tracked.up_to(), tracked.holds);
    }
    text
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("weather", &self.weather).finish_non_exhaustive()
    }
}
