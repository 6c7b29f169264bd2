//! Looks at each event and at the time. It knows no clock and no thread, so that a test can give it a month in a moment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use forebay_broker::Disconnection;
use forebay_wal::Timestamp;

use super::connections::{Connections, Flapping, Moment};
use super::pointers::{Found, Pointers, Room};
use super::report::{Counters, Report, SIGNALS, Signal, Trouble, add};
use super::series::{Places, Reference, Series};
use super::{Ms, lock};
use crate::config;
use crate::words::times;

/// Series followed; one more is not, counted.
pub(super) const MAX_SERIES: usize = 20_000;
/// Of them of one publisher: one device that makes topics up keeps no room from the others.
const MAX_OF_ONE: usize = 1_000;
/// A longer topic is not followed.
pub(super) const MAX_TOPIC: usize = 256;
/// A larger payload is seen but not read.
const MAX_PAYLOAD: usize = 64 << 10;
/// Devices whose connections are followed; beyond it the one heard of longest ago makes room.
pub(super) const MAX_DEVICES: usize = 10_000;
/// Troubles listed for each signal.
const LISTED: usize = 100;
/// A series silent for seven days is forgotten: its device is gone.
const FORGET: Ms = 7 * 86_400_000;

/// All that is known. Each connection looks at its own publishes; each series has a lock of its own, which only the
/// thread of `watch` takes too, for a moment each second.
pub(super) struct Engine {
    items: Vec<Item>,
    /// By topic.
    references: HashMap<String, Arc<Source>>,
    /// Wanted by a connection only when it publishes on a topic for the first time.
    table: Mutex<Table>,
    devices: Mutex<HashMap<Arc<str>, Connections>>,
    counters: Arc<Counters>,
    /// Something came that the file does not know.
    changed: AtomicBool,
    max_series: usize,
}

/// The series by place, device and topic.
#[derive(Default)]
struct Table {
    series: HashMap<String, Followed>,
    /// How many series each publisher has.
    of_one: HashMap<String, usize>,
}

/// A series that several may hold.
pub(super) type Followed = Arc<Mutex<Series>>;

struct Item {
    config: config::Watch,
    /// Levels before the `#`.
    levels: usize,
    pointers: Pointers,
    places: Places,
    /// Where each field's reference is kept.
    references: Vec<Option<(Arc<Source>, usize)>>,
}

/// A topic that references come on.
#[derive(Default)]
struct Source {
    pointers: Pointers,
    /// By the pointers' places.
    newest: Vec<Mutex<Option<Reference>>>,
}

/// Where a publisher's topic leads to: found once, then kept by its connection.
pub(super) struct Trail {
    pub(super) topic: Box<str>,
    source: Option<Arc<Source>>,
    /// Items that match.
    items: Vec<Step>,
    counters: Arc<Counters>,
}

/// An item on a trail.
struct Step {
    /// Its place.
    item: usize,
    /// `None` if there was no room.
    series: Option<Followed>,
    /// What is not in the counters yet, which all cores want: publishes, and the values of each field.
    seen: u64,
    values: Box<[u64]>,
}

impl Engine {
    pub(super) fn new(watch: &[config::Watch], counters: Arc<Counters>) -> Self {
        let mut sources: HashMap<String, Source> = HashMap::new();
        for drift in watch.iter().flat_map(|item| &item.fields).filter_map(|field| field.drift.as_ref()) {
            let source = sources.entry(drift.topic.clone()).or_default();
            let place = source.pointers.add(&drift.at);
            source.newest.resize_with(source.newest.len().max(place + 1), Mutex::default);
        }
        let item = |config: &config::Watch| {
            let mut pointers = Pointers::default();
            let places = Places::of(config, &mut pointers);
            Item {
                levels: config.topic.as_str().split('/').filter(|level| *level != "#").count(),
                config: config.clone(),
                pointers,
                places,
                references: Vec::new(),
            }
        };
        let mut items: Vec<_> = watch.iter().map(item).collect();
        let mut at_place = |field: &config::Field| {
            let drift = field.drift.as_ref()?;
            let place = sources.get_mut(&drift.topic)?.pointers.add(&drift.at);
            Some((drift.topic.clone(), place))
        };
        let found: Vec<Vec<_>> = watch.iter().map(|item| item.fields.iter().map(&mut at_place).collect()).collect();
        let references: HashMap<_, _> = sources.into_iter().map(|(topic, source)| (topic, Arc::new(source))).collect();
        for (item, found) in items.iter_mut().zip(found) {
            let source = |(topic, place): (String, usize)| Some((Arc::clone(references.get(&topic)?), place));
            item.references = found.into_iter().map(|found| found.and_then(source)).collect();
        }
        Self {
            items,
            references,
            table: Mutex::default(),
            devices: Mutex::default(),
            counters,
            changed: AtomicBool::new(false),
            max_series: MAX_SERIES,
        }
    }

