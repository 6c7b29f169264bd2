//! `watch.json`: what the watch knows, across restarts.
//!
//! One JSON document with a version; written to `watch.json.tmp`, synced, renamed, the directory synced: it is the old one or
//! the new one, never half. Bounded as the watch itself is. `clean` says that nothing was seen after it was written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_wal::Timestamp;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Serialize, Serializer};

use super::connections::Connections;
use super::engine::{Engine, MAX_DEVICES, time};
use super::lock;
use super::series::Series;
use crate::config;

const FORMAT: &str = "forebay watch";
const VERSION: u32 = 1;
/// Twenty thousand series with sixteen drifting fields each would be some 150 MB; nobody has them.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
struct Document {
    clean: bool,
    saved: Saved,
    series: Vec<Series>,
    devices: HashMap<String, Connections>,
}

#[derive(Serialize)]
struct View<'a> {
    format: &'static str,
    version: u32,
    clean: bool,
    saved: Saved,
    #[serde(serialize_with = "series")]
    series: &'a Engine,
    #[serde(serialize_with = "devices")]
    devices: &'a Engine,
}

/// One after the other, so that no device waits for the disk.
fn series<S: Serializer>(engine: &Engine, to: S) -> Result<S::Ok, S::Error> {
    let all = engine.series();
    let mut list = to.serialize_seq(Some(all.len()))?;
    for one in all {
        let one = lock(&one).clone();
        list.serialize_element(&one)?;
    }
    list.end()
}

fn devices<S: Serializer>(engine: &Engine, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    for identity in engine.devices() {
        if let Some(device) = engine.connections(&identity) {
            map.serialize_entry(&*identity, &device)?;
        }
    }
    map.end()
}

/// When it was written.
#[derive(Serialize, Deserialize)]
struct Saved {
    wall_ms: u64,
    trusted: bool,
    /// The kernel's name of that boot, in hex.
    boot: String,
    monotonic_ms: u64,
}

/// Why a checkpoint could not be used; it is quarantined.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is damaged")]
    Damaged(#[from] serde_json::Error),
    #[error("it has format `{0}`, version {1}; this release reads `{FORMAT}`, up to version {VERSION}")]
    Version(String, u32),
}

/// The state's file in this directory.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("watch.json")
}

/// Restores what the file knows; false = there is no file. Silences that had not begun start anew at `now`: the time without
/// a gateway is nobody's.
pub(super) fn load(path: &Path, engine: &Engine, watch: &[config::Watch], now: &Timestamp) -> Result<bool, Unusable> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unusable::TooLarge);
    }
    let head: Head = serde_json::from_slice(&bytes)?;
    if head.format != FORMAT || head.version > VERSION {
        return Err(Unusable::Version(head.format, head.version));
    }
    let document: Document = serde_json::from_slice(&bytes)?;
    let present = time(now);
    let by = present - document.saved.monotonic() - document.saved.downtime(now);
    for mut series in document.series {
        if watch.iter().all(|item| item.topic.as_str() != series.item) {
            continue;
        }
        series.shift(by);
        if !series.silent {
            series.last_seen = present;
        }
        engine.restore(series);
    }
    for (identity, mut device) in document.devices.into_iter().take(MAX_DEVICES) {
        device.shift(by);
        engine.restore_device(Arc::from(identity), device);
    }
    if !document.clean {
        engine.become_unsure();
    }
    Ok(true)
}

/// Writes what the engine knows. Blocks on the disk.
pub(super) fn save(path: &Path, engine: &Engine, now: &Timestamp, clean: bool) -> io::Result<()> {
    let view = View {
        format: FORMAT,
        version: VERSION,
        clean,
        saved: Saved {
            wall_ms: now.wall_ms,
            trusted: now.trusted,
            boot: format!("{:032x}", now.boot.0),
            monotonic_ms: now.monotonic_ms,
        },
        series: engine,
        devices: engine,
    };
    let temporary = path.with_extension("json.tmp");
    let mut file = BufWriter::new(File::create(&temporary)?);
    serde_json::to_writer(&mut file, &view)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    std::fs::rename(&temporary, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match File::open(parent.unwrap_or(Path::new(".")))?.sync_all() {
        // Some file systems know no sync of a directory; the log has said so.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// Renames a file that cannot be used, so that it is kept for a look and not read again.
pub(super) fn quarantine(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_extension("json.unusable"))
}

impl Saved {
    fn monotonic(&self) -> super::Ms {
        super::Ms::try_from(self.monotonic_ms).unwrap_or_default()
    }

    /// How long ago it was saved, as far as that can be proved.
    fn downtime(&self, now: &Timestamp) -> super::Ms {
        let saved = Timestamp {
            wall_ms: self.wall_ms,
            boot: forebay_wal::BootId(u128::from_str_radix(&self.boot, 16).unwrap_or_default()),
            monotonic_ms: self.monotonic_ms,
            trusted: self.trusted,
        };
        let age = saved.age(now).unwrap_or_default();
        super::Ms::try_from(age.as_millis()).unwrap_or_default()
    }
}
