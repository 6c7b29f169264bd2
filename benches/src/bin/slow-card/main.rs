//! `slow-card`: what a device sees where every sync takes as long as on a flash card.

mod preload;
mod report;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use forebay_benches::bench::Bench;
use forebay_benches::certificates::{self, Certificates};
use forebay_benches::engine::{Acks, ForebayLog, Group, RawFile, Service, Sqlite};
use forebay_benches::generator::{self, Load};
use forebay_benches::machine;
use forebay_benches::producers::{Played, closed, paced};
use forebay_benches::system::{Programs, System};
use forebay_broker::codec::Version;
use report::Run;
use serde::Serialize;

/// Acks per second and ack latency where every sync takes 10 ms: Forebay's log, a raw file and SQLite, each behind a writer thread, and the
/// whole gateway over MQTT.
#[derive(Parser)]
#[command(
    name = "slow-card",
    after_help = "A preloaded library delays `fsync` and `fdatasync` of this program and of the gateway it starts; it is built when cargo runs \
                  this command, or by `cargo build --release -p forebay-slow-sync`.\n\nExamples:\n  slow-card --write\n  \
                  slow-card --rounds 1 --duration 1 --engines forebay,gateway          a quick look\n  \
                  slow-card --directory /dev/shm          without the stalls of the machine's own disk"
)]
struct Arguments {
    /// Milliseconds that a sync takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    sync: u64,
    /// Times everything is run; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Records in flight, one per producer; with the gateway 20 per client.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(20..=4000))]
    in_flight: u32,
    /// Records per second where they are paced.
    #[arg(long, default_value_t = 5000.0)]
    rate: f64,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Forebay, Engine::Gateway, Engine::Raw, Engine::Sqlite])]
    engines: Vec<Engine>,
    /// The gateway; left out: the one beside this program.
    #[arg(long)]
    forebay: Option<PathBuf>,
    #[command(flatten)]
    bench: Bench,
}

/// Who acks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Engine {
    /// Forebay's log through its API.
    Forebay,
    /// The whole gateway over MQTT, its cloud away.
    Gateway,
    /// A raw file behind a writer thread.
    Raw,
    /// SQLite behind a writer thread.
    Sqlite,
}

/// How records come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    /// So many in flight, the next when one is acked.
    Closed,
    /// At a rate.
    Paced,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(
        (1.0..=100_000.0).contains(&arguments.rate),
        "--rate {} is outside 1 to 100000 per second",
        arguments.rate
    );
    preload::slow_syncs(arguments.sync)?;
    let programs = if arguments.engines.contains(&Engine::Gateway) {
        Some(Programs::find(arguments.forebay.clone(), None, &[System::Forebay])?)
    } else {
        None
    };
    let work = arguments.bench.work_anywhere("slow-card")?;
    let place = if machine::is_in_memory(work.path())? {
        "in memory"
    } else {
        "on the disk"
    };
    let certificates = certificates::make(work.path())?;
    let sync = preload::sync_cost(work.path(), arguments.sync)?;
    let card = Card {
        arguments: &arguments,
        programs: programs.as_ref(),
        certificates: &certificates,
        work: work.path(),
        sync: sync.0,
    };
    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        for shape in [Shape::Closed, Shape::Paced] {
            for turn in 0..arguments.engines.len() {
                // Nobody always comes first.
                let engine = arguments.engines[(turn + round as usize) % arguments.engines.len()];
                let run = card.measure(engine, shape, round)?;
                eprintln!("round {}: {}", round + 1, run.summary());
                arguments.bench.run_done(&run)?;
                runs.push(run);
            }
        }
    }
    let conditions = format!(
        "{}; 4 KiB and `fdatasync` with the delay: median {:.2} ms, p99 {:.2} ms. SQLite {}.\n\
         {} in flight, or {} per second; {} s, medians of {} rounds, in turn; data {place}.\n",
        machine::describe(),
        sync.0.as_secs_f64() * 1000.0,
        sync.1.as_secs_f64() * 1000.0,
        Sqlite::version(),
        arguments.in_flight,
        arguments.rate,
        arguments.duration,
        arguments.rounds,
    );
    arguments.bench.table("slow-card", &format!("{conditions}{}", report::table(&runs)))
}