    /// Whether there is anything to look at.
    pub(super) const fn watches(&self) -> bool {
        !self.items.is_empty()
    }

    /// Takes in a series of an earlier process, if it is still watched and there is room.
    pub(super) fn restore(&self, mut series: Series) {
        let Some(place) = self.items.iter().position(|item| item.config.topic.as_str() == series.item) else {
            return;
        };
        let mut known: HashMap<_, _> = series.pointers.drain(..).zip(series.fields.drain(..)).collect();
        let fields = &self.items[place].config.fields;
        series.fields = fields.iter().map(|field| known.remove(&field.at).unwrap_or_default()).collect();
        series.pointers = fields.iter().map(|field| field.at.clone()).collect();
        let key = key(place, &series.device, &series.topic);
        let device = series.device.clone();
        lock(&self.table).insert(key, &device, self.max_series, || series);
    }

    /// Takes in a device's connections of an earlier process.
    pub(super) fn restore_device(&self, identity: Arc<str>, device: Connections) {
        lock(&self.devices).insert(identity, device);
    }

    /// Where a publisher's topic leads to.
    pub(super) fn trail(&self, identity: &str, topic: &str) -> Trail {
        let matching = self.items.iter().enumerate().filter(|(_, item)| item.config.topic.matches(topic));
        let step = |(place, item): (usize, &Item)| Step {
            item: place,
            series: self.follow(place, identity, topic),
            seen: 0,
            values: item.config.fields.iter().map(|_| 0).collect(),
        };
        Trail {
            topic: topic.into(),
            source: self.references.get(topic).cloned(),
            items: matching.map(step).collect(),
            counters: Arc::clone(&self.counters),
        }
    }

    /// The series of a publisher's topic on an item; `None` if there is no room.
    fn follow(&self, place: usize, identity: &str, topic: &str) -> Option<Followed> {
        let item = &self.items[place];
        let watched = upto(topic, item.levels);
        if watched.len() > MAX_TOPIC {
            return None;
        }
        let key = key(place, identity, watched);
        lock(&self.table).insert(key, identity, self.max_series, || Series::new(&item.config, identity, watched))
    }

    /// A publish on a trail; what is counted of it is in the counters once the trail is [settled](Trail::settle).
    pub(super) fn take(&self, trail: &mut Trail, identity: &str, payload: &[u8], received: &Timestamp) {
        let Trail { topic, source, items, .. } = trail;
        if items.is_empty() && source.is_none() {
            return;
        }
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
        let now = time(received);
        let mut reading = Reading {
            payload,
            counters: &self.counters,
            is_told: false,
        };
        if let Some(source) = source
            && let Some(found) = reading.read(&source.pointers, &mut Room::default())
        {
            for (found, newest) in found.iter().zip(&source.newest) {
                if let Some(value) = found.as_f64() {
                    *lock(newest) = Some(Reference { value, at: now });
                }
            }
        }
        for step in items {
            let item = &self.items[step.item];
            step.seen += 1;
            let mut room = Room::default();
            let found = reading.read(&item.pointers, &mut room);
            let mut take = |series: &Option<Followed>| {
                let Some(series) = series else { return false };
                let mut series = lock(series);
                if series.is_forgotten {
                    return false;
                }
                let reference = |place: usize| {
                    let (source, at) = item.references.get(place)?.as_ref()?;
                    *lock(source.newest.get(*at)?)
                };
                series.take(&item.config, &item.places, found, reference, &mut step.values, now, &self.counters);
                true
            };
            if !take(&step.series) {
                // It found no room, or it was silent for so long that it is forgotten: perhaps there is room now.
                step.series = self.follow(step.item, identity, topic);
                if !take(&step.series) {
                    add(&self.counters.unfollowed, 1);
                }
            }
        }
    }

