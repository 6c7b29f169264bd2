//! One device on one item of `watch`: all that is known of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::field::Field;
use super::pointers::{Found, Pointers};
use super::report::{Counters, Signal, Trouble, add};
use super::sequence::{Sequence, Step};
use super::{Ms, Recent};
use crate::config::{self, show_duration};
use crate::words::count;

/// What one series has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    /// The item's filter.
    pub(super) item: String,
    /// The publisher's identity.
    pub(super) device: String,
    /// The topic up to the filter's `#`.
    pub(super) topic: String,
    pub(super) last_seen: Ms,
    pub(super) silent: bool,
    pub(super) sequence: Sequence,
    /// The newest gap.
    newest_gap: Option<(u64, u64)>,
    missing: Recent,
    duplicates: Recent,
    reordered: Recent,
    restarts: Recent,
    /// In the order of the item's fields.
    pub(super) fields: Vec<Field>,
    /// Their pointers, to find them again after the configuration changed.
    pub(super) pointers: Vec<String>,
    /// It is no longer in the table: a connection that still has it looks it up again.
    #[serde(skip)]
    pub(super) is_forgotten: bool,
}

/// Where what an item points to stands in what its pointers found.
#[derive(Debug)]
pub(super) struct Places {
    counter: Option<usize>,
    boot: Option<usize>,
    fields: Vec<usize>,
}

/// The newest value of a reference, and for how long it may be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    pub(super) value: f64,
    pub(super) at: Ms,
}

/// How long a reference's value, and a message's time, may be used: the interval if there is one.
pub(super) fn patience(every: Option<Duration>) -> Ms {
    /// Without an interval.
    const STALE: Ms = 900_000;
    every.map_or(STALE, |every| Ms::try_from(every.as_millis()).unwrap_or(STALE) * 13 / 4)
}

impl Places {
    /// Adds an item's pointers to those that are looked for.
    pub(super) fn of(item: &config::Watch, pointers: &mut Pointers) -> Self {
        let sequence = item.sequence.as_ref();
        Self {
            counter: sequence.map(|sequence| pointers.add(&sequence.counter)),
            boot: sequence.and_then(|sequence| Some(pointers.add(sequence.boot.as_ref()?))),
            fields: item.fields.iter().map(|field| pointers.add(&field.at)).collect(),
        }
    }
}

impl Series {
    /// A device that is seen on an item for the first time.
    pub(super) fn new(item: &config::Watch, device: &str, topic: &str) -> Self {
        Self {
            item: item.topic.as_str().to_owned(),
            device: device.to_owned(),
            topic: topic.to_owned(),
            fields: vec![Field::default(); item.fields.len()],
            pointers: item.fields.iter().map(|field| field.at.clone()).collect(),
            ..Self::default()
        }
    }

