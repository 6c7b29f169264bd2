//! A run of the load generator.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::BytesMut;
use forebay_broker::codec::Version;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet};

use crate::client::Client;
use crate::diary::Diary;
use crate::transport::{Dialler, Stream};
use crate::{machine, pace};

pub use crate::transport::TlsFiles;

/// How many handshakes run at a time.
const CONNECTING: usize = 32;

/// What to do to which server.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// Its name as its certificate has it.
    pub name: String,
    /// Mutual TLS, or plain TCP.
    pub tls: Option<TlsFiles>,
    /// The protocol version.
    pub version: Version,
    /// How many connections.
    pub clients: usize,
    /// How many unacked publishes each may have.
    pub in_flight: NonZeroU16,
    /// Bytes of payload.
    pub size: usize,
    /// Not counted.
    pub warmup: Duration,
    /// Counted.
    pub duration: Duration,
    /// Publishes per second in all; `None` is as fast as the window allows.
    pub rate: Option<f64>,
    /// `{client}` is the client id.
    pub topic: String,
}

/// The edges of the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The warm-up is over.
    Start,
    /// The last counted ack was counted.
    End,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Clients that got their CONNACK.
    pub connected: usize,
    /// How long it took to connect them.
    pub connect_s: f64,
    /// Publishes acked within the window.
    pub acked: u64,
    /// Per second.
    pub acked_per_s: f64,
    /// Ack latency: half of all were this quick.
    pub p50_us: f64,
    /// 99 of 100 were.
    pub p99_us: f64,
    /// 999 of 1,000 were.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Paced: how late the generator sent, 99 of 100.
    pub lag_p99_us: f64,
    /// Paced: publishes that were never sent because the server was too far behind.
    pub missed: u64,
    /// CPU seconds of the generator's process within the window.
    pub generator_cpu_s: f64,
    /// What went wrong, and how often; empty in a good run.
    pub errors: BTreeMap<String, u64>,
}

impl Outcome {
    /// Whether it can stand in a table: everyone connected and nothing went wrong.
    pub fn is_clean(&self, load: &Load) -> bool {
        self.errors.is_empty() && self.missed == 0 && self.connected == load.clients
    }
}

/// Runs a load on this thread and calls `at_edge` when the measured window opens and when it closes.
///
/// # Errors
///
/// Nobody could connect, unreadable certificates, a topic that MQTT cannot carry. What happens to single clients is in
/// [`Outcome::errors`].
pub fn run(load: &Load, at_edge: impl FnMut(Edge) -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build()?;
    LocalSet::new().block_on(&runtime, drive(load, at_edge))
}

async fn drive(load: &Load, mut at_edge: impl FnMut(Edge) -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let (connected, refusals) = connect_all(load).await?;
    let connect_s = began.elapsed().as_secs_f64();
    if connected.is_empty() {
        let (first, times) = refusals.into_iter().next().unwrap_or_default();
        anyhow::bail!("none of {} clients could connect; {times} of them: {first}", load.clients);
    }
    let from = Instant::now() + load.warmup;
    let until = from + load.duration;
    let diary = Rc::new(RefCell::new(Diary::new(from, until)));
    diary.borrow_mut().errors = refusals;
    let count = connected.len();
    let mut tasks = JoinSet::new();
    let mut beats = Vec::new();
    for (client_id, stream, buffer) in connected {
        let due = load.rate.map(|_| {
            let (beat, due) = mpsc::channel(pace::BACKLOG);
            beats.push(beat);
            due
        });
        let topic = load.topic.replace("{client}", &client_id);
        let client = Client::new(load.version, &topic, load.size, load.in_flight, due, Rc::clone(&diary))?;
        tasks.spawn_local(client.run(stream, buffer));
    }
    let pacer = load.rate.map(|rate| tokio::task::spawn_local(pace::run(rate, until, beats)));

    tokio::time::sleep_until(from.into()).await;
    let cpu = machine::own_cpu_seconds()?;
    at_edge(Edge::Start)?;
    tokio::time::sleep_until(until.into()).await;
    let generator_cpu_s = machine::own_cpu_seconds()? - cpu;
    at_edge(Edge::End)?;
    while let Some(client) = tasks.join_next().await {
        if let Err(error) = client.context("a client's task")? {
            diary.borrow_mut().error(format!("{error:#}"));
        }
    }
    let missed = match pacer {
        Some(pacer) => pacer.await.context("the pacing task")??,
        None => 0,
    };
    let diary = diary.borrow();
    let micros = |duration: Duration| (duration.as_nanos() as f64 / 100.0).round() / 10.0;
    Ok(Outcome {
        connected: count,
        connect_s,
        acked: diary.acked,
        acked_per_s: diary.acked as f64 / load.duration.as_secs_f64(),
        p50_us: micros(diary.latency.quantile(0.5)),
        p99_us: micros(diary.latency.quantile(0.99)),
        p999_us: micros(diary.latency.quantile(0.999)),
        max_us: micros(diary.latency.max()),
        lag_p99_us: micros(diary.lag.quantile(0.99)),
        missed,
        generator_cpu_s,
        errors: diary.errors.clone(),
    })
}

type Connected = Vec<(String, Stream, BytesMut)>;

async fn connect_all(load: &Load) -> anyhow::Result<(Connected, BTreeMap<String, u64>)> {
    let dialler = Dialler::new(load.address, &load.name, load.tls.as_ref(), load.version)?;
    let slots = Rc::new(Semaphore::new(CONNECTING));
    let mut tasks = JoinSet::new();
    for number in 0..load.clients {
        let (dialler, slots) = (dialler.clone(), Rc::clone(&slots));
        tasks.spawn_local(async move {
            let _slot = slots.acquire().await?;
            let client_id = format!("bench-{number}");
            let (stream, buffer) = dialler.connect(&client_id).await?;
            anyhow::Ok((client_id, stream, buffer))
        });
    }
    let mut connected = Vec::with_capacity(load.clients);
    let mut refusals = BTreeMap::new();
    while let Some(task) = tasks.join_next().await {
        match task.context("a connecting task")? {
            Ok(client) => connected.push(client),
            Err(error) => *refusals.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    Ok((connected, refusals))
}
