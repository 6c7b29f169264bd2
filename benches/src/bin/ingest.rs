//! `ingest`: Forebay and Mosquitto in turn under the same load.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use forebay_benches::bench::Bench;
use forebay_benches::certificates::{self, Certificates};
use forebay_benches::generator::{self, Edge, Load, Outcome};
use forebay_benches::machine::{self, Usage};
use forebay_benches::report::{Measurement, markdown};
use forebay_benches::server::Server;
use forebay_benches::system::{Programs, System};
use forebay_broker::codec::Version;

/// Forebay and Mosquitto in turn under the same QoS 1 load: rates, ack latency, CPU, memory, bytes written.
#[derive(Parser)]
struct Arguments {
    /// Times everything is run; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 5)]
    duration: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1)]
    warmup: u64,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Name::Forebay, Name::MosquittoQueue, Name::MosquittoBare])]
    systems: Vec<Name>,
    /// Over what.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Link::Plain, Link::Mtls])]
    links: Vec<Link>,
    /// How.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Window, Shape::Many, Shape::Paced])]
    loads: Vec<Shape>,
    /// Left out: the one beside this program.
    #[arg(long)]
    forebay: Option<PathBuf>,
    /// Left out: the one in PATH or /usr/sbin.
    #[arg(long)]
    mosquitto: Option<PathBuf>,
    #[command(flatten)]
    bench: Bench,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Forebay,
    ForebayEverything,
    MosquittoQueue,
    MosquittoAutosave,
    MosquittoBare,
}

#[derive(Clone, Copy, ValueEnum)]
enum Link {
    Plain,
    Mtls,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    /// 100 clients with 20 in flight each.
    Window,
    /// 1,000 clients with one in flight each.
    Many,
    /// 5,000 per second over 100 clients.
    Paced,
}

const PAYLOAD: usize = 256;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let systems: Vec<_> = arguments.systems.iter().map(|name| name.system()).collect();
    let programs = Programs::find(arguments.forebay.clone(), arguments.mosquitto.clone(), &systems)?;
    let work = arguments.bench.work("ingest")?;
    let certificates = certificates::make(work.path())?;
    let sync = machine::sync_cost(work.path())?;

    let mut measurements = Vec::new();
    for round in 0..arguments.rounds {
        for &link in &arguments.links {
            for &shape in &arguments.loads {
                for turn in 0..systems.len() {
                    // Nobody always comes first.
                    let system = systems[(turn + round as usize) % systems.len()];
                    let contest = Contest {
                        arguments: &arguments,
                        programs: &programs,
                        certificates: &certificates,
                        work: work.path(),
                    };
                    let measurement = contest.measure(system, link, shape)?;
                    eprintln!("round {}: {}", round + 1, summary(&measurement));
                    arguments.bench.run_done(&measurement)?;
                    measurements.push(measurement);
                }
            }
        }
    }
    let table = format!(
        "{}\n{}",
        conditions(&arguments, &programs, sync),
        markdown(&measurements, arguments.duration as f64)
    );
    arguments.bench.table("ingest", &table)
}

struct Contest<'a> {
    arguments: &'a Arguments,
    programs: &'a Programs,
    certificates: &'a Certificates,
    work: &'a Path,
}

