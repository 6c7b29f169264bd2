//! Traces: one record's way from its publish to the cloud's PUBACK, told to an OpenTelemetry collector.
//!
//! ```text
//! publish    from the packet's reading to its ack         (root; the device's side)
//! ├─ commit  from the open batch to "survives a power cut"
//! ├─ wait    from accepted to handed to a connection       (once per process that sends it)
//! └─ cloud   from handed over to the cloud's answer        (once per try; linked to commit)
//! ```
//!
//! Trace and parent ids are derived from the record's id ([`ids`]), so that what one process began another one goes on with
//! after a restart, without anything stored: the sender after a SIGKILL hangs its spans under a publish that it never saw.
//! Whether a record is traced follows from its place likewise ([`share`]), so that all its spans are sampled or none.
//!
//! Nothing here may delay a message: spans go into a bounded queue ([`export`]), what finds it full is dropped and counted.

mod export;
mod http;
mod ids;
mod share;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_bridge::Answer;
use forebay_broker::TracedPublish;
use forebay_wal::{Clock, Epoch, Log, Offset, Record, StreamId};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::config::Otlp;
use crate::monitor::canary;
use export::Queue;
use ids::{Prefix, RecordIds};
use share::Share;

pub(crate) use export::{Counts, Exporting};

/// Makes spans of what the parts report. None exists while `admin.otlp` is left out.
#[derive(Debug)]
pub(crate) struct Tracer {
    names: Names,
    clock: Arc<dyn Clock>,
    share: Share,
    queue: Queue,
    scope: InstrumentationScope,
}

/// From a record's place to its ids.
#[derive(Debug)]
struct Names {
    gateway: String,
    /// The log's own epoch, and what the ids of its records begin with.
    epoch: Epoch,
    streams: Vec<Traced>,
}

/// A stream.
#[derive(Debug)]
struct Traced {
    id: StreamId,
    name: String,
    prefix: Prefix,
}

/// What a span is about, beside its times.
struct Span {
    name: &'static str,
    kind: SpanKind,
    parent: SpanId,
    id: SpanId,
    attributes: Vec<KeyValue>,
    links: SpanLinks,
    status: Status,
}

impl Tracer {
    /// Starts exporting; ends some seconds at most after `shutdown`.
    ///
    /// # Errors
    /// An endpoint that the exporter does not take.
    pub(crate) fn start(otlp: &Otlp, gateway: &str, log: &Log, clock: Arc<dyn Clock>) -> anyhow::Result<(Arc<Self>, Exporting)> {
        let (queue, exporting) = export::make(otlp, gateway)?;
        let epoch = log.epoch();
        let stream = |stream: forebay_wal::StreamStatus| Traced {
            id: stream.id,
            prefix: Prefix::new(gateway, epoch, &stream.name),
            name: stream.name,
        };
        let streams = log.status().streams.into_iter().map(stream).collect();
        let tracer = Self {
            names: Names {
                gateway: gateway.to_owned(),
                epoch,
                streams,
            },
            clock,
            share: Share::new(otlp.sample),
            queue,
            scope: InstrumentationScope::builder("forebay")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        };
        Ok((Arc::new(tracer), exporting))
    }

