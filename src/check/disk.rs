//! The disk against the outage that the gateway is meant to survive, and what is written to it per day.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::config::{Config, Stream, WhenFull, show_bytes, show_duration};

use super::kernel::Kernel;
use super::mount::Mount;
use super::report::Report;

const AREA: &str = "disk";
/// A record's own fields and its line in the block's index.
const RECORD_FIELDS: u64 = 73;
/// A middling identity and a middling topic.
const RECORD_NAMES: u64 = 16 + 48;
/// Pages and files hold a little less than they take.
const PAGES: f64 = 1.15;
/// What a commit writes however small it is (pages of the tree, its tables, the header).
const COMMIT: f64 = 40.0 * 1024.0;
/// Dead letters have a bound of their own.
const DEAD_LETTERS: u64 = 64 << 20;
const DAY: f64 = 86_400.0;
const MIB: u64 = 1 << 20;

/// The file system under a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Its size in bytes.
    pub(super) size: u64,
    /// Bytes that an ordinary user may still take.
    pub(super) free: u64,
    /// Whether it is an SD card or eMMC.
    pub(super) flash_card: bool,
    /// What is mounted there, if the kernel says.
    pub(super) mount: Option<Mount>,
    /// Whether this user may write there.
    pub(super) writable: bool,
    /// What the kernel says of the disk.
    pub(super) kernel: Kernel,
}

impl Space {
    /// The same without what a log takes.
    pub(super) fn without(mut self, taken: u64) -> Self {
        self.free = self.free.saturating_add(taken);
        self
    }

    /// Asks the file system of `directory`, or of the nearest parent that exists.
    pub(super) fn of(directory: &Path) -> Result<Self, String> {
        let there = existing(directory);
        let found = rustix::fs::statvfs(&there).map_err(|error| format!("{}: {error}", there.display()))?;
        Ok(Self {
            size: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
            flash_card: is_flash_card(&there),
            mount: Mount::of(&there),
            kernel: Kernel::of(&there),
            writable: rustix::fs::access(&there, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        })
    }
}

pub(super) fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|path| !path.as_os_str().is_empty() && path.exists());
    found.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn is_flash_card(path: &Path) -> bool {
    let Ok(found) = rustix::fs::stat(path) else { return false };
    let device = format!(
        "/sys/dev/block/{}:{}",
        rustix::fs::major(found.st_dev),
        rustix::fs::minor(found.st_dev)
    );
    std::fs::read_link(device).is_ok_and(|target| target.to_string_lossy().contains("mmcblk"))
}

pub(super) fn check(config: &Config, space: Result<&Space, &str>, report: &mut Report) {
    if config.cloud.is_some() {
        let need = need(config);
        streams(config, need, report);
        whole_disk(config, need, space, report);
    }
    bounds(config, report);
    writes(config, space.is_ok_and(|space| space.flash_card), report);
    if let Ok(space) = space {
        place(config, space, report);
    }
    if let Err(error) = space {
        report.error(
            AREA,
            format!("the file system of gateway.data_dir cannot be read: {error}"),
            "create the directory, or name another",
        );
    }
}

/// Whether what is written to the directory stays, and whether it can be written at all.
fn place(config: &Config, space: &Space, report: &mut Report) {
    let here = config.gateway.data_dir.display();
    let mount = space.mount.as_ref();
    if let Some((mount, why)) = mount.and_then(|mount| Some((mount, mount.loses()?))) {
        report.error(
            AREA,
            format!("gateway.data_dir ({here}) is on {}, {why}", mount.kind),
            "name a directory on a local disk (ext4); in a container, a volume",
        );
    }
    for doubt in mount.iter().flat_map(|mount| mount.doubts()) {
        let kind = mount.map_or("", |mount| mount.kind.as_str());
        let text = format!("gateway.data_dir ({here}) is on {kind}, {}", doubt.what);
        if doubt.loses {
            report.error(AREA, text, doubt.advice);
        } else {
            report.warn(AREA, text, doubt.advice);
        }
    }
    space.kernel.check(AREA, &here.to_string(), report);
    if mount.is_some_and(|mount| mount.read_only) {
        report.error(
            AREA,
            format!("the file system of {here} is mounted read-only: nothing can be accepted there"),
            "check the disk (`dmesg`), then mount it for writing",
        );
    } else if !space.writable {
        report.error(
            AREA,
            format!("this user may not write to {here}"),
            "check as the user that runs the gateway, or give the directory to it (chown)",
        );
    }
}

