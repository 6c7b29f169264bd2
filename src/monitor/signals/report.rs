//! What the watch tells: counters, and who is in trouble now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Signal {
    /// Nothing came for 3.25 intervals.
    Silent,
    /// Connections are lost over and over.
    Flap,
    /// Numbers are missing.
    Gap,
    /// Numbers came twice.
    Duplicate,
    /// Numbers came late.
    Reorder,
    /// The device restarted.
    Restart,
    /// A value is out of its range.
    Range,
    /// A value no longer changes.
    Stuck,
    /// A value has drifted from its reference.
    Drift,
    /// A value's reference does not come.
    Blind,
}

/// All signals, the most urgent first.
pub(crate) const SIGNALS: [Signal; 10] = [
    Signal::Silent,
    Signal::Flap,
    Signal::Gap,
    Signal::Duplicate,
    Signal::Reorder,
    Signal::Restart,
    Signal::Range,
    Signal::Stuck,
    Signal::Drift,
    Signal::Blind,
];

/// Why a publish could not be read in full.
pub(crate) const UNREADABLE: [&str; 5] = ["too_large", "not_json", "counter", "boot", "field"];

impl Signal {
    /// The label's text.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Flap => "flap",
            Self::Gap => "gap",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Restart => "restart",
            Self::Range => "range",
            Self::Stuck => "stuck",
            Self::Drift => "drift",
            Self::Blind => "blind",
        }
    }
}

/// One series, or device, in trouble.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    /// What kind.
    pub(crate) signal: Signal,
    /// The device.
    pub(crate) device: String,
    /// The topic up to the filter's `#`; empty for a connection's.
    pub(crate) topic: String,
    /// The field's pointer, a gap's range, a flap's reason; empty for others.
    pub(crate) detail: String,
    /// Seconds of silence, of being stuck or blind; messages missing, repeated or late; restarts; flaps; the value out of range;
    /// the difference.
    pub(crate) value: f64,
    /// How bad it is, to list the worst.
    pub(crate) weight: f64,
    /// For how long it has been so.
    pub(crate) lasts: Duration,
    /// In one plain sentence.
    pub(crate) text: String,
}

/// Who is in trouble at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Series followed.
    pub(crate) series: usize,
    /// The troubles, the worst hundred of each signal, by signal.
    pub(crate) troubles: Vec<Trouble>,
    /// All in trouble, by signal.
    pub(crate) count: HashMap<Signal, usize>,
}

impl Report {
    /// How many are in this trouble.
    #[must_use]
    pub(crate) fn in_trouble(&self, signal: Signal) -> usize {
        self.count.get(&signal).copied().unwrap_or_default()
    }

    /// The listed troubles of a signal.
    pub(crate) fn of(&self, signal: Signal) -> impl Iterator<Item = &Trouble> {
        self.troubles.iter().filter(move |trouble| trouble.signal == signal)
    }
}

/// A counter for each name.
pub(crate) type Named = Box<[(String, AtomicU64)]>;

/// Counters since start; each rises only by what its name says.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Publishes and connections not followed because as many series or devices as may be are.
    pub(crate) unfollowed: AtomicU64,
    /// Series forgotten after seven days of silence.
    pub(crate) forgotten: AtomicU64,
    /// Checkpoints that could not be written or read.
    pub(crate) checkpoint_failures: AtomicU64,
    /// Silences begun.
    pub(crate) silences: AtomicU64,
    /// Gaps seen.
    pub(crate) gaps: AtomicU64,
    /// Numbers in them.
    pub(crate) missing: AtomicU64,
    /// Numbers that came twice.
    pub(crate) duplicates: AtomicU64,
    /// Numbers that came late.
    pub(crate) reordered: AtomicU64,
    /// Restarts.
    pub(crate) restarts: AtomicU64,
    /// Values out of their range.
    pub(crate) out_of_range: AtomicU64,
    /// Values that became stuck.
    pub(crate) stuck: AtomicU64,
    /// Drifts begun.
    pub(crate) drifts: AtomicU64,
    /// Publishes seen, by item.
    pub(crate) seen: Named,
    /// Values found at each field's pointer, by item, in the order of its fields.
    pub(crate) fields: Box<[Named]>,
    /// Publishes that could not be read in full, by [`UNREADABLE`].
    unreadable: [AtomicU64; UNREADABLE.len()],
    /// Connections that ended as flaps, by the reason's place in `Disconnection::ALL`.
    flaps: [AtomicU64; forebay_broker::Disconnection::ALL.len()],
}

impl Counters {
    /// Counters of a watch of these items.
    pub(super) fn new(watch: &[config::Watch]) -> Self {
        let fields = |item: &config::Watch| {
            let counter = |field: &config::Field| (field.at.clone(), AtomicU64::default());
            item.fields.iter().map(counter).collect()
        };
        Self {
            seen: watch
                .iter()
                .map(|item| (item.topic.as_str().to_owned(), AtomicU64::default()))
                .collect(),
            fields: watch.iter().map(fields).collect(),
            ..Self::default()
        }
    }

    pub(super) fn unreadable_for(&self, reason: &str) {
        if let Some(at) = UNREADABLE.iter().position(|known| *known == reason) {
            self.unreadable[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn flapped(&self, cause: forebay_broker::Disconnection) {
        if let Some(counter) = self.flaps.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Values found, by item and field.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let items = self.seen.iter().zip(&self.fields);
        items.flat_map(|((item, _), fields)| named(fields).map(move |(field, count)| (item.as_str(), field, count)))
    }

    /// Publishes that could not be read in full, by why.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        UNREADABLE
            .into_iter()
            .zip(&self.unreadable)
            .map(|(reason, count)| (reason, value(count)))
    }

    /// Flaps by reason.
    pub(crate) fn flaps(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let reasons = forebay_broker::Disconnection::ALL.iter();
        reasons.zip(&self.flaps).map(|(reason, count)| (reason.label(), value(count)))
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    // To write a nought would take the counter from the other cores for nothing.
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// The counters with their names.
pub(crate) fn named(counters: &[(String, AtomicU64)]) -> impl Iterator<Item = (&str, u64)> {
    counters.iter().map(|(name, count)| (name.as_str(), value(count)))
}

pub(super) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
