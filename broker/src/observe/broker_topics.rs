//! The figures at `$SYS/broker/...`: their topics and values, in the forms of Mosquitto.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{DroppedOwed, Refusal, Stats};

/// What all of them begin with.
const PREFIX: &str = "$SYS/broker/";
/// What a load is the average of, in minutes.
const MINUTES: [u32; 3] = [1, 5, 15];
/// The loads: of what, per minute.
const LOADS: [&str; 7] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "connections",
];
/// The others.
const NAMES: [&str; 17] = [
    "version",
    "uptime",
    "clients/total",
    "clients/connected",
    "clients/disconnected",
    "clients/maximum",
    "messages/received",
    "messages/sent",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/messages/dropped",
    "publish/bytes/received",
    "publish/bytes/sent",
    "bytes/received",
    "bytes/sent",
    "subscriptions/count",
    "retained messages/count",
];

/// The averages, and since when there are any.
pub(crate) struct BrokerTopics {
    started: Instant,
    loads: Mutex<Loads>,
}

/// Moving averages of counters, as Mosquitto has them.
#[derive(Default)]
struct Loads {
    before: [u64; LOADS.len()],
    averages: [[f64; MINUTES.len()]; LOADS.len()],
}

/// Whether this is a topic of the gateway's own.
pub(crate) fn is_broker_topic(topic: &str) -> bool {
    topic.strip_prefix(PREFIX).is_some_and(|name| {
        NAMES.contains(&name)
            || name
                .strip_prefix("load/")
                .is_some_and(|load| LOADS.iter().any(|known| load.starts_with(known)))
    })
}

impl BrokerTopics {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            loads: Mutex::default(),
        }
    }

    /// Each topic and its value now, with so many sessions and subscriptions.
    pub(crate) fn values(&self, stats: &Stats, sessions: usize, subscriptions: usize) -> Vec<(String, String)> {
        let counts = Counts::of(stats);
        let total = sessions as u64;
        let value = |name: &str| match name {
            "version" => format!("forebay version {}", env!("CARGO_PKG_VERSION")),
            "uptime" => format!("{} seconds", self.started.elapsed().as_secs()),
            _ => {
                let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                let value = match name {
                    "clients/total" => total,
                    "clients/connected" => read(&stats.connected),
                    "clients/disconnected" => total.saturating_sub(read(&stats.connected)),
                    "clients/maximum" => read(&stats.most_connected),
                    "messages/received" => read(&stats.packets_received),
                    "messages/sent" => read(&stats.packets_sent),
                    "publish/messages/received" => counts.publishes_received,
                    "publish/messages/sent" => counts.publishes_sent,
                    "publish/messages/dropped" => counts.publishes_dropped,
                    "publish/bytes/received" => read(&stats.payload_bytes),
                    "publish/bytes/sent" => read(&stats.payload_bytes_sent),
                    "bytes/received" => read(&stats.bytes_received),
                    "bytes/sent" => read(&stats.bytes_sent),
                    "subscriptions/count" => subscriptions as u64,
                    _ => read(&stats.retained),
                };
                value.to_string()
            }
        };
        let mut values: Vec<_> = NAMES.iter().map(|name| (format!("{PREFIX}{name}"), value(name))).collect();
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, averages) in LOADS.iter().zip(&loads.averages) {
            values.extend(
                MINUTES
                    .iter()
                    .zip(averages)
                    .map(|(minutes, average)| (format!("{PREFIX}load/{name}/{minutes}min"), format!("{average:.2}"))),
            );
        }
        values
    }

    /// Takes the counters into the averages; called after each such time.
    pub(crate) fn note(&self, stats: &Stats, over: Duration) {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.add(Counts::of(stats).loads, over);
    }
}

impl Loads {
    fn add(&mut self, now: [u64; LOADS.len()], over: Duration) {
        for ((before, now), averages) in self.before.iter_mut().zip(now).zip(&mut self.averages) {
            let per_minute = now.saturating_sub(*before) as f64 * 60.0 / over.as_secs_f64();
            for (average, minutes) in averages.iter_mut().zip(MINUTES) {
                let kept = (-over.as_secs_f64() / (60.0 * f64::from(minutes))).exp();
                *average = per_minute + kept * (*average - per_minute);
            }
            *before = now;
        }
    }
}

/// Sums of counters.
struct Counts {
    publishes_received: u64,
    publishes_sent: u64,
    publishes_dropped: u64,
    loads: [u64; LOADS.len()],
}

impl Counts {
    fn of(stats: &Stats) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused: u64 = Refusal::ALL.iter().map(|reason| stats.refused(*reason)).sum();
        let dropped: u64 = Refusal::ALL.iter().map(|reason| stats.dropped(*reason)).sum();
        let owed: u64 = DroppedOwed::ALL.iter().map(|reason| stats.owed_dropped(*reason)).sum();
        let publishes_received = read(&stats.accepted) + refused + dropped + read(&stats.qos2_duplicates);
        let publishes_sent = read(&stats.fanned_out) + read(&stats.retained_sent);
        Self {
            publishes_received,
            publishes_sent,
            publishes_dropped: dropped + owed + read(&stats.fanout_dropped),
            loads: [
                read(&stats.packets_received),
                read(&stats.packets_sent),
                publishes_received,
                publishes_sent,
                read(&stats.bytes_received),
                read(&stats.bytes_sent),
                read(&stats.connects),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_nears_its_rate_per_minute_in_its_time() {
        let mut loads = Loads::default();
        let mut count = 0;
        for _ in 0..90 {
            count += 100;
            loads.add([count; LOADS.len()], Duration::from_secs(10));
        }
        // Fifteen minutes at 600 a minute.
        let [one, five, fifteen] = loads.averages[0];
        assert!((one - 600.0).abs() < 0.01, "{one}");
        assert!((five - 600.0 * (1.0 - (-3.0_f64).exp())).abs() < 0.01, "{five}");
        assert!((fifteen - 600.0 * (1.0 - (-1.0_f64).exp())).abs() < 0.01, "{fifteen}");
    }

    #[test]
    fn the_gateways_own_topics_are_told_from_others_below_sys() {
        for own in [
            "$SYS/broker/uptime",
            "$SYS/broker/retained messages/count",
            "$SYS/broker/load/bytes/sent/15min",
        ] {
            assert!(is_broker_topic(own), "{own}");
        }
        for other in [
            "$SYS/broker/connection/plant/state",
            "$SYS/broker",
            "$SYS",
            "SYS/broker/uptime",
            "x/$SYS/broker/uptime",
        ] {
            assert!(!is_broker_topic(other), "{other}");
        }
    }
}