    /// All series.
    pub(super) fn series(&self) -> Vec<Followed> {
        lock(&self.table).series.values().cloned().collect()
    }

    /// Numbers may have been missed: no series tells a gap before its next number.
    pub(super) fn become_unsure(&self) {
        self.series().iter().for_each(|series| lock(series).sequence.become_unsure());
    }

    /// A device's connection was accepted.
    pub(super) fn connected(&self, identity: &Arc<str>, address: SocketAddr, at: &Timestamp) {
        self.device(identity, |device| device.connected(time(at), at.wall_ms, address.to_string()));
    }

    /// A device's connection ended; no cause = by its own DISCONNECT.
    pub(super) fn ended(&self, identity: &Arc<str>, address: SocketAddr, cause: Option<Disconnection>, at: &Timestamp) {
        let flapped = self.device(identity, |device| device.ended(time(at), at.wall_ms, address.to_string(), cause));
        if let Some(cause) = cause.filter(|_| flapped) {
            self.counters.flapped(cause);
        }
    }

    /// A device's newest connections, oldest first.
    pub(super) fn history(&self, identity: &str) -> Vec<Moment> {
        lock(&self.devices)
            .get(identity)
            .map_or_else(Vec::new, |device| device.history().cloned().collect())
    }

    /// The devices whose connections are followed.
    pub(super) fn devices(&self) -> Vec<Arc<str>> {
        lock(&self.devices).keys().cloned().collect()
    }

    /// One of them.
    pub(super) fn connections(&self, identity: &str) -> Option<Connections> {
        lock(&self.devices).get(identity).cloned()
    }

    fn device<T>(&self, identity: &Arc<str>, act: impl FnOnce(&mut Connections) -> T) -> T {
        self.changed.store(true, Ordering::Relaxed);
        let mut devices = lock(&self.devices);
        if !devices.contains_key(identity) && devices.len() >= MAX_DEVICES {
            let oldest = devices.iter().min_by_key(|(_, device)| device.touched);
            if let Some(oldest) = oldest.map(|(identity, _)| Arc::clone(identity)) {
                devices.remove(&oldest);
                add(&self.counters.unfollowed, 1);
            }
        }
        act(devices.entry(Arc::clone(identity)).or_default())
    }

    /// Whether something came since it was last asked.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// The machine was suspended for `by`, until just now: nobody was silent meanwhile, and what had just begun goes on.
    pub(super) fn slept(&self, by: Ms, now: Ms) {
        for series in &self.series() {
            let mut series = lock(series);
            series.shift(by);
            if !series.silent || series.last_seen > now {
                series.last_seen = now;
            }
        }
        lock(&self.devices).values_mut().for_each(|device| device.shift(by));
    }

    /// Looks at the time, and says who is in trouble.
    pub(super) fn tick(&self, now: Ms) -> Report {
        let mut found = Vec::new();
        let items: HashMap<&str, &config::Watch> = self.items.iter().map(|item| (item.config.topic.as_str(), &item.config)).collect();
        add(&self.counters.forgotten, lock(&self.table).forget(now));
        let followed = self.series();
        for series in &followed {
            let mut series = lock(series);
            let Some(item) = items.get(series.item.as_str()) else { continue };
            add(&self.counters.silences, u64::from(series.falls_silent(item, now)));
            series.troubles(item, now, |trouble| found.push(trouble));
        }
        for (identity, device) in &mut *lock(&self.devices) {
            if let Some(flapping) = device.flapping(now) {
                found.push(flaps(identity, flapping, now));
            }
        }
        report(followed.len(), found)
    }

    #[cfg(test)]
    pub(super) const fn with_max_series(mut self, max: usize) -> Self {
        self.max_series = max;
        self
    }
}

