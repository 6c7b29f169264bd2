//! What is measured: one catalogue of instruments, three distributions, and the figures of the running parts.
//!
//! [`Telemetry`] comes first, because the parts report to it from their first moment; [`Telemetry::observe`] takes the
//! parts once they run. Counters stay where they are counted and are read at each scrape.

mod catalogue;
mod figures;
mod health;
#[cfg(test)]
mod markdown;
mod observers;
mod outlook;
mod past;
mod rates;
mod sources;
mod watchdog;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context as _;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider as _};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::metrics::{Aggregation, SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

use crate::config::Config;
use crate::traces::Tracer;
use catalogue::{ACK_LATENCY, COMMIT_LATENCY, DELIVERY_AGE, Instrument, Kind, Moment, Read, instruments};
use forebay_broker::UnroutedTopic;
use observers::Observers;
use past::Past;
use rates::{Rates, Totals};
use sources::Running;
use watchdog::{Progress, Watchdog};

pub(crate) use figures::{Cloud, Figures, Source, Stream, value};
pub(crate) use health::{not_ready, restart_helps};
pub(crate) use outlook::Deadline;
pub(crate) use past::Counted;
pub(crate) use rates::Flow;
pub(crate) use sources::Sources;

/// Unrouted topics that `/metrics` names.
const UNROUTED: usize = 10;
/// Series per instrument; the catalogue stays far below, this is the belt beside it.
const MAX_SERIES: usize = 300;

/// Everything measured. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Telemetry {
    inner: Arc<Inner>,
    observers: Arc<Observers>,
}

/// Who this process is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The gateway's id.
    pub(crate) gateway: String,
    /// The program's version.
    pub(crate) version: &'static str,
    /// A hash of the configuration.
    pub(crate) fingerprint: String,
    /// When the process started, for uptime.
    pub(crate) started: Instant,
    /// The same by the machine's clock, seconds since 1970.
    pub(crate) started_at: f64,
}

struct Inner {
    identity: Identity,
    registry: Registry,
    // Instruments work as long as their provider lives.
    _provider: SdkMeterProvider,
    source: Arc<Watched>,
    sampled: Mutex<(Rates, Watchdog, Past)>,
    /// What the instruments read during one scrape.
    scraped: Arc<Scraped>,
    /// Admin requests refused for their `Host`.
    foreign_hosts: AtomicU64,
}

/// All figures and what is reckoned from them.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The parts' figures.
    pub(crate) figures: Figures,
    /// What flows.
    pub(crate) flow: Flow,
    /// How long the log would take what comes without the cloud, in seconds; `None` if nothing comes.
    pub(crate) autonomy: Option<f64>,
    /// How long the log has taken records in without a commit; `None` if commits succeed.
    pub(crate) log_stalled: Option<Duration>,
    /// How long a commit that takes long has been waited for; `None` if commits are quick.
    pub(crate) commit_slow: Option<Duration>,
    /// The deadlines, the nearest first.
    pub(crate) outlook: Vec<Deadline>,
    /// What was counted within a day.
    pub(crate) within_a_day: Counted,
}

/// What one scrape reads from.
struct Scrape {
    identity: Identity,
    look: Look,
    unrouted: Vec<UnroutedTopic>,
}

type Scraped = Mutex<Option<Scrape>>;
type Watched = OnceLock<Box<dyn Source>>;