    /// What became of the spans so far.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.queue.counts()
    }

    /// Whether a record of this process is traced.
    pub(crate) fn samples(&self, stream: StreamId, offset: Offset) -> bool {
        self.takes(self.names.epoch, stream, offset)
    }

    /// A publish has left its connection's order: the spans `publish` and `commit`.
    pub(crate) fn publish(&self, publish: &TracedPublish) {
        let ids = self.names.ids(self.names.epoch, publish.stream, publish.offset);
        let text = self.names.text(self.names.epoch, publish.stream, publish.offset);
        let failed = publish.committed.is_none();
        let committed = publish.committed.unwrap_or_else(Instant::now);
        let status = |text: &'static str| if failed { Status::error(text) } else { Status::Unset };
        let commit = Span {
            name: "commit",
            kind: SpanKind::Internal,
            parent: ids.publish,
            id: ids.commit,
            attributes: vec![KeyValue::new("forebay.id", text.clone())],
            links: SpanLinks::default(),
            status: status("the commit failed; nothing was stored"),
        };
        self.span(&ids, commit, at(publish.appended), at(committed));
        let root = Span {
            name: "publish",
            kind: SpanKind::Server,
            parent: SpanId::INVALID,
            id: ids.publish,
            attributes: vec![
                KeyValue::new("forebay.id", text),
                KeyValue::new("forebay.device", publish.identity.to_string()),
                KeyValue::new("messaging.system", "mqtt"),
                KeyValue::new("messaging.destination.name", publish.topic.clone()),
                KeyValue::new("mqtt.qos", i64::from(publish.qos)),
                KeyValue::new("mqtt.acked", publish.answered.is_some()),
            ],
            links: SpanLinks::default(),
            status: status("the publish was not stored"),
        };
        self.span(&ids, root, at(publish.read), at(publish.answered.unwrap_or(committed)));
    }

    /// A record was handed to a connection: the span `wait`, the first time in this process.
    pub(crate) fn sent(&self, record: &Record, again: bool) {
        if again {
            return;
        }
        let Some(ids) = self.traced(record) else { return };
        let now = forebay_wal::wall_clock();
        let wait = Span {
            name: "wait",
            kind: SpanKind::Internal,
            parent: ids.publish,
            id: ids::random(),
            attributes: vec![
                KeyValue::new("forebay.id", self.text_of(record)),
                KeyValue::new("forebay.route", record.route.to_string()),
            ],
            links: SpanLinks::default(),
            status: Status::Unset,
        };
        self.span(&ids, wait, self.accepted(record, now), now);
    }

    /// What came of a record that was handed to a connection: the span `cloud`.
    pub(crate) fn answered(&self, record: &Record, sent: Instant, answer: Answer) {
        let Some(ids) = self.traced(record) else { return };
        let (code, status) = match answer {
            Answer::Code(code) if code >= 0x80 => (Some(code), Status::error("the cloud refused it")),
            Answer::Code(code) => (Some(code), Status::Unset),
            Answer::Written => (None, Status::Unset),
            Answer::None => (None, Status::error("the connection ended before an answer came")),
        };
        let mut attributes = vec![KeyValue::new("forebay.id", self.text_of(record))];
        attributes.extend(code.map(|code| KeyValue::new("mqtt.puback.code", i64::from(code))));
        let mut links = SpanLinks::default();
        links.links.push(Link::new(ids.context(ids.commit), Vec::new(), 0));
        let cloud = Span {
            name: "cloud",
            kind: SpanKind::Client,
            parent: ids.publish,
            id: ids::random(),
            attributes,
            links,
            status,
        };
        self.span(&ids, cloud, at(sent), forebay_wal::wall_clock());
    }

    /// The ids of a record at the bridge, if it is traced. The canary is not: nobody published it.
    fn traced(&self, record: &Record) -> Option<RecordIds> {
        let id = &record.id;
        let is_traced = self.takes(id.epoch, id.stream, id.offset) && *record.identity != *canary::IDENTITY;
        is_traced.then(|| self.names.ids(id.epoch, id.stream, id.offset))
    }

    fn takes(&self, epoch: Epoch, stream: StreamId, offset: Offset) -> bool {
        self.share.takes(self.names.prefix(epoch, stream).numbers(), offset)
    }

    fn text_of(&self, record: &Record) -> String {
        self.names.text(record.id.epoch, record.id.stream, record.id.offset)
    }

    /// When the record was accepted, as far as it can be proved; else now.
    fn accepted(&self, record: &Record, now: SystemTime) -> SystemTime {
        let received = &record.received;
        if received.trusted {
            return UNIX_EPOCH + Duration::from_millis(received.wall_ms);
        }
        let age = received.age(&self.clock.now()).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    }

    fn span(&self, ids: &RecordIds, span: Span, start: SystemTime, end: SystemTime) {
        self.queue.push(SpanData {
            span_context: ids.context(span.id),
            parent_span_id: span.parent,
            parent_span_is_remote: false,
            span_kind: span.kind,
            name: span.name.into(),
            start_time: start,
            end_time: end.max(start),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: span.links,
            status: span.status,
            instrumentation_scope: self.scope.clone(),
        });
    }
}

impl Names {
    fn ids(&self, epoch: Epoch, stream: StreamId, offset: Offset) -> RecordIds {
        self.prefix(epoch, stream).ids(offset)
    }

    fn prefix(&self, epoch: Epoch, stream: StreamId) -> Cow<'_, Prefix> {
        match self.streams.iter().find(|known| known.id == stream) {
            Some(known) if epoch == self.epoch => Cow::Borrowed(&known.prefix),
            // A record that an earlier log accepted and this one carries.
            _ => Cow::Owned(Prefix::new(&self.gateway, epoch, self.name(stream))),
        }
    }

    /// A record's id as the cloud gets it.
    fn text(&self, epoch: Epoch, stream: StreamId, offset: Offset) -> String {
        format!("{}/{epoch}/{}/{}", self.gateway, self.name(stream), offset.0)
    }

    fn name(&self, stream: StreamId) -> &str {
        self.streams.iter().find(|known| known.id == stream).map_or("", |known| &known.name)
    }
}

impl RecordIds {
    fn context(&self, span: SpanId) -> SpanContext {
        SpanContext::new(self.trace, span, TraceFlags::SAMPLED, false, TraceState::default())
    }
}

/// An instant by the machine's clock.
fn at(instant: Instant) -> SystemTime {
    let now = forebay_wal::wall_clock();
    now.checked_sub(instant.elapsed()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_ids_of_the_epoch_that_accepted_it() {
        let (own, earlier) = (Epoch(7), Epoch(3));
        let stream = Traced {
            id: StreamId(1),
            name: "telemetry".to_owned(),
            prefix: Prefix::new("g", own, "telemetry"),
        };
        let names = Names {
            gateway: "g".to_owned(),
            epoch: own,
            streams: vec![stream],
        };
        for epoch in [own, earlier] {
            let text = names.text(epoch, StreamId(1), Offset(42));
            let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            let trace = names.ids(epoch, StreamId(1), Offset(42)).trace;
            assert_eq!(trace.to_bytes()[..], digest.as_ref()[..16], "{text}");
            // And so is it traced or not by whoever sends it, also from a later log.
            let accepting = Prefix::new("g", epoch, "telemetry");
            assert_eq!(names.prefix(epoch, StreamId(1)).numbers(), accepting.numbers(), "{text}");
        }
    }
}
