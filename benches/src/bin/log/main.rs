//! `log`: Forebay's log, a raw file, redb by itself and SQLite in turn, as fast as each of them goes.

mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use forebay_benches::bench::Bench;
use forebay_benches::engine::{Acks, Commits, ForebayLog, Group, RawFile, Redb, Service, Sqlite};
use forebay_benches::machine::{self, Written};
use forebay_benches::producers::{Played, closed};
use forebay_benches::{Calm, Histogram};
use report::{CommitRun, ProducerRun};
use serde::Serialize;

/// Forebay's log, a raw preallocated file with `fdatasync` and SQLite in turn, in short slices that begin when the machine is calm:
/// commits of so many records, then so many producers that each wait for an ack.
#[derive(Parser)]
#[command(
    after_help = "A record is 256 B with its header; 20,000 wait in each log, the oldest go as new ones come. Forebay's are read and settled, \
                  so its ledger and progress are in every commit.\n\nExamples:\n  log --write\n  log --rounds 1 --seconds 0.2                       a quick look\n  \
                  strace -f -c target/release/log --rounds 1 --seconds 1 --engines forebay --commits 64 --producers none"
)]
struct Arguments {
    /// Times everything is run; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that each engine is measured at each point of a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Milliseconds of a slice; with producers four times as many.
    #[arg(long, default_value_t = 55)]
    slice: u64,
    /// Records per commit, or `none`.
    #[arg(long, default_value = "1,8,64,512,4096", value_parser = numbers)]
    commits: Numbers,
    /// Producers, or `none`.
    #[arg(long, default_value = "1,16,256,2000", value_parser = numbers)]
    producers: Numbers,
    /// Devices that the records of large commits come from.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4000))]
    devices: u16,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Forebay, Engine::Raw, Engine::RawThread, Engine::Redb, Engine::Sqlite])]
    engines: Vec<Engine>,
    #[command(flatten)]
    bench: Bench,
}

/// The engines, in the order of the tables' columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Engine {
    /// Forebay's log.
    Forebay,
    /// A write and a sync by the caller: what the disk can do.
    Raw,
    /// The same by a writer thread, as every log with many producers needs one.
    RawThread,
    /// redb by itself, one table of segments; with producers behind the same writer thread as SQLite.
    Redb,
    /// SQLite; with producers behind a writer thread that commits whatever has come.
    Sqlite,
}

#[derive(Clone)]
struct Numbers(Vec<u32>);

fn numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(Vec::new()));
    }
    let number = |word: &str| match word.trim().parse() {
        Ok(number @ 1..=4096) => Ok(number),
        _ => Err(format!("`{word}` is not a number from 1 to 4096")),
    };
    text.split(',').map(number).collect::<Result<_, _>>().map(Numbers)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(
        (0.01..=3600.0).contains(&arguments.seconds),
        "--seconds {} is outside 0.01 to 3600",
        arguments.seconds
    );
    let work = arguments.bench.work("log")?;
    let sync = machine::sync_cost(work.path())?;
    let mut calm = Calm::learn(work.path())?;
    let (mut commits, mut producers) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        commits.extend(commit_round(&arguments, round, work.path(), &mut calm)?);
        for &count in &arguments.producers.0 {
            producers.extend(producer_round(&arguments, round, count, work.path(), &mut calm)?);
        }
    }
    let conditions = format!(
        "{}; 4 KiB and `fdatasync`: median {:.2} ms, p99 {:.2} ms. SQLite {}.\n\
         {} s per engine and point in slices of {} ms, {} rounds; {} slices began although no calm moment (a probe within {:.2} ms) came.\n",
        machine::describe(),
        sync.0.as_secs_f64() * 1000.0,
        sync.1.as_secs_f64() * 1000.0,
        Sqlite::version(),
        arguments.seconds,
        arguments.slice,
        arguments.rounds,
        calm.noisy(),
        calm.limit().as_secs_f64() * 1000.0,
    );
    let table = format!("{conditions}{}{}", report::commits(&commits), report::producers(&producers));
    arguments.bench.table("log", &table)
}

/// What an engine did over its slices at one point.
#[derive(Default)]
struct Sum {
    latency: Histogram,
    busy: Duration,
    calls: u64,
    bytes: u64,
}

impl Sum {
    fn wrote(&mut self, before: Written, after: Written) {
        self.calls += after.calls - before.calls;
        self.bytes += after.bytes - before.bytes;
    }
}