impl Telemetry {
    /// Telemetry of this process; `fingerprint` is a hash of the configuration.
    ///
    /// # Errors
    /// An instrument that OpenTelemetry does not take, which is a fault of the catalogue.
    pub(crate) fn new(gateway: &str, fingerprint: &str) -> anyhow::Result<Self> {
        let registry = Registry::new();
        // The catalogue's names are whole: no suffixes, no labels of OpenTelemetry's own.
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_units()
            .without_counter_suffixes()
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .context("the metrics exporter cannot be set up")?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).with_view(view).build();
        let meter = provider.meter("forebay");
        let scraped = Arc::<Scraped>::default();
        let source = Arc::<Watched>::default();
        for instrument in instruments() {
            register(&meter, instrument, &scraped, &source);
        }
        let histogram = |name| {
            let (description, unit) = instruments()
                .find(|known| known.name == name)
                .map_or(("", ""), |known| (known.question, known.unit));
            meter.f64_histogram(name).with_description(description).with_unit(unit).build()
        };
        let observers = Observers {
            commit: histogram(COMMIT_LATENCY),
            ack: histogram(ACK_LATENCY),
            age: histogram(DELIVERY_AGE),
            tracer: OnceLock::new(),
            opening: Default::default(),
        };
        let identity = Identity {
            gateway: gateway.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            fingerprint: fingerprint.to_owned(),
            started: Instant::now(),
            started_at: forebay_wal::wall_clock()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
        };
        let inner = Inner {
            identity,
            registry,
            _provider: provider,
            source,
            sampled: Mutex::default(),
            scraped,
            foreign_hosts: AtomicU64::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
            observers: Arc::new(observers),
        })
    }

    /// What the log reports to.
    #[must_use]
    pub(crate) fn wal_observer(&self) -> Arc<dyn forebay_wal::Observer> {
        self.observers.clone()
    }

    /// What the device side reports to.
    #[must_use]
    pub(crate) fn broker_observer(&self) -> Arc<dyn forebay_broker::Observer> {
        self.observers.clone()
    }

    /// What the bridge reports to.
    #[must_use]
    pub(crate) fn bridge_observer(&self) -> Arc<dyn forebay_bridge::Observer> {
        self.observers.clone()
    }

    /// Traces records from now on; to be called before the first part runs.
    ///
    /// # Errors
    /// If they are traced already.
    pub(crate) fn trace(&self, tracer: Arc<Tracer>) -> anyhow::Result<()> {
        let set = self.observers.tracer.set(tracer);
        set.map_err(|_| anyhow::anyhow!("telemetry traces one gateway; it was given a second tracer"))
    }

    /// Counts an admin request that was refused for its `Host`.
    pub(crate) fn count_foreign_host(&self) {
        self.inner.foreign_hosts.fetch_add(1, Ordering::Relaxed);
    }

    /// Watches the running parts from now on.
    ///
    /// # Errors
    /// If parts are watched already.
    pub(crate) fn observe(&self, sources: Sources, config: &Config) -> anyhow::Result<()> {
        self.watch(Box::new(Running::new(sources, config)))
    }

    /// Watches any source.
    pub(crate) fn watch(&self, source: Box<dyn Source>) -> anyhow::Result<()> {
        self.inner
            .source
            .set(source)
            .map_err(|_| anyhow::anyhow!("telemetry watches one gateway; it was given a second one"))
    }

    /// Who this process is.
    #[must_use]
    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Where the figures come from; none before the parts run.
    #[must_use]
    pub(crate) fn source(&self) -> Option<&dyn Source> {
        self.inner.source.get().map(AsRef::as_ref)
    }

    /// How far the start has come, while there are no figures yet.
    pub(crate) fn starting(&self) -> String {
        let [done, of] = &*self.observers.opening;
        let (done, of) = (value(done), value(of));
        if of == 0 {
            return "the gateway is starting".to_owned();
        }
        let percent = done * 100 / of;
        format!("the gateway is starting: it opens the log, and has looked at {done} of {of} segments ({percent} %)")
    }

    /// All figures now, and a sample for the rates. To be called every second or so.
    pub(crate) fn look(&self, now: Instant) -> Option<Look> {
        let source = self.source()?;
        let (mut figures, stats) = (source.figures(), source.stats());
        if let Some(tracer) = self.observers.tracer.get() {
            figures.traces = Some(tracer.counts());
        }
        figures.foreign_hosts = value(&self.inner.foreign_hosts);
        let totals = Totals {
            accepted: value(&stats.front.accepted),
            delivered: value(&stats.log.delivered),
            bytes: value(&stats.log.bytes_committed),
            waiting: figures.log.streams.iter().map(|stream| stream.waiting_bytes).sum(),
        };
        let mut sampled = lock(&self.inner.sampled);
        let (rates, watchdog, past) = &mut *sampled;
        let flow = rates.flow(now, totals);
        rates.note(now, totals);
        watchdog.note(now, progress(&figures, stats.log));
        let log_stalled = watchdog.stalled(now);
        let commit_slow = watchdog.slow(now, figures.log.commit_wait);
        let within_a_day = past.look(now, source.counted());
        drop(sampled);
        let autonomy = autonomy(figures.log.headroom(), flow.bytes);
        let outlook = outlook::outlook(&figures, &flow);
        Some(Look {
            outlook,
            within_a_day,
            figures,
            flow,
            autonomy,
            log_stalled,
            commit_slow,
        })
    }

    /// The page for Prometheus.
    ///
    /// # Errors
    /// If the text cannot be made, which is a fault of the catalogue.
    pub(crate) fn metrics(&self, now: Instant) -> anyhow::Result<String> {
        let unrouted = self.source().map_or_else(Vec::new, |source| source.unrouted(UNROUTED));
        *lock(&self.inner.scraped) = self.look(now).map(|look| Scrape {
            identity: self.inner.identity.clone(),
            look,
            unrouted,
        });
        let families = self.inner.registry.gather();
        TextEncoder::new()
            .encode_to_string(&families)
            .context("the metrics cannot be written as text")
    }
}

