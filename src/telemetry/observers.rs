//! The three distributions and the traces, fed by the parts as things happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forebay_bridge::Answer;
use forebay_broker::TracedPublish;
use forebay_wal::{Offset, Record, StreamId};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;

use crate::traces::Tracer;

/// What the log, the device side and the bridge report to. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Observers {
    pub(super) commit: Histogram<f64>,
    pub(super) ack: Histogram<f64>,
    pub(super) age: Histogram<f64>,
    /// None while nothing is traced.
    pub(super) tracer: OnceLock<Arc<Tracer>>,
    /// Segments that were looked at since the log is being opened, and how many there are.
    pub(super) opening: Arc<[AtomicU64; 2]>,
}

impl forebay_wal::Observer for Observers {
    fn committed(&self, latency: Duration, _records: u64, _bytes: u64) {
        self.commit.record(latency.as_secs_f64(), &[]);
    }

    fn opening(&self, segments: u64, of: u64) {
        for (kept, now) in self.opening.iter().zip([segments, of]) {
            kept.store(now, Ordering::Relaxed);
        }
    }
}

impl forebay_broker::Observer for Observers {
    fn acked(&self, oldest: Duration, count: u64) {
        // Each publish counts once, with the wait of the oldest that left with it: a tail is overstated, never hidden.
        for _ in 0..count {
            self.ack.record(oldest.as_secs_f64(), &[]);
        }
    }

    fn traces(&self, stream: StreamId, offset: Offset) -> bool {
        self.tracer.get().is_some_and(|tracer| tracer.samples(stream, offset))
    }

    fn traced(&self, publish: &TracedPublish) {
        if let Some(tracer) = self.tracer.get() {
            tracer.publish(publish);
        }
    }
}

impl forebay_bridge::Observer for Observers {
    fn delivered(&self, age: Duration, late: bool) {
        self.age
            .record(age.as_secs_f64(), &[KeyValue::new("late", if late { "true" } else { "false" })]);
    }

    fn sent(&self, record: &Record, again: bool) {
        if let Some(tracer) = self.tracer.get() {
            tracer.sent(record, again);
        }
    }

    fn answered(&self, record: &Record, sent: Instant, answer: Answer) {
        if let Some(tracer) = self.tracer.get() {
            tracer.answered(record, sent, answer);
        }
    }
}
