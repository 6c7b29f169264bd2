//! What the kernel says about a process and this machine.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::Histogram;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_s: f64,
    /// The most memory it had at a time, in bytes.
    pub peak_rss: u64,
    /// Bytes it sent to storage.
    pub written: u64,
}

/// The usage of a process.
///
/// # Errors
///
/// It is gone, or is not ours to look at.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let io = read(&format!("/proc/{pid}/io"))?;
    Ok(Usage {
        cpu_s: cpu_seconds(&pid.to_string())?,
        peak_rss: field(&status, "VmHWM:").context("no VmHWM in /proc")? * 1024,
        written: field(&io, "write_bytes:").context("no write_bytes in /proc")?,
    })
}

/// CPU seconds of this process.
///
/// # Errors
///
/// `/proc` is not there.
pub fn own_cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds("self")
}

/// Processor, cores and kernel in one line.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// What one small durable write costs in `directory`: the median and the slowest 1 % of 200 times 4 KiB and `fdatasync`.
///
/// # Errors
///
/// The directory cannot be written.
pub fn sync_cost(directory: &Path) -> anyhow::Result<(Duration, Duration)> {
    let path = directory.join("sync-cost");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("creating {}", path.display()))?;
    let mut costs = Histogram::default();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        costs.record(began.elapsed());
    }
    fs::remove_file(&path)?;
    Ok((costs.quantile(0.5), costs.quantile(0.99)))
}

/// Whether the directory is in memory, where durability costs nothing and means nothing.
///
/// # Errors
///
/// The directory is not there.
pub fn is_in_memory(directory: &Path) -> anyhow::Result<bool> {
    const TMPFS: i128 = 0x0102_1994;
    const RAMFS: i128 = 0x8584_58f6;
    let magic = i128::from(rustix::fs::statfs(directory)?.f_type);
    Ok(magic == TMPFS || magic == RAMFS)
}

fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and brackets; the fields after it are numbers.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace())
        .context("unreadable /proc/PID/stat")?;
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}
