//! The three distributions, fed by the parts as things happen.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;

/// What the log, the device side and the bridge report to. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Observers {
    pub(super) commit: Histogram<f64>,
    pub(super) ack: Histogram<f64>,
    pub(super) age: Histogram<f64>,
}

impl forebay_wal::Observer for Observers {
    fn committed(&self, latency: Duration, _records: u64, _bytes: u64) {
        self.commit.record(latency.as_secs_f64(), &[]);
    }
}

impl forebay_broker::Observer for Observers {
    fn acked(&self, oldest: Duration, count: u64) {
        // Each publish counts once, with the wait of the oldest that left with it: a tail is overstated, never hidden.
        for _ in 0..count {
            self.ack.record(oldest.as_secs_f64(), &[]);
        }
    }
}

impl forebay_bridge::Observer for Observers {
    fn delivered(&self, age: Duration, late: bool) {
        self.age
            .record(age.as_secs_f64(), &[KeyValue::new("late", if late { "true" } else { "false" })]);
    }
}
