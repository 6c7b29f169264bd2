//! `backlog`: a gateway after a long outage, with millions of records waiting.

mod fill;
mod report;
mod sessions;

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use forebay_benches::bench::Bench;
use forebay_benches::certificates;
use forebay_benches::generator::{self, Load, Outcome};
use forebay_benches::machine;
use forebay_benches::server::{Server, free_port};
use forebay_benches::sink::Sink;
use forebay_benches::system::{Programs, System, gateway_config, start_gateway};
use forebay_broker::codec::Version;
use report::Run;
use serde_json::{Value, json};

/// A gateway with ten million records waiting and its sessions at their bounds: memory, how soon it listens after SIGKILL, replay, appends
/// meanwhile, and the space after the drain.
#[derive(Parser)]
#[command(
    after_help = "The log is filled through its own API before the gateway starts; ten million records take some 4 GB of disk, which are \
                  removed at the end. Some five minutes.\n\n\
                  Examples:\n  backlog --write\n  backlog --records 100000 --sessions 50 --seconds 2          a quick look"
)]
struct Arguments {
    /// Records that wait.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    records: u64,
    /// Bytes of MQTT payload.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=100_000))]
    size: u32,
    /// Persistent sessions. A gateway keeps as many as `limits.max_connections` (2,000); the load's 100 clients need some.
    #[arg(long, default_value_t = 1900, value_parser = clap::value_parser!(u16).range(0..=1900))]
    sessions: u16,
    /// Subscriptions of each; all together at most the 20,000 filters that the fan-out takes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    filters: u16,
    /// Retained messages; a gateway keeps as many as `limits.max_topics` (100,000). They go to the cloud, too.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    retained: u32,
    /// Seconds that rates are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The gateway; left out: the one beside this program.
    #[arg(long)]
    forebay: Option<PathBuf>,
    #[command(flatten)]
    bench: Bench,
}

/// How long the drain may stand still.
const STALLED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const TELL: Duration = Duration::from_secs(10);
/// As the log's files are: what the active one and the next take may stay.
const FILE: u64 = 128 << 20;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    machine::allow_open_files(8192)?;
    let programs = Programs::find(arguments.forebay.clone(), None, &[System::Forebay])?;
    let work = arguments.bench.work("backlog")?;
    let certificates = certificates::make(work.path())?;
    let sink = Sink::start()?;
    let mut config = gateway_config(&certificates, work.path())?;
    let plain = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    config["listeners"][0]["bind"] = json!(plain);
    config["gateway"]["max_disk"] = json!("64GiB");
    config["gateway"]["keep_free"] = json!("0B");
    config["streams"] = json!([{"name": "telemetry", "max_bytes": "32GiB", "when_full": "refuse"}]);
    config["cloud"]["in_flight"] = json!(1000);
    let gateway = Gateway {
        arguments: &arguments,
        program: &programs.forebay,
        directory: work.path(),
        plain,
    };

    let filled = fill::fill(&gateway.log(), arguments.records, arguments.size as usize)?;
    eprintln!("{} records filled in {:.1} s", filled.records, filled.took_s);
    let away = gateway.with_cloud_away(&config)?;
    let up = gateway.after_sigkill(&mut config, &sink)?;
    let run = Run { filled, away, up };
    arguments.bench.run_done(&run)?;
    let conditions = format!(
        "{}. {} records of {} B payload from 2,000 devices, {} persistent sessions with {} subscriptions each, {} retained messages of \
         the same size. The cloud acks at once and keeps nothing; it, the load and the gateway share the machine.\n",
        machine::describe(),
        arguments.records,
        arguments.size,
        arguments.sessions,
        arguments.filters,
        arguments.retained,
    );
    arguments.bench.table("backlog", &format!("{conditions}{}", report::table(&run)))
}

struct Gateway<'a> {
    arguments: &'a Arguments,
    program: &'a Path,
    directory: &'a Path,
    plain: SocketAddr,
}