impl Contest<'_> {
    /// Starts the server afresh, runs one load against it, stops it and removes its data.
    fn measure(&self, system: System, link: Link, shape: Shape) -> anyhow::Result<Measurement> {
        let directory = tempfile::Builder::new().prefix("run-").tempdir_in(self.work)?;
        let server = system.start(self.programs, self.certificates, directory.path())?;
        let load = self.load(&server, link, shape);
        let (outcome, before, after) = observe(&load, server.pid()).with_context(|| {
            format!(
                "{}, {}, {}; its log ends:\n{}",
                system.name(),
                link.name(),
                shape.name(),
                server.log_end()
            )
        })?;
        if !outcome.is_clean(&load) {
            bail!(
                "{}, {}, {} went wrong: {outcome:?}; its log ends:\n{}",
                system.name(),
                link.name(),
                shape.name(),
                server.log_end()
            );
        }
        server.stop().with_context(|| format!("stopping {}", system.name()))?;
        let acked = outcome.acked.max(1) as f64;
        Ok(Measurement {
            link: link.name(),
            load: shape.name(),
            system,
            cpu_s_per_100k: (after.cpu_s - before.cpu_s) / acked * 100_000.0,
            rss_mib: after.peak_rss as f64 / (1024.0 * 1024.0),
            written_per_ack: after.written.saturating_sub(before.written) as f64 / acked,
            outcome,
        })
    }

    fn load(&self, server: &Server, link: Link, shape: Shape) -> Load {
        let (clients, in_flight, rate) = match shape {
            Shape::Window => (100, 20, None),
            Shape::Many => (1000, 1, None),
            Shape::Paced => (100, 20, Some(5000.0)),
        };
        Load {
            address: match link {
                Link::Plain => server.plain,
                Link::Mtls => server.tls,
            },
            name: "localhost".into(),
            tls: match link {
                Link::Plain => None,
                Link::Mtls => Some(self.certificates.client.clone()),
            },
            version: Version::V311,
            clients,
            in_flight: NonZeroU16::new(in_flight).unwrap_or(NonZeroU16::MIN),
            size: PAYLOAD,
            warmup: Duration::from_secs(self.arguments.warmup),
            duration: Duration::from_secs(self.arguments.duration),
            rate,
            topic: "devices/{client}/telemetry".into(),
        }
    }
}

/// Runs the load and looks at the server when the measured window opens and closes.
fn observe(load: &Load, pid: u32) -> anyhow::Result<(Outcome, Usage, Usage)> {
    let (mut before, mut after) = (None, None);
    let outcome = generator::run(load, |edge| {
        let slot = match edge {
            Edge::Start => &mut before,
            Edge::End => &mut after,
        };
        *slot = Some(machine::usage(pid)?);
        Ok(())
    })?;
    Ok((
        outcome,
        before.context("the window never opened")?,
        after.context("the window never closed")?,
    ))
}

fn summary(measurement: &Measurement) -> String {
    let outcome = &measurement.outcome;
    format!(
        "{}, {}, {}: {:.0} acks/s, p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, {:.2} CPU s per 100k",
        measurement.link,
        measurement.load,
        measurement.system.name(),
        outcome.acked_per_s,
        outcome.p50_us,
        outcome.p99_us,
        outcome.p999_us,
        measurement.cpu_s_per_100k
    )
}

fn conditions(arguments: &Arguments, programs: &Programs, sync: (Duration, Duration)) -> String {
    let (forebay, mosquitto) = programs.versions();
    format!(
        "{}; 4 KiB and `fdatasync`: median {:.2} ms, p99 {:.2} ms. {forebay}; {mosquitto}. Server and generator share the machine.\n\
         QoS 1, {PAYLOAD} B, MQTT 3.1.1, {} s after {} s of warm-up, median of {} rounds, servers in turn.\n",
        machine::describe(),
        sync.0.as_secs_f64() * 1000.0,
        sync.1.as_secs_f64() * 1000.0,
        arguments.duration,
        arguments.warmup,
        arguments.rounds,
    )
}

impl Name {
    fn system(self) -> System {
        match self {
            Name::Forebay => System::Forebay,
            Name::ForebayEverything => System::ForebayEverything,
            Name::MosquittoQueue => System::MosquittoQueue,
            Name::MosquittoAutosave => System::MosquittoAutosave,
            Name::MosquittoBare => System::MosquittoBare,
        }
    }
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Link::Plain => "TCP",
            Link::Mtls => "mTLS",
        }
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Window => "100 x 20",
            Shape::Many => "1,000 x 1",
            Shape::Paced => "5,000/s",
        }
    }
}
