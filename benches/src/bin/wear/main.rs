//! `wear`: what a flash card has to take.

mod cell;
mod gateway;
mod meter;
mod mosquitto;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use cell::Cell;
use clap::Parser;
use forebay_benches::bench::Bench;
use forebay_benches::certificates::{self, Certificates};
use forebay_benches::engine::Sqlite;
use forebay_benches::engine::forebay::encoded_bytes;
use forebay_benches::system::{Programs, System};
use forebay_benches::{image, machine};
use meter::Meter;
use report::{Engine, Run};

/// GB written per day by messages per second and `commit_wait`, counted at the block layer of file systems of their own.
#[derive(Parser)]
#[command(
    after_help = "Root mounts ext4 images on loop devices (Debian's e2fsprogs and mount). Without root, /proc/PID/io is read, one log at a time, \
                  and the table says so. Windows are short and extrapolated; the low rates' are longer. Some eleven minutes.\n\nExamples:\n  wear --write\n  \
                  wear --rates 40 --waits 500 --scale 0.1 --engines forebay                a quick look"
)]
struct Arguments {
    /// Times everything is run; the table has the medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Messages per second.
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 10.0, 40.0, 100.0, 5000.0])]
    rates: Vec<f64>,
    /// `commit_wait` in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 500, 2000], value_parser = clap::value_parser!(u64).range(0..=10_000))]
    waits: Vec<u64>,
    /// Who writes.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Forebay, Engine::ForebayAway, Engine::Sqlite, Engine::Gateway])]
    engines: Vec<Engine>,
    /// Bytes of MQTT payload.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    size: u32,
    /// Factor on the windows' lengths: 120 s at 1/s, 60 s up to 100/s, 20 s above.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Messages that wait in Mosquitto when it saves; left out of the comparison with `none`.
    #[arg(long, default_value = "0,10000")]
    mosquitto_waiting: String,
    /// The gateway; left out: the one beside this program.
    #[arg(long)]
    forebay: Option<PathBuf>,
    /// Left out: the one in PATH or /usr/sbin.
    #[arg(long)]
    mosquitto: Option<PathBuf>,
    #[command(flatten)]
    bench: Bench,
}

/// From this rate on a log has the machine to itself.
const BUSY: f64 = 1000.0;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for rate in &arguments.rates {
        anyhow::ensure!(
            (0.1..=100_000.0).contains(rate),
            "--rates {rate} is outside 0.1 to 100000 per second"
        );
    }
    anyhow::ensure!(
        (0.001..=1000.0).contains(&arguments.scale),
        "--scale {} is outside 0.001 to 1000",
        arguments.scale
    );
    let waiting = waiting(&arguments.mosquitto_waiting)?;
    let mut systems = Vec::new();
    if arguments.engines.contains(&Engine::Gateway) {
        systems.push(System::Forebay);
    }
    if !waiting.is_empty() {
        systems.push(System::MosquittoQueue);
    }
    let programs = Programs::find(arguments.forebay.clone(), arguments.mosquitto.clone(), &systems)?;
    let own_mounts = image::own_mounts();
    let work = arguments.bench.work("wear")?;
    let certificates = certificates::make(work.path())?;
    let can_mount = match own_mounts.and_then(|()| Meter::new(work.path(), "try", true)) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("no file system of its own for each log ({error:#}): what the kernel counts for the process is read instead");
            false
        }
    };
    let wear = Wear {
        arguments: &arguments,
        programs: &programs,
        certificates: &certificates,
        work: work.path(),
        can_mount,
        made: AtomicUsize::new(0),
    };
    let runs = wear.grid()?;
    let mut saves = Vec::new();
    for waiting in waiting {
        let save = mosquitto::save(&wear.meter()?, &programs, &certificates, waiting, arguments.size as usize)?;
        eprintln!("a save of Mosquitto with {} messages waiting: {} bytes", save.waiting, save.written);
        arguments.bench.run_done(&save)?;
        saves.push(save);
    }
    let table = format!(
        "{}{}{}{}",
        wear.conditions(),
        report::goals(&runs),
        report::grid(&runs),
        report::saves(&saves)
    );
    arguments.bench.table("wear", &table)
}

