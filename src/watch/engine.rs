//! Looks at each event and at the time. It knows no clock and no thread, so that a test can give it a month in a moment.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_wal::Timestamp;
use serde_json::Value;

use super::Ms;
use super::connections::{Connections, Flapping};
use super::handoff::Publish;
use super::report::{Counters, Report, SIGNALS, Signal, Trouble, add};
use super::series::{Reference, Series};
use crate::config;

/// Series followed; one more is not, counted.
pub(super) const MAX_SERIES: usize = 20_000;
/// Devices whose connections are followed; beyond it the one heard of longest ago makes room.
pub(super) const MAX_DEVICES: usize = 10_000;
/// Troubles listed for each signal.
const LISTED: usize = 100;
/// A series silent for seven days is forgotten: its device is gone.
const FORGET: Ms = 7 * 86_400_000;

/// All that is known.
pub(super) struct Engine {
    items: Vec<Item>,
    /// By topic and pointer.
    references: HashMap<String, Vec<(String, Option<Reference>)>>,
    pub(super) series: HashMap<String, Series>,
    pub(super) devices: HashMap<Arc<str>, Connections>,
    counters: Arc<Counters>,
    /// Publishes lost at the hand-off, as of the newest event.
    lost: u64,
    max_series: usize,
}

struct Item {
    config: config::Watch,
    /// Levels before the `#`.
    levels: usize,
}

impl Engine {
    pub(super) fn new(watch: &[config::Watch], counters: Arc<Counters>) -> Self {
        let item = |config: &config::Watch| Item {
            levels: config.topic.as_str().split('/').filter(|level| *level != "#").count(),
            config: config.clone(),
        };
        let mut references: HashMap<String, Vec<(String, Option<Reference>)>> = HashMap::new();
        for drift in watch.iter().flat_map(|item| &item.fields).filter_map(|field| field.drift.as_ref()) {
            let known = references.entry(drift.topic.clone()).or_default();
            if known.iter().all(|(at, _)| *at != drift.at) {
                known.push((drift.at.clone(), None));
            }
        }
        Self {
            items: watch.iter().map(item).collect(),
            references,
            series: HashMap::new(),
            devices: HashMap::new(),
            counters,
            lost: 0,
            max_series: MAX_SERIES,
        }
    }

    /// The topics of the references.
    pub(super) fn references(&self) -> impl Iterator<Item = &String> {
        self.references.keys()
    }

    /// Takes in a series of an earlier process, if it is still watched and there is room.
    pub(super) fn restore(&mut self, mut series: Series) {
        let Some(place) = self.items.iter().position(|item| item.config.topic.as_str() == series.item) else {
            return;
        };
        if self.series.len() >= self.max_series {
            return;
        }
        let mut known: HashMap<_, _> = series.pointers.drain(..).zip(series.fields.drain(..)).collect();
        let fields = &self.items[place].config.fields;
        series.fields = fields.iter().map(|field| known.remove(&field.at).unwrap_or_default()).collect();
        series.pointers = fields.iter().map(|field| field.at.clone()).collect();
        self.series.insert(key(place, &series.device, &series.topic), series);
    }

    /// A publish.
    pub(super) fn take(&mut self, publish: &Publish) {
        if publish.lost != self.lost {
            self.lost = publish.lost;
            self.become_unsure();
        }
        let now = time(&publish.received);
        let topic = &*publish.topic;
        let payload = match &publish.payload {
            None => {
                self.counters.unreadable_for("too_large");
                None
            }
            Some(bytes) if self.wants_payload(topic) => {
                let parsed = serde_json::from_slice::<Value>(bytes).ok();
                if parsed.is_none() {
                    self.counters.unreadable_for("not_json");
                }
                parsed
            }
            Some(_) => None,
        };
        if let (Some(wanted), Some(payload)) = (self.references.get_mut(topic), &payload) {
            for (at, reference) in wanted {
                if let Some(value) = payload.pointer(at).and_then(Value::as_f64) {
                    *reference = Some(Reference { value, at: now });
                }
            }
        }
        for place in 0..self.items.len() {
            if self.items[place].config.topic.matches(topic) {
                self.look(place, publish, payload.as_ref(), now);
            }
        }
    }

    fn wants_payload(&self, topic: &str) -> bool {
        let reads = |item: &Item| item.config.sequence.is_some() || !item.config.fields.is_empty();
        self.references.contains_key(topic) || self.items.iter().any(|item| reads(item) && item.config.topic.matches(topic))
    }

    fn look(&mut self, place: usize, publish: &Publish, payload: Option<&Value>, now: Ms) {
        let item = &self.items[place];
        if let Some((_, seen)) = self.counters.seen.get(place) {
            add(seen, 1);
        }
        let watched = upto(&publish.topic, item.levels);
        let key = key(place, &publish.identity, watched);
        if !self.series.contains_key(&key) && self.series.len() >= self.max_series {
            return add(&self.counters.unfollowed, 1);
        }
        let series = self
            .series
            .entry(key)
            .or_insert_with(|| Series::new(&item.config, &publish.identity, watched));
        let reference = |field: &config::Field| {
            let drift = field.drift.as_ref()?;
            let known = self.references.get(&drift.topic)?;
            known.iter().find(|(at, _)| *at == drift.at)?.1
        };
        let references: Vec<_> = item.config.fields.iter().map(reference).collect();
        series.take(&item.config, payload, &references, now, &self.counters);
    }

    /// Numbers may have been missed: no series tells a gap before its next number.
    pub(super) fn become_unsure(&mut self) {
        self.series.values_mut().for_each(|series| series.sequence.become_unsure());
    }

    /// A device's connections; none = there is no room.
    pub(super) fn device(&mut self, identity: &Arc<str>) -> &mut Connections {
        if !self.devices.contains_key(identity) && self.devices.len() >= MAX_DEVICES {
            let oldest = self.devices.iter().min_by_key(|(_, device)| device.touched);
            if let Some(oldest) = oldest.map(|(identity, _)| Arc::clone(identity)) {
                self.devices.remove(&oldest);
                add(&self.counters.unfollowed, 1);
            }
        }
        self.devices.entry(Arc::clone(identity)).or_default()
    }

    /// Looks at the time, and says who is in trouble.
    pub(super) fn tick(&mut self, now: Ms) -> Report {
        let mut found = Vec::new();
        let items: HashMap<&str, &config::Watch> = self.items.iter().map(|item| (item.config.topic.as_str(), &item.config)).collect();
        let before = self.series.len();
        self.series.retain(|_, series| now - series.last_seen <= FORGET);
        add(&self.counters.forgotten, (before - self.series.len()) as u64);
        for series in self.series.values_mut() {
            let Some(item) = items.get(series.item.as_str()) else { continue };
            add(&self.counters.silences, u64::from(series.falls_silent(item, now)));
            series.troubles(item, now, |trouble| found.push(trouble));
        }
        for (identity, device) in &mut self.devices {
            if let Some(flapping) = device.flapping(now) {
                found.push(flaps(identity, flapping, now));
            }
        }
        self.report(found)
    }

    fn report(&self, found: Vec<Trouble>) -> Report {
        let mut report = Report {
            series: self.series.len(),
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

    #[cfg(test)]
    pub(super) const fn with_max_series(mut self, max: usize) -> Self {
        self.max_series = max;
        self
    }
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
            "lost its connection {} times within two minutes, lastly by {}",
            flapping.count, flapping.reason
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