impl Gateway<'_> {
    fn log(&self) -> PathBuf {
        self.directory.join("data/log")
    }

    /// The gateway's first life, ended by SIGKILL under load.
    fn with_cloud_away(&self, config: &Value) -> anyhow::Result<report::Away> {
        let (server, listening_s) = self.start(config)?;
        let waiting = waiting(&server)?;
        if waiting != self.arguments.records {
            bail!("{} records were filled in, the gateway has {waiting}", self.arguments.records);
        }
        let start = machine::usage(server.pid())?;
        sessions::retain(self.plain, self.arguments.retained as usize, self.arguments.size as usize)?;
        eprintln!("opening {} sessions", self.arguments.sessions);
        let connections = sessions::open(self.plain, self.arguments.sessions.into(), self.arguments.filters)?;
        let connected = machine::usage(server.pid())?;
        drop(connections);
        let outcome = self.load(&server)?;
        let absent = machine::usage(server.pid())?;
        server.kill()?;
        Ok(report::Away {
            listening_s,
            rss_at_start: start.rss,
            rss_connected: connected.rss,
            rss_absent: absent.rss,
            peak_rss: absent.peak_rss,
            acks_per_s: outcome.acked_per_s,
            p99_us: outcome.p99_us,
        })
    }

    /// Its second life: it starts after SIGKILL, with a cloud, and drains.
    fn after_sigkill(&self, config: &mut Value, sink: &Sink) -> anyhow::Result<report::Up> {
        config["cloud"]["port"] = json!(sink.address().port());
        let (server, listening_s) = self.start(config)?;
        let status = server.status()?;
        let opened_s = status["start"]["took_seconds"]
            .as_f64()
            .context("no start.took_seconds in /status")?;
        let at_start = waiting(&server)?;
        let rss_at_start = machine::usage(server.pid())?.rss;
        until("the cloud gets something", STALLED, || Ok(sink.received() > 0))?;
        let began = Instant::now();
        let alone = self.replay(sink)?;
        let before = sink.received();
        let loaded = Instant::now();
        let outcome = self.load(&server)?;
        let beside = (sink.received() - before) as f64 / loaded.elapsed().as_secs_f64();
        self.drain(&server)?;
        let drain_s = began.elapsed().as_secs_f64();
        let received = sink.received();
        // The ledger is that of the last commit, which comes a moment later.
        let mut ledger = Value::Null;
        until("the ledger says that nothing waits", STALLED, || {
            ledger = server.status()?["ledger"].take();
            Ok(ledger["waiting"] == json!(0))
        })?;
        let accepted = ledger["accepted"].as_u64().context("no ledger.accepted in /status")?;
        if received < accepted {
            bail!("{accepted} records were accepted, the cloud got {received}: {ledger}");
        }
        let space = Instant::now();
        let mut occupied = machine::occupied(&self.log())?;
        until("the log's files are removed", STALLED, || {
            occupied = machine::occupied(&self.log())?;
            // The active file, one made ahead over a spent one, another spent one, the ballast.
            Ok(occupied <= 4 * FILE)
        })?;
        let space_s = space.elapsed().as_secs_f64();
        let usage = machine::usage(server.pid())?;
        server.stop()?;
        Ok(report::Up {
            listening_s,
            opened_s,
            at_start,
            rss_at_start,
            replay_per_s: alone,
            replay_beside_per_s: beside,
            acks_per_s: outcome.acked_per_s,
            p99_us: outcome.p99_us,
            received,
            drain_s,
            space_s,
            occupied,
            rss_after: usage.rss,
            peak_rss: usage.peak_rss,
            accepted,
            ledger,
        })
    }

    /// Starts it, and says how long it took until the plain port took a connection.
    fn start(&self, config: &Value) -> anyhow::Result<(Server, f64)> {
        let plain = self.plain;
        let began = Instant::now();
        let watch = std::thread::spawn(move || {
            while TcpStream::connect(plain).is_err() {
                if began.elapsed() > STALLED {
                    return None;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Some(began.elapsed().as_secs_f64())
        });
        let server = start_gateway(self.program, config, self.directory)?;
        let listening = watch.join().ok().flatten().context("the gateway is ready but does not listen")?;
        Ok((server, listening))
    }

    /// 100 clients with 20 in flight each.
    fn load(&self, server: &Server) -> anyhow::Result<Outcome> {
        let load = Load {
            address: server.plain,
            name: "localhost".into(),
            tls: None,
            version: Version::V311,
            clients: 100,
            in_flight: NonZeroU16::MIN.saturating_add(19),
            size: self.arguments.size as usize,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(self.arguments.seconds),
            rate: None,
            topic: "devices/{client}/telemetry".into(),
        };
        let outcome = generator::run(&load, |_| Ok(()))?;
        if !outcome.is_clean(&load) {
            bail!("the load went wrong: {outcome:?}; the gateway's log ends:\n{}", server.log_end());
        }
        Ok(outcome)
    }

    /// Records per second that the cloud gets.
    fn replay(&self, sink: &Sink) -> anyhow::Result<f64> {
        let (began, before) = (Instant::now(), sink.received());
        while began.elapsed() < Duration::from_secs(self.arguments.seconds) {
            std::thread::park_timeout(LOOK);
        }
        Ok((sink.received() - before) as f64 / began.elapsed().as_secs_f64())
    }

    /// Waits until nothing waits.
    fn drain(&self, server: &Server) -> anyhow::Result<()> {
        let (mut least, mut since, mut told) = (u64::MAX, Instant::now(), Instant::now());
        while least > 0 {
            let now = waiting(server)?;
            if now < least {
                (least, since) = (now, Instant::now());
            }
            if since.elapsed() > STALLED {
                bail!(
                    "{now} records still wait and none left for a minute; the gateway's log ends:\n{}",
                    server.log_end()
                );
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                eprintln!("{now} records still wait");
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

fn waiting(server: &Server) -> anyhow::Result<u64> {
    let status = server.status()?;
    let streams = status["streams"].as_array().context("no streams in /status")?;
    Ok(streams.iter().filter_map(|stream| stream["waiting"].as_u64()).sum())
}

/// Looks until a condition holds.
fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !condition()? {
        if began.elapsed() > patience {
            bail!("not within {} s: {what}", patience.as_secs());
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}