/// Bytes of one stored publish of the size that `gateway.survive` names.
pub(crate) fn record_bytes(config: &Config) -> u64 {
    let route = config
        .routes
        .iter()
        .map(|route| route.name().len() as u64)
        .max()
        .unwrap_or_default();
    config.gateway.survive.size + RECORD_FIELDS + RECORD_NAMES + route
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the table of keys")]
fn need(config: &Config) -> u64 {
    let survive = config.gateway.survive;
    let records = survive.rate * survive.outage.as_secs_f64();
    (records * as_float(record_bytes(config))) as u64
}

fn streams(config: &Config, need: u64, report: &mut Report) {
    let survive = config.gateway.survive;
    let used = |place: usize| {
        config
            .routes
            .iter()
            .any(|route| route.cloud().is_some_and(|cloud| cloud.stream == place))
    };
    let largest = config
        .streams
        .iter()
        .enumerate()
        .filter(|(place, _)| used(*place))
        .map(|(_, stream)| stream)
        .max_by_key(|stream| stream.max_bytes);
    let Some(stream) = largest else { return };
    let outage = format!(
        "{} at {}/s of {}",
        show_duration(survive.outage),
        survive.rate,
        show_bytes(survive.size)
    );
    let each = record_bytes(config);
    if need > stream.max_bytes {
        let lasts = survive.outage.mul_f64(as_float(stream.max_bytes) / as_float(need));
        let text = format!(
            "an outage of {outage} needs {} (about {each}B a record); `{}`, the largest stream, has {}: it is full after {} and then {}",
            show_bytes(need),
            stream.name,
            show_bytes(stream.max_bytes),
            rough(lasts.as_secs()),
            when_full(stream),
        );
        report.error(
            AREA,
            text,
            format!("set its max_bytes to {} or more, or lower gateway.survive", rounded_up(need)),
        );
    } else {
        let text = format!(
            "an outage of {outage} needs {} of the {} that `{}` has (about {each}B a record)",
            show_bytes(need),
            show_bytes(stream.max_bytes),
            stream.name
        );
        report.ok(AREA, text);
    }
    for stream in config
        .streams
        .iter()
        .enumerate()
        .filter(|(place, _)| used(*place))
        .map(|(_, stream)| stream)
    {
        if let Some(age) = stream.max_age.filter(|age| *age < survive.outage) {
            let text = format!(
                "records of `{}` expire after {}, within an outage of {}",
                stream.name,
                show_duration(age),
                show_duration(survive.outage)
            );
            report.warn(AREA, text, "raise its max_age if they still have a value then");
        }
    }
}

fn when_full(stream: &Stream) -> &'static str {
    match stream.when_full {
        WhenFull::Refuse => "refuses publishes",
        WhenFull::DropOldest => "drops the oldest",
    }
}

fn whole_disk(config: &Config, need: u64, space: Result<&Space, &str>, report: &mut Report) {
    let gateway = &config.gateway;
    let on_disk = on_disk(config, need);
    if on_disk > gateway.max_disk {
        let text = format!(
            "on disk that takes {}, including the segments being written; gateway.max_disk is {}",
            show_bytes(on_disk),
            show_bytes(gateway.max_disk)
        );
        report.error(
            AREA,
            text,
            format!("set gateway.max_disk to {} or more, or lower gateway.survive", rounded_up(on_disk)),
        );
    }
    let Ok(space) = space else { return };
    let wanted = on_disk.saturating_add(gateway.keep_free);
    let here = gateway.data_dir.display();
    let (size, free) = (show_bytes(space.size), show_bytes(space.free));
    let text = format!(
        "on disk that takes {}, and keep_free {}; the file system of {here} has {size}, {free} free",
        show_bytes(on_disk),
        show_bytes(gateway.keep_free)
    );
    if wanted > space.size {
        report.error(
            AREA,
            text,
            "put gateway.data_dir on a larger disk, or lower keep_free or gateway.survive",
        );
    } else if wanted > space.free {
        report.warn(AREA, text, "free space, or put gateway.data_dir on another disk");
    } else {
        report.ok(AREA, text);
    }
}

/// What records of these bytes take on disk, with the file being written and the one made ahead.
fn on_disk(config: &Config, bytes: u64) -> u64 {
    let file = (config.gateway.max_disk / 16).clamp(8 * MIB, 128 * MIB);
    scaled(bytes, PAGES) + 2 * file
}

fn bounds(config: &Config, report: &mut Report) {
    let streams = config
        .streams
        .iter()
        .fold(0_u64, |sum, stream| sum.saturating_add(stream.max_bytes));
    let together = on_disk(config, streams.saturating_add(DEAD_LETTERS));
    if together > config.gateway.max_disk {
        let text = format!(
            "all streams at their bounds and the dead letters take {} on disk, more than gateway.max_disk ({}), which is reached first",
            show_bytes(together),
            show_bytes(config.gateway.max_disk)
        );
        report.warn(
            AREA,
            text,
            format!("set gateway.max_disk to {}, or lower the streams' max_bytes", rounded_up(together)),
        );
    }
}

fn writes(config: &Config, flash_card: bool, report: &mut Report) {
    let survive = config.gateway.survive;
    let wait = config.gateway.commit_wait.as_secs_f64();
    // The first record opens the batch; those of the wait join it.
    let per_commit = 1.0 + survive.rate * wait;
    let records = survive.rate * DAY;
    let per_day = |per_commit: f64| records / per_commit * COMMIT + records * as_float(record_bytes(config)) * PAGES;
    let (now, patient) = (per_day(per_commit), per_day(1.0 + survive.rate * 0.5));
    let text = format!(
        "at {}/s and commit_wait {} the gateway writes about {:.1} GB per day (records per commit: {per_commit:.0}; each commit writes about 40KiB more)",
        survive.rate,
        show_duration(config.gateway.commit_wait),
        now / 1e9,
    );
    if wait < 0.1 && now > 2.0 * patient && now > 10e9 {
        let hint = format!(
            "commit_wait: 500ms would write {:.1} GB; acks come later by that time",
            patient / 1e9
        );
        if flash_card {
            report.warn(AREA, format!("{text}; the disk is a flash card"), hint);
        } else {
            report.add(super::Severity::Ok, AREA, text, Some(format!("on a flash card {hint}")));
        }
    } else {
        report.ok(AREA, text);
    }
}

/// Whole steps of 64 MiB, or of GiB above one.
fn rounded_up(bytes: u64) -> String {
    let step = if bytes > 1 << 30 { 1 << 30 } else { 64 * MIB };
    show_bytes(bytes.div_ceil(step) * step)
}

fn rough(seconds: u64) -> String {
    match seconds {
        0..600 => format!("{seconds}s"),
        600..36_000 => format!("{}m", seconds / 60),
        36_000..864_000 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of disks are far below 2^53"
)]
fn scaled(bytes: u64, factor: f64) -> u64 {
    (as_float(bytes) * factor) as u64
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}