struct Wear<'a> {
    arguments: &'a Arguments,
    programs: &'a Programs,
    certificates: &'a Certificates,
    work: &'a Path,
    can_mount: bool,
    made: AtomicUsize,
}

impl Wear<'_> {
    /// Measures all cells: those with little to do side by side, each on its own device.
    fn grid(&self) -> anyhow::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for round in 0..self.arguments.rounds {
            for &rate in &self.arguments.rates {
                let cells = self.cells(rate);
                eprintln!(
                    "round {}: {rate}/s, {} logs, windows of {:.0} s",
                    round + 1,
                    cells.len(),
                    self.window(rate).as_secs_f64()
                );
                let at_once = if self.can_mount && rate < BUSY { cells.len() } else { 1 };
                for cells in cells.chunks(at_once.max(1)) {
                    for run in self.side_by_side(cells)? {
                        eprintln!("{}", run.summary());
                        self.arguments.bench.run_done(&run)?;
                        runs.push(run);
                    }
                }
            }
        }
        Ok(runs)
    }

    fn cells(&self, rate: f64) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &wait in &self.arguments.waits {
            let wait = Duration::from_millis(wait);
            for &engine in &self.arguments.engines {
                if engine == Engine::Gateway && !gateway::is_wanted(rate, wait) {
                    continue;
                }
                cells.push(Cell {
                    engine,
                    rate,
                    wait,
                    payload: self.arguments.size as usize,
                    warmup: Duration::from_secs(5).mul_f64(self.arguments.scale.min(1.0)).max(wait * 2),
                    window: self.window(rate),
                });
            }
        }
        cells
    }

    fn window(&self, rate: f64) -> Duration {
        let seconds = match rate {
            ..=1.0 => 120.0,
            ..=100.0 => 60.0,
            _ => 20.0,
        };
        Duration::from_secs_f64(seconds * self.arguments.scale)
    }

    fn side_by_side(&self, cells: &[Cell]) -> anyhow::Result<Vec<Run>> {
        let runs = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let threads: Vec<_> = cells
                .iter()
                .map(|cell| {
                    let runs = &runs;
                    scope.spawn(move || {
                        let run = self.measure(cell)?;
                        if let Ok(mut runs) = runs.lock() {
                            runs.push(run);
                        }
                        anyhow::Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a measuring thread panicked"))?)
        })?;
        Ok(runs.into_inner().unwrap_or_default())
    }

    fn measure(&self, cell: &Cell) -> anyhow::Result<Run> {
        let meter = self.meter()?;
        let run = match cell.engine {
            Engine::Gateway => gateway::measure(cell, &meter, &self.programs.forebay, self.certificates),
            _ => cell.measure(&meter),
        };
        run.with_context(|| format!("{:?} at {}/s with a wait of {:?}", cell.engine, cell.rate, cell.wait))
    }

    fn meter(&self) -> anyhow::Result<Meter> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Meter::new(self.work, &format!("place-{number}"), self.can_mount)
    }

    fn conditions(&self) -> String {
        let size = self.arguments.size as usize;
        let windows: Vec<_> = self
            .arguments
            .rates
            .iter()
            .map(|rate| format!("{:.0} s at {rate}/s", self.window(*rate).as_secs_f64()))
            .collect();
        let place = if self.can_mount {
            "Counted at the block layer: sectors written to the loop device of an ext4 file system that each log has to itself, its journal \
             and metadata included, everything held back written out at both ends of a window"
        } else {
            "Counted by the kernel for the process (/proc/PID/io), because no file systems could be mounted: the file system's journal and \
             metadata are not in it"
        };
        format!(
            "{}; SQLite {}; {}. {place}.\nPayload {size} B, encoded record {} B; windows of {}, extrapolated; medians of {} runs.\n",
            machine::describe(),
            Sqlite::version(),
            self.programs.versions().1,
            encoded_bytes(size),
            windows.join(", "),
            self.arguments.rounds,
        )
    }
}

fn waiting(text: &str) -> anyhow::Result<Vec<u64>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let number = |word: &str| {
        word.trim()
            .parse::<u64>()
            .with_context(|| format!("--mosquitto-waiting: `{word}` is not a number"))
    };
    text.split(',').map(number).collect()
}
