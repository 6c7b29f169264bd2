//! `storms`: what a storm of one device does to the acks of others.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use forebay_benches::bench::Bench;
use forebay_benches::certificates;
use forebay_benches::figures::verdict;
use forebay_benches::machine;
use forebay_benches::server::Server;
use forebay_benches::system::{Programs, System, gateway_config, start_gateway};
use forebay_storms::{Canary, Pace, Sink, Storm, Target, quantile};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

/// Acks of ordinary devices under each storm, against a control: the same storm at the same pace against a server that is not
/// Forebay, on the same cores.
#[derive(Parser)]
struct Arguments {
    /// Ordinary devices, each publishing 50 times per second.
    #[arg(long, default_value_t = 5)]
    devices: usize,
    /// Their acks in each cell, storm and control each.
    #[arg(long, default_value_t = 3000)]
    acks: usize,
    /// Turns of storm and control in a cell.
    #[arg(long, default_value_t = 4)]
    turns: usize,
    /// Some of the storms, by what their names contain.
    #[arg(long)]
    only: Option<String>,
    /// Left out: the one beside this program.
    #[arg(long)]
    forebay: Option<PathBuf>,
    #[command(flatten)]
    bench: Bench,
}

/// Publishes per second of a device.
const RATE: f64 = 50.0;
/// How long a pace is tried before it is corrected.
const TRIAL: Duration = Duration::from_millis(1500);
/// What the storm's client and what the gateway does for it may take, in cores.
const CORES: f64 = 1.0;
/// The factor that is the goal.
const GOAL: f64 = 2.0;

/// One storm.
#[derive(Serialize)]
struct Cell {
    storm: &'static str,
    /// Events per second.
    pace: f64,
    /// Cores that the storm's client and the gateway took.
    client: f64,
    gateway: f64,
    acks: usize,
    p50_us: f64,
    p99_us: f64,
    control_p50_us: f64,
    control_p99_us: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let programs = Programs::find(arguments.forebay.clone(), None, &[System::Forebay])?;
    let work = arguments.bench.work("storms")?;
    let certificates = certificates::make(work.path())?;
    let sync = machine::sync_cost(work.path())?;
    let wanted = |storm: &Storm| arguments.only.as_ref().is_none_or(|only| storm.name().contains(only.as_str()));
    let mut cells = Vec::new();
    for storm in Storm::ALL.into_iter().filter(wanted) {
        let directory = tempfile::Builder::new().prefix("run-").tempdir_in(work.path())?;
        let mut config = gateway_config(&certificates, directory.path())?;
        config["cloud"]["canary"] = json!("off");
        config["routes"] = json!([{"from": "devices/+/telemetry", "to": "{gateway}/{topic}"}]);
        let server = start_gateway(&programs.forebay, &config, directory.path())?;
        let cell = measure(storm, &server, &arguments).with_context(|| format!("{}; its log ends:\n{}", storm.name(), server.log_end()))?;
        server.stop()?;
        eprintln!("{}: {:.2}", cell.storm, cell.p99_us / cell.control_p99_us);
        arguments.bench.run_done(&cell)?;
        cells.push(cell);
    }
    let conditions = conditions(&arguments, &programs, sync);
    arguments.bench.table("storms", &format!("{conditions}\n{}", markdown(&cells)))
}