impl Trail {
    /// Counts what came on it since the last time.
    pub(super) fn settle(&mut self) {
        for step in &mut self.items {
            if let Some((_, seen)) = self.counters.seen.get(step.item) {
                add(seen, std::mem::take(&mut step.seen));
            }
            let fields = self.counters.fields.get(step.item).into_iter().flatten();
            for ((_, values), new) in fields.zip(&mut step.values) {
                add(values, std::mem::take(new));
            }
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.settle();
    }
}

/// A payload's reading; that it cannot be read is counted once.
struct Reading<'e, 'p> {
    payload: &'p [u8],
    counters: &'e Counters,
    is_told: bool,
}

impl<'p> Reading<'_, 'p> {
    /// `None` if nothing is looked for, or it cannot be read.
    fn read<'r>(&mut self, pointers: &Pointers, room: &'r mut Room<'p>) -> Option<&'r [Found<'p>]> {
        if pointers.is_empty() {
            return None;
        }
        let is_small = self.payload.len() <= MAX_PAYLOAD;
        let found = if is_small { pointers.read(self.payload, room) } else { None };
        if found.is_none() && !std::mem::replace(&mut self.is_told, true) {
            self.counters.unreadable_for(if is_small { "not_json" } else { "too_large" });
        }
        found
    }
}

impl Table {
    /// The series of this key, made if it is not there; `None` if there is no room.
    fn insert(&mut self, key: String, device: &str, max_series: usize, make: impl FnOnce() -> Series) -> Option<Followed> {
        if let Some(known) = self.series.get(&key) {
            return Some(Arc::clone(known));
        }
        let of_one = self.of_one.get(device).copied().unwrap_or_default();
        if self.series.len() >= max_series || of_one >= MAX_OF_ONE {
            return None;
        }
        self.of_one.insert(device.to_owned(), of_one + 1);
        let followed = Arc::new(Mutex::new(make()));
        self.series.insert(key, Arc::clone(&followed));
        Some(followed)
    }

    /// Forgets those that were silent for too long; how many.
    fn forget(&mut self, now: Ms) -> u64 {
        let before = self.series.len();
        let of_one = &mut self.of_one;
        self.series.retain(|_, series| {
            let mut series = lock(series);
            // Whoever holds it still learns of it under the same lock.
            series.is_forgotten = now - series.last_seen > FORGET;
            if let Some(count) = of_one.get_mut(&series.device).filter(|_| series.is_forgotten) {
                *count -= 1;
            }
            !series.is_forgotten
        });
        self.of_one.retain(|_, count| *count > 0);
        (before - self.series.len()) as u64
    }
}

fn report(series: usize, found: Vec<Trouble>) -> Report {
    let mut report = Report {
        series,
        ..Report::default()
    };
    let mut by_signal: HashMap<Signal, Vec<Trouble>> = HashMap::new();
    for trouble in found {
        by_signal.entry(trouble.signal).or_default().push(trouble);
    }
    for signal in SIGNALS {
        let mut troubles = by_signal.remove(&signal).unwrap_or_default();
        report.count.insert(signal, troubles.len());
        troubles.sort_by(|a, b| {
            let by_weight = b.weight.total_cmp(&a.weight);
            by_weight.then_with(|| (&a.device, &a.topic, &a.detail).cmp(&(&b.device, &b.topic, &b.detail)))
        });
        troubles.truncate(LISTED);
        report.troubles.extend(troubles);
    }
    report
}

fn flaps(identity: &str, flapping: Flapping<'_>, now: Ms) -> Trouble {
    #[expect(clippy::cast_precision_loss, reason = "at most eight")]
    let count = flapping.count as f64;
    Trouble {
        signal: Signal::Flap,
        device: identity.to_owned(),
        topic: String::new(),
        detail: flapping.reason.to_owned(),
        value: count,
        weight: count,
        lasts: std::time::Duration::from_millis((now - flapping.since).unsigned_abs()),
        text: format!(
            "lost its connection {} within two minutes; last reason: {}",
            times(flapping.count as u64),
            flapping.reason
        ),
    }
}

/// The watch's time of a moment.
pub(super) fn time(at: &Timestamp) -> Ms {
    Ms::try_from(at.monotonic_ms).unwrap_or(Ms::MAX)
}

fn key(place: usize, device: &str, topic: &str) -> String {
    format!("{place}\0{device}\0{topic}")
}

/// The first levels of a topic.
fn upto(topic: &str, levels: usize) -> &str {
    let end = topic.match_indices('/').map(|(at, _)| at).nth(levels.saturating_sub(1));
    match levels {
        0 => "#",
        _ => &topic[..end.unwrap_or(topic.len())],
    }
}