impl Scrape {
    fn moment<'a>(&'a self, source: &'a dyn Source) -> Moment<'a> {
        Moment {
            identity: &self.identity,
            look: &self.look,
            figures: &self.look.figures,
            stats: source.stats(),
            unrouted: &self.unrouted,
        }
    }
}

fn progress(figures: &Figures, stats: &forebay_wal::Stats) -> Progress {
    let waiting: u64 = figures.log.streams.iter().map(|stream| stream.waiting).sum();
    let settled = [
        &stats.delivered,
        &stats.expired,
        &stats.evicted,
        &stats.dead_lettered,
        &stats.damaged,
    ];
    Progress {
        commits: value(&stats.commits) + value(&stats.commits_failed),
        taken_in: waiting + settled.into_iter().map(value).sum::<u64>(),
        is_waiting: figures.front.uncommitted > 0,
    }
}

/// `None` if nothing comes, so that nothing fills.
fn autonomy(headroom: u64, bytes_per_second: f64) -> Option<f64> {
    if headroom == 0 {
        return Some(0.0);
    }
    (bytes_per_second > 0.0).then(|| headroom as f64 / bytes_per_second)
}

fn register(meter: &Meter, instrument: &'static Instrument, scraped: &Arc<Scraped>, source: &Arc<Watched>) {
    let (scraped, source) = (Arc::clone(scraped), Arc::clone(source));
    match instrument.kind {
        Kind::Counter(read) | Kind::ListedCounter(read) => {
            let read = move |observer: &dyn AsyncInstrument<f64>| observe(observer, instrument, read, &scraped, &source);
            meter
                .f64_observable_counter(instrument.name)
                .with_description(instrument.question)
                .with_unit(instrument.unit)
                .with_callback(read)
                .build();
        }
        Kind::Gauge(read) | Kind::ListedGauge(read) => {
            let read = move |observer: &dyn AsyncInstrument<f64>| observe(observer, instrument, read, &scraped, &source);
            meter
                .f64_observable_gauge(instrument.name)
                .with_description(instrument.question)
                .with_unit(instrument.unit)
                .with_callback(read)
                .build();
        }
        Kind::Histogram(_) => {}
    }
}

fn observe(observer: &dyn AsyncInstrument<f64>, instrument: &Instrument, read: Read, scraped: &Scraped, source: &Watched) {
    let scraped = lock(scraped);
    let (Some(scrape), Some(source)) = (scraped.as_ref(), source.get()) else {
        return;
    };
    for series in read(&scrape.moment(source.as_ref())) {
        let values = series.labels.into_iter().map(Value::from);
        let labels: Vec<_> = instrument
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| KeyValue::new(*name, value))
            .collect();
        observer.observe(series.value, &labels);
    }
}

fn view(instrument: &opentelemetry_sdk::metrics::Instrument) -> Option<opentelemetry_sdk::metrics::Stream> {
    let known = instruments().find(|known| known.name == instrument.name())?;
    let stream = opentelemetry_sdk::metrics::Stream::builder().with_cardinality_limit(MAX_SERIES);
    let stream = match known.kind {
        Kind::Histogram(bounds) => stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
            boundaries: bounds.to_vec(),
            record_min_max: false,
        }),
        Kind::Counter(_) | Kind::Gauge(_) | Kind::ListedCounter(_) | Kind::ListedGauge(_) => stream,
    };
    stream.build().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