/// Opens every engine and has them make commits of each size in turn.
fn commit_round(arguments: &Arguments, round: u32, work: &Path, calm: &mut Calm) -> anyhow::Result<Vec<CommitRun>> {
    if arguments.commits.0.is_empty() {
        return Ok(Vec::new());
    }
    let mut engines = Vec::new();
    for &engine in &arguments.engines {
        let directory = tempfile::Builder::new().prefix("commits-").tempdir_in(work)?;
        let path = directory.path();
        let log: Box<dyn Commits> = match engine {
            Engine::Forebay => Box::new(ForebayLog::for_commits(&path.join("log"), arguments.devices.into())?),
            Engine::Raw => Box::new(RawFile::create(path)?),
            Engine::RawThread => Box::new(Group::new(RawFile::create(path)?, Arc::default())),
            Engine::Redb => Box::new(Redb::with_backlog(path)?),
            Engine::Sqlite => Box::new(Sqlite::with_backlog(path)?),
        };
        engines.push((engine, log, directory));
    }
    let mut runs = Vec::new();
    for &records in &arguments.commits.0 {
        let mut sums: Vec<Sum> = engines.iter().map(|_| Sum::default()).collect();
        let enough = Duration::from_secs_f64(arguments.seconds);
        let mut turn = round as usize;
        while sums.iter().any(|sum| sum.busy < enough) {
            let nth = turn % engines.len();
            turn += 1;
            if sums[nth].busy < enough {
                calm.wait()?;
                commit_slice(engines[nth].1.as_mut(), records as usize, arguments.slice, &mut sums[nth])?;
            }
        }
        for ((engine, ..), sum) in engines.iter().zip(sums) {
            let run = CommitRun::new(round, *engine, records, &sum);
            eprintln!("round {}: {}", round + 1, run.summary());
            arguments.bench.run_done(&run)?;
            runs.push(run);
        }
    }
    Ok(runs)
}

fn commit_slice(log: &mut dyn Commits, records: usize, slice: u64, sum: &mut Sum) -> anyhow::Result<()> {
    // The first commit finds its pages and code cold; it is another engine's doing.
    log.commit(records)?;
    let before = machine::own_written()?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(slice) {
        sum.latency.record(log.commit(records)?);
    }
    sum.busy += began.elapsed();
    sum.wrote(before, machine::own_written()?);
    Ok(())
}

/// Opens every engine for `count` producers and lets them run in turn.
fn producer_round(arguments: &Arguments, round: u32, count: u32, work: &Path, calm: &mut Calm) -> anyhow::Result<Vec<ProducerRun>> {
    let mut engines = Vec::new();
    // With producers there is a writer thread always.
    for &engine in arguments.engines.iter().filter(|engine| **engine != Engine::RawThread) {
        let directory = tempfile::Builder::new().prefix("producers-").tempdir_in(work)?;
        let path = directory.path();
        let acks = Arc::new(Acks::default());
        let service = match engine {
            Engine::Forebay => Behind::Forebay(Box::new(ForebayLog::for_producers(
                &path.join("log"),
                count as usize,
                Arc::clone(&acks),
            )?)),
            Engine::Raw | Engine::RawThread => Behind::Group(Group::new(RawFile::create(path)?, Arc::clone(&acks))),
            Engine::Redb => Behind::Group(Group::new(Redb::with_backlog(path)?, Arc::clone(&acks))),
            Engine::Sqlite => Behind::Group(Group::new(Sqlite::with_backlog(path)?, Arc::clone(&acks))),
        };
        engines.push((engine, service, acks, Played::default(), directory));
    }
    let enough = Duration::from_secs_f64(arguments.seconds);
    let slice = Duration::from_millis(arguments.slice * 4);
    let mut turn = round as usize;
    while engines.iter().any(|(_, _, _, played, _)| played.took < enough) {
        let nth = turn % engines.len();
        turn += 1;
        let (_, service, acks, played, _) = &mut engines[nth];
        if played.took < enough {
            calm.wait()?;
            closed(service, acks, count, slice, played)?;
            service.rest()?;
        }
    }
    let mut runs = Vec::new();
    for (engine, _, _, played, _) in &engines {
        let run = ProducerRun::new(round, *engine, count, played);
        eprintln!("round {}: {}", round + 1, run.summary());
        arguments.bench.run_done(&run)?;
        runs.push(run);
    }
    Ok(runs)
}

/// An engine with many producers.
enum Behind {
    Forebay(Box<ForebayLog>),
    Group(Group),
}

impl Service for Behind {
    fn append(&mut self, producer: u32) -> anyhow::Result<()> {
        match self {
            Behind::Forebay(log) => log.append(producer),
            Behind::Group(group) => group.append(producer),
        }
    }

    fn rest(&mut self) -> anyhow::Result<()> {
        match self {
            Behind::Forebay(log) => log.rest(),
            Behind::Group(group) => group.rest(),
        }
    }
}
