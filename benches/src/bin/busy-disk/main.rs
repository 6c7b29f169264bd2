//! `busy-disk`: what a device sees while another program writes to the same file system.

mod neighbour;
mod report;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use forebay_benches::Histogram;
use forebay_benches::bench::Bench;
use forebay_benches::certificates::{self, Certificates};
use forebay_benches::engine::{Acks, ForebayLog, Group, RawFile, Service};
use forebay_benches::generator::{self, Load};
use forebay_benches::machine;
use forebay_benches::producers::{Played, paced};
use forebay_benches::system::{Programs, System};
use forebay_broker::codec::Version;
use neighbour::Neighbour;
use report::Run;
use serde::Serialize;

/// Records in flight at most; with the gateway its clients have one each.
const IN_FLIGHT: u32 = 1000;

/// Ack latency at a steady pace while another program writes files of 1 GB to the same disk, and syncs them: Forebay's log and the whole
/// gateway, beside a raw writer into a file whose blocks are already written.
#[derive(Parser)]
#[command(
    name = "busy-disk",
    after_help = "Examples:\n  busy-disk --write\n  busy-disk --rounds 1 --duration 5          a quick look"
)]
struct Arguments {
    /// Times everything is run; the table has the medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Records per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Forebay, Engine::Gateway, Engine::Raw])]
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
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let programs = if arguments.engines.contains(&Engine::Gateway) {
        Some(Programs::find(arguments.forebay.clone(), None, &[System::Forebay])?)
    } else {
        None
    };
    let work = arguments.bench.work("busy-disk")?;
    let certificates = certificates::make(work.path())?;
    let disk = Disk {
        arguments: &arguments,
        programs: programs.as_ref(),
        certificates: &certificates,
        work: work.path(),
    };
    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        for is_busy in [false, true] {
            for turn in 0..arguments.engines.len() {
                // Nobody always comes first.
                let engine = arguments.engines[(turn + round as usize) % arguments.engines.len()];
                let run = disk.measure(engine, is_busy, round)?;
                eprintln!("round {}: {}", round + 1, run.summary());
                arguments.bench.run_done(&run)?;
                runs.push(run);
            }
        }
    }
    let conditions = format!(
        "{}. {} records of 256 B per second, {} s, medians of {} rounds, in turn.\n",
        machine::describe(),
        arguments.rate,
        arguments.duration,
        arguments.rounds,
    );
    arguments.bench.table("busy-disk", &format!("{conditions}{}", report::table(&runs)))
}

struct Disk<'a> {
    arguments: &'a Arguments,
    programs: Option<&'a Programs>,
    certificates: &'a Certificates,
    work: &'a Path,
}

/// Latencies in milliseconds.
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(latency: &Histogram) -> Latency {
        let ms = |quantile| latency.quantile(quantile).as_secs_f64() * 1000.0;
        Latency {
            p50: ms(0.5),
            p99: ms(0.99),
            max: ms(1.0),
        }
    }
}

impl Disk<'_> {
    fn measure(&self, engine: Engine, is_busy: bool, round: u32) -> anyhow::Result<Run> {
        // What the run before left to be written is not this one's.
        rustix::fs::sync();
        let directory = tempfile::Builder::new().prefix("run-").tempdir_in(self.work)?;
        let path = directory.path();
        let acks = Arc::new(Acks::default());
        let (latency, written) = match engine {
            Engine::Gateway => self.gateway(path, is_busy)?,
            Engine::Forebay => {
                let mut log = ForebayLog::for_producers(&path.join("log"), IN_FLIGHT as usize, Arc::clone(&acks))?;
                self.play(&mut log, &acks, is_busy)?
            }
            Engine::Raw => self.play(&mut Group::new(RawFile::create(path)?, Arc::clone(&acks)), &acks, is_busy)?,
        };
        Ok(Run {
            round,
            engine,
            is_busy,
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            max_ms: latency.max,
            files: written,
        })
    }

    fn beside<T>(&self, is_busy: bool, measure: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, u32)> {
        let neighbour = is_busy.then(|| Neighbour::start(self.work));
        let measured = measure();
        let files = neighbour.map(Neighbour::stop).transpose()?.unwrap_or(0);
        Ok((measured?, files))
    }

    fn play(&self, service: &mut impl Service, acks: &Acks, is_busy: bool) -> anyhow::Result<(Latency, u32)> {
        let rate = f64::from(self.arguments.rate);
        let mut go = |duration, played: &mut Played| paced(service, acks, IN_FLIGHT, rate, duration, played);
        go(Duration::from_secs(1), &mut Played::default())?;
        let mut played = Played::default();
        let ((), files) = self.beside(is_busy, || go(Duration::from_secs(self.arguments.duration), &mut played))?;
        Ok((Latency::of(&played.latency), files))
    }

    fn gateway(&self, directory: &Path, is_busy: bool) -> anyhow::Result<(Latency, u32)> {
        let Some(programs) = self.programs else {
            bail!("no gateway was looked for")
        };
        let server = System::Forebay.start(programs, self.certificates, directory)?;
        let load = Load {
            address: server.plain,
            name: "localhost".into(),
            tls: None,
            version: Version::V311,
            clients: 50,
            in_flight: NonZeroU16::MIN.saturating_add(19),
            size: 256,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(self.arguments.duration),
            rate: Some(f64::from(self.arguments.rate)),
            topic: "devices/{client}/telemetry".into(),
        };
        let (outcome, files) = self.beside(is_busy, || generator::run(&load, |_| Ok(())))?;
        if !outcome.is_clean(&load) {
            bail!("the gateway's load went wrong: {outcome:?}; its log ends:\n{}", server.log_end());
        }
        server.stop()?;
        let latency = Latency {
            p50: outcome.p50_us / 1000.0,
            p99: outcome.p99_us / 1000.0,
            max: outcome.max_us / 1000.0,
        };
        Ok((latency, files))
    }
}
