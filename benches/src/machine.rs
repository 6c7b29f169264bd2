//! What the kernel says about a process and this machine.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Histogram;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_s: f64,
    /// Its memory now, in bytes.
    pub rss: u64,
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
        rss: field(&status, "VmRSS:").context("no VmRSS in /proc")? * 1024,
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

/// What this process has written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Calls that wrote.
    pub calls: u64,
    /// Bytes handed to the kernel.
    pub bytes: u64,
    /// Bytes that the kernel sent towards storage.
    pub stored: u64,
}

/// What this process has written so far, to files and to everything else.
///
/// # Errors
///
/// `/proc` is not there.
pub fn own_written() -> anyhow::Result<Written> {
    let io = read("/proc/self/io")?;
    let of = |name| field(&io, name).with_context(|| format!("no {name} in /proc/self/io"));
    Ok(Written {
        calls: of("syscw:")?,
        bytes: of("wchar:")?,
        stored: of("write_bytes:")?,
    })
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

/// Bytes that the files of a directory occupy, those of its directories not included.
///
/// # Errors
///
/// The directory is not there.
pub fn occupied(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        // One that was just unlinked occupies nothing.
        if let Ok(found) = entry?.metadata()
            && found.is_file()
        {
            bytes += found.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// Allows this process, and those it starts, as many open files as the system lets it have.
///
/// # Errors
///
/// They are fewer than `wanted`.
pub fn allow_open_files(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        bail!(
            "{wanted} open files are needed, {:?} are allowed: raise `ulimit -Hn`",
            limit.maximum
        );
    }
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).context("raising the limit on open files")?;
    }
    Ok(())
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