/// Finds the pace, and then measures storm and control in turn.
fn measure(storm: Storm, server: &Server, arguments: &Arguments) -> anyhow::Result<Cell> {
    let sink = Sink::start()?;
    let at_gateway = Target {
        plain: server.plain,
        tls: server.tls,
    };
    let at_sink = Target {
        plain: sink.address(),
        tls: sink.address(),
    };
    let mut pace = f64::INFINITY;
    for _ in 0..3 {
        let trial = Raging::start(storm, at_gateway, pace)?;
        let (began, before) = (Instant::now(), machine::usage(server.pid())?.cpu_s);
        std::thread::park_timeout(TRIAL);
        let seconds = began.elapsed().as_secs_f64();
        let gateway = (machine::usage(server.pid())?.cpu_s - before) / seconds;
        let (events, client) = trial.end()?;
        let cores = gateway + client / seconds;
        pace = (events as f64 / seconds / (cores / CORES).max(0.05)).min(pace);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut canaries = Vec::new();
    for number in 0..arguments.devices {
        canaries.push(runtime.block_on(Canary::connect(server.plain, &format!("canary-{number}")))?);
    }
    let each = arguments.acks.div_ceil(arguments.turns * arguments.devices);
    let mut sing = |into: &mut Vec<Duration>| -> anyhow::Result<()> {
        let singing = canaries.iter_mut().map(|canary| canary.sing(RATE, each));
        for took in runtime.block_on(join_all(singing)) {
            into.extend(took?);
        }
        Ok(())
    };
    sing(&mut Vec::new())?;
    let (mut under_storm, mut control) = (Vec::new(), Vec::new());
    let (mut events, mut client, mut gateway, mut seconds) = (0, 0.0, 0.0, 0.0);
    for _ in 0..arguments.turns {
        let (began, before) = (Instant::now(), machine::usage(server.pid())?.cpu_s);
        let raging = Raging::start(storm, at_gateway, pace)?;
        sing(&mut under_storm)?;
        gateway += machine::usage(server.pid())?.cpu_s - before;
        seconds += began.elapsed().as_secs_f64();
        let done = raging.end()?;
        (events, client) = (events + done.0, client + done.1);
        let raging = Raging::start(storm, at_sink, pace)?;
        sing(&mut control)?;
        raging.end()?;
    }
    let micros = |times: &mut [Duration], share| quantile(times, share).as_nanos() as f64 / 1000.0;
    Ok(Cell {
        storm: storm.name(),
        pace: events as f64 / seconds,
        client: client / seconds,
        gateway: gateway / seconds,
        acks: under_storm.len(),
        p50_us: micros(&mut under_storm, 0.5),
        p99_us: micros(&mut under_storm, 0.99),
        control_p50_us: micros(&mut control, 0.5),
        control_p99_us: micros(&mut control, 0.99),
    })
}

/// Everything at once, on this thread.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(done) => *output = Some(done),
                std::task::Poll::Pending => is_done = false,
            }
        }
        if is_done {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

/// A storm on a thread of its own.
struct Raging {
    pace: Arc<Pace>,
    /// CPU time of its thread in microseconds.
    cpu: Arc<AtomicU64>,
    end: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Raging {
    fn start(storm: Storm, target: Target, per_second: f64) -> anyhow::Result<Self> {
        let pace = Arc::new(if per_second.is_finite() {
            Pace::new(per_second)
        } else {
            Pace::unlimited()
        });
        let cpu = Arc::<AtomicU64>::default();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (paced, spent) = (Arc::clone(&pace), Arc::clone(&cpu));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = storm.rage(target, "stormy", &paced) => {}
                }
            });
            let time = clock_gettime(ClockId::ThreadCPUTime);
            spent.store(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000, Ordering::Release);
        });
        Ok(Self { pace, cpu, end, thread })
    }

    /// Its events, and the CPU seconds of its thread.
    fn end(self) -> anyhow::Result<(u64, f64)> {
        self.end.send(()).ok();
        if self.thread.join().is_err() {
            bail!("the storm's thread panicked");
        }
        Ok((self.pace.done(), self.cpu.load(Ordering::Acquire) as f64 / 1e6))
    }
}

fn markdown(cells: &[Cell]) -> String {
    let mut text = String::from(
        "| storm | per second | client, cores | gateway, cores | p50 | p99 | control's p50 | control's p99 | factor | at most 2 |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n",
    );
    for cell in cells {
        let factor = cell.p99_us / cell.control_p99_us;
        text.push_str(&format!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {factor:.2} | {} |\n",
            cell.storm,
            cell.pace,
            cell.client,
            cell.gateway,
            cell.p50_us / 1000.0,
            cell.p99_us / 1000.0,
            cell.control_p50_us / 1000.0,
            cell.control_p99_us / 1000.0,
            verdict(factor <= GOAL),
        ));
    }
    text
}

fn conditions(arguments: &Arguments, programs: &Programs, sync: (Duration, Duration)) -> String {
    let acks = arguments.acks.div_ceil(arguments.turns * arguments.devices) * arguments.turns * arguments.devices;
    format!(
        "{}; 4 KiB and `fdatasync`: median {:.2} ms, p99 {:.2} ms. {}. {} devices at {RATE:.0}/s each, QoS 1, 256 B, MQTT 5, plain TCP; \
         {acks} acks in each cell, storm and control in {} turns.\n",
        machine::describe(),
        sync.0.as_secs_f64() * 1000.0,
        sync.1.as_secs_f64() * 1000.0,
        programs.versions().0,
        arguments.devices,
        arguments.turns,
    )
}