struct Card<'a> {
    arguments: &'a Arguments,
    programs: Option<&'a Programs>,
    certificates: &'a Certificates,
    work: &'a Path,
    /// What a sync was measured to take.
    sync: Duration,
}

impl Card<'_> {
    fn measure(&self, engine: Engine, shape: Shape, round: u32) -> anyhow::Result<Run> {
        // The run before left files to be removed, and the file system may tell the disk so with somebody's next sync.
        rustix::fs::sync();
        let directory = tempfile::Builder::new().prefix("run-").tempdir_in(self.work)?;
        let path = directory.path();
        let acks = Arc::new(Acks::default());
        let played = match engine {
            Engine::Gateway => return self.gateway(path, shape, round),
            Engine::Forebay => {
                let producers = self.arguments.in_flight as usize;
                self.play(
                    &mut ForebayLog::for_producers(&path.join("log"), producers, Arc::clone(&acks))?,
                    &acks,
                    shape,
                )?
            }
            Engine::Raw => self.play(&mut Group::new(RawFile::create(path)?, Arc::clone(&acks)), &acks, shape)?,
            Engine::Sqlite => self.play(&mut Group::new(Sqlite::with_backlog(path)?, Arc::clone(&acks)), &acks, shape)?,
        };
        let seconds = |quantile| played.latency.quantile(quantile).as_secs_f64();
        Ok(Run {
            round,
            engine,
            shape,
            acks_per_s: played.acked as f64 / played.took.as_secs_f64(),
            p50_syncs: seconds(0.5) / self.sync.as_secs_f64(),
            p99_syncs: seconds(0.99) / self.sync.as_secs_f64(),
            p999_syncs: seconds(0.999) / self.sync.as_secs_f64(),
        })
    }

    fn play(&self, service: &mut impl Service, acks: &Acks, shape: Shape) -> anyhow::Result<Played> {
        let (producers, rate) = (self.arguments.in_flight, self.arguments.rate);
        let mut go = |duration: Duration, played: &mut Played| match shape {
            Shape::Closed => closed(service, acks, producers, duration, played),
            Shape::Paced => paced(service, acks, producers, rate, duration, played),
        };
        go(Duration::from_secs(1), &mut Played::default())?;
        let mut played = Played::default();
        go(Duration::from_secs(self.arguments.duration), &mut played)?;
        Ok(played)
    }

    fn gateway(&self, directory: &Path, shape: Shape, round: u32) -> anyhow::Result<Run> {
        let Some(programs) = self.programs else {
            bail!("no gateway was looked for")
        };
        const PER_CLIENT: NonZeroU16 = NonZeroU16::MIN.saturating_add(19);
        let server = System::Forebay.start(programs, self.certificates, directory)?;
        let load = Load {
            address: server.plain,
            name: "localhost".into(),
            tls: None,
            version: Version::V311,
            clients: (self.arguments.in_flight / u32::from(PER_CLIENT.get())) as usize,
            in_flight: PER_CLIENT,
            size: 256,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(self.arguments.duration),
            rate: (shape == Shape::Paced).then_some(self.arguments.rate),
            topic: "devices/{client}/telemetry".into(),
        };
        let outcome = generator::run(&load, |_| Ok(()))?;
        if !outcome.is_clean(&load) {
            bail!("the gateway's load went wrong: {outcome:?}; its log ends:\n{}", server.log_end());
        }
        server.stop()?;
        let syncs = |us: f64| us / 1e6 / self.sync.as_secs_f64();
        Ok(Run {
            round,
            engine: Engine::Gateway,
            shape,
            acks_per_s: outcome.acked_per_s,
            p50_syncs: syncs(outcome.p50_us),
            p99_syncs: syncs(outcome.p99_us),
            p999_syncs: syncs(outcome.p999_us),
        })
    }
}