    /// Takes a message in; `found` is `None` if it could not be read. `reference` gives a field's reference by the field's place.
    /// The values that are found are added to `values`, by the field's place.
    #[expect(clippy::too_many_arguments, reason = "what an item is, and what it counts")]
    pub(super) fn take(
        &mut self,
        item: &config::Watch,
        places: &Places,
        found: Option<&[Found<'_>]>,
        reference: impl Fn(usize) -> Option<Reference>,
        values: &mut [u64],
        now: Ms,
        counters: &Counters,
    ) {
        (self.last_seen, self.silent) = (now, false);
        let Some(found) = found else { return };
        let at = |place: usize| found.get(place).unwrap_or(&Found::Absent);
        if let Some(counter) = places.counter {
            self.count(at(counter), places.boot.map(at), now, counters);
        }
        let fields = self.fields.iter_mut().zip(&item.fields).zip(&places.fields).zip(values);
        for (number, (((field, config), place), values)) in fields.enumerate() {
            let value = match at(*place) {
                Found::Absent | Found::Null => continue,
                found => found.as_f64(),
            };
            let Some(value) = value else {
                counters.unreadable_for("field");
                continue;
            };
            *values += 1;
            let said = field.take(value, config.range, now);
            add(&counters.out_of_range, u64::from(said.out_of_range));
            add(&counters.stuck, u64::from(said.stuck));
            let Some(drift) = &config.drift else { continue };
            match reference(number) {
                Some(reference) if now - reference.at <= patience(item.every) => {
                    (field.paired, field.blind_since) = (Some(now), None);
                    let begun = field.drift.take(value - reference.value, drift.more_than);
                    add(&counters.drifts, u64::from(begun));
                }
                _ => {
                    field.blind_since.get_or_insert(now);
                }
            }
        }
    }

    fn count(&mut self, number: &Found<'_>, boot: Option<&Found<'_>>, now: Ms, counters: &Counters) {
        let boot = match boot.map(Found::as_text) {
            None => None,
            Some(Some(text)) => Some(text),
            Some(None) => return counters.unreadable_for("boot"),
        };
        let Some(number) = number.as_u64() else {
            return counters.unreadable_for("counter");
        };
        match self.sequence.take(boot.as_deref(), number) {
            Step::Due => {}
            Step::Gap(first, last) => {
                let count = last - first + 1;
                add(&counters.gaps, 1);
                add(&counters.missing, count);
                self.missing.add(now, count);
                self.newest_gap = Some((first, last));
            }
            Step::Duplicate => {
                add(&counters.duplicates, 1);
                self.duplicates.add(now, 1);
            }
            Step::Late => {
                add(&counters.reordered, 1);
                self.reordered.add(now, 1);
                self.missing.take_back(1);
            }
            Step::Restart => {
                add(&counters.restarts, 1);
                self.restarts.add(now, 1);
            }
        }
    }

    /// Looks at the time; whether a silence began.
    pub(super) fn falls_silent(&mut self, item: &config::Watch, now: Ms) -> bool {
        let begins = !self.silent && item.every.is_some() && now - self.last_seen > patience(item.every);
        self.silent |= begins;
        begins
    }

    /// What is wrong with it now.
    pub(super) fn troubles(&self, item: &config::Watch, now: Ms, mut tell: impl FnMut(Trouble)) {
        let (device, topic) = (&self.device, &self.topic);
        let mut say = |signal, detail: &str, value: f64, weight: f64, since: Ms, text: String| {
            tell(Trouble {
                signal,
                device: device.clone(),
                topic: topic.clone(),
                detail: detail.to_owned(),
                value,
                weight,
                lasts: length(now - since),
                text,
            });
        };
        if let (true, Some(every)) = (self.silent, item.every) {
            let lasts = length(now - self.last_seen);
            let text = format!(
                "has sent nothing on `{topic}` for {}; it should send every {}",
                rough(lasts),
                show_duration(every)
            );
            say(Signal::Silent, "", lasts.as_secs_f64(), lasts.as_secs_f64(), self.last_seen, text);
        }
        let missing = self.missing.count(now);
        if missing > 0 {
            let (first, last) = self.newest_gap.unwrap_or_default();
            let range = format!("{first}-{last}");
            let text = format!(
                "{} on `{topic}` are missing: {}",
                count(missing, "message"),
                ranges(self.sequence.missing(), &range)
            );
            say(Signal::Gap, &range, float(missing), float(missing), self.missing.since, text);
        }
        for (signal, recent, noun, what) in [
            (Signal::Duplicate, self.duplicates, "message", "came twice on"),
            (Signal::Reorder, self.reordered, "message", "came out of order on"),
            (Signal::Restart, self.restarts, "restart", "recently, seen on"),
        ] {
            let times = recent.count(now);
            if times > 0 {
                let text = format!("{} {what} `{topic}`", count(times, noun));
                say(signal, "", float(times), float(times), recent.since, text);
            }
        }
        for (field, config) in self.fields.iter().zip(&item.fields) {
            let at = &config.at;
            if let (Some(value), Some((lowest, highest))) = (field.out_of_range(), config.range) {
                let off = (lowest - value).max(value - highest) / (highest - lowest);
                let text = format!("{at} is {value}, outside {lowest} to {highest}");
                say(Signal::Range, at, value, off, self.last_seen, text);
            }
            if let Some(value) = field.stuck() {
                let lasts = length(now - field.since);
                let text = format!("{at} has been {value} for {}: is the sensor stuck?", rough(lasts));
                say(Signal::Stuck, at, lasts.as_secs_f64(), lasts.as_secs_f64(), field.since, text);
            }
            let Some(drift) = &config.drift else { continue };
            if let Some(found) = field.drift.drifted() {
                let text = format!(
                    "{at} differs from its reference `{}` by {found:+.2}, more than {}",
                    drift.topic, drift.more_than
                );
                say(Signal::Drift, at, found, found.abs() / drift.more_than, now, text);
            }
            if let Some(since) = field.blind_since.filter(|since| now - since > patience(item.every)) {
                let lasts = length(now - field.paired.unwrap_or(since));
                let text = format!(
                    "{at} cannot be compared: its reference `{}` has been missing for {}",
                    drift.topic,
                    rough(lasts)
                );
                say(Signal::Blind, at, lasts.as_secs_f64(), lasts.as_secs_f64(), since, text);
            }
        }
    }

    /// Moves all its times, after a restart.
    pub(super) fn shift(&mut self, by: Ms) {
        self.last_seen += by;
        for recent in [&mut self.missing, &mut self.duplicates, &mut self.reordered, &mut self.restarts] {
            recent.shift(by);
        }
        for field in &mut self.fields {
            field.since += by;
            field.paired = field.paired.map(|at| at + by);
            field.blind_since = field.blind_since.map(|at| at + by);
        }
    }
}

/// The newest five ranges, oldest first.
fn ranges(missing: &[(u64, u64)], newest: &str) -> String {
    const SHOWN: usize = 5;
    if missing.is_empty() {
        return newest.to_owned();
    }
    let shown = missing.iter().skip(missing.len().saturating_sub(SHOWN));
    let shown: Vec<_> = shown.map(|(first, last)| format!("{first}-{last}")).collect();
    let others = if missing.len() > SHOWN { ", and earlier ones" } else { "" };
    format!("{}{others}", shown.join(", "))
}

fn length(ms: Ms) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// A duration for reading: `42 s`, `5 min`, `3 h`, `12 days`.
pub(crate) fn rough(lasts: Duration) -> String {
    match lasts.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts for a gauge")]
const fn float(count: u64) -> f64 {
    count as f64
}
