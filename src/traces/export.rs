//! From the parts to the collector: a bounded queue, batches, and what became of the spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::http::Client;
use crate::config::Otlp;

/// Spans that may wait; one more is dropped. Some 2 MiB.
const QUEUE: usize = 4096;
/// Spans of one request.
const BATCH: usize = 512;
/// How long spans are collected for one request.
const LINGER: Duration = Duration::from_millis(500);
/// How long what waits at the end may take to leave.
const FAREWELL: Duration = Duration::from_secs(3);
/// Where OTLP over HTTP takes traces.
const PATH: &str = "/v1/traces";

/// What became of the spans.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Taken by the collector.
    pub(crate) exported: AtomicU64,
    /// Dropped because the queue was full.
    pub(crate) queue_full: AtomicU64,
    /// Dropped because the collector did not take their batch.
    pub(crate) export_failed: AtomicU64,
}

/// The way in.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
}

impl Queue {
    /// Never waits.
    pub(super) fn push(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.counts.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

/// The queue, and what exports it once it is run.
pub(super) fn make(otlp: &Otlp, gateway: &str) -> anyhow::Result<(Queue, Exporting)> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}{PATH}", otlp.endpoint))
        .build()
        .context("traces cannot be exported; see admin.otlp")?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "forebay"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", gateway.to_owned()),
    ]);
    exporter.set_resource(&resource.build());
    let (sender, receiver) = mpsc::channel(QUEUE);
    let counts = Arc::<Counts>::default();
    let export = Export {
        receiver,
        pending: Vec::new(),
        exporter,
        counts: Arc::clone(&counts),
        endpoint: otlp.endpoint.clone(),
        is_failing: false,
    };
    Ok((Queue { sender, counts }, Exporting(Arc::new(Mutex::new(export)))))
}

/// The export of spans. Cheap to clone, so that it can be run again after a panic.
#[derive(Clone)]
pub(crate) struct Exporting(Arc<Mutex<Export>>);

impl Exporting {
    /// Exports until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        self.0.lock().await.run(shutdown).await;
    }
}

struct Export {
    receiver: mpsc::Receiver<SpanData>,
    /// The batch that is gathered; here, so that cancelling the gathering loses nothing.
    pending: Vec<SpanData>,
    exporter: opentelemetry_otlp::SpanExporter,
    counts: Arc<Counts>,
    endpoint: String,
    is_failing: bool,
}

impl Export {
    async fn run(&mut self, shutdown: CancellationToken) {
        while let Some(batch) = shutdown.run_until_cancelled(self.batch()).await.flatten() {
            self.export(batch).await;
        }
        // What waits goes out, as far as that is quick.
        let farewell = async {
            let mut rest = std::mem::take(&mut self.pending);
            while let Ok(span) = self.receiver.try_recv() {
                rest.push(span);
            }
            if !rest.is_empty() {
                self.export(rest).await;
            }
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("the collector did not accept the last traces in time");
        }
    }

    /// The next batch: full, or what came within the time that its first span may wait.
    async fn batch(&mut self) -> Option<Vec<SpanData>> {
        if self.pending.is_empty() && self.receiver.recv_many(&mut self.pending, BATCH).await == 0 {
            return None;
        }
        if self.pending.len() < BATCH {
            sleep(LINGER).await;
            while self.pending.len() < BATCH
                && let Ok(span) = self.receiver.try_recv()
            {
                self.pending.push(span);
            }
        }
        Some(std::mem::take(&mut self.pending))
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        let counter = match &result {
            Ok(()) => &self.counts.exported,
            Err(_) => &self.counts.export_failed,
        };
        counter.fetch_add(count, Ordering::Relaxed);
        let fails = result.is_err();
        match result {
            Ok(()) if self.is_failing => tracing::info!("the collector at {} accepts traces again", self.endpoint),
            Err(error) if !self.is_failing => tracing::warn!(
                %error,
                "the collector at {} does not accept traces; they are dropped and counted. Is it running, and does it accept OTLP over HTTP there?",
                self.endpoint
            ),
            _ => {}
        }
        self.is_failing = fails;
    }
}
