//! The gateway itself: its name and its disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::schema::{NO_HOME, Reading, Section, is_of_a_home};

const MAX_ID: usize = 64;

/// The gateway's id: 1 to 64 of `A-Z a-z 0-9 _ - . :`, fit for topics, client ids and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GatewayId(String);

impl GatewayId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// The rule that it breaks, for the operator.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if text.is_empty() || text.len() > MAX_ID || !text.chars().all(fits) {
            return Err(format!(
                "must be 1 to {MAX_ID} of A-Z a-z 0-9 _ - . : (topics, client ids and metrics contain it)"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The topic of the gateway's own canary, in the log and in the cloud.
#[must_use]
pub(crate) fn canary_topic(gateway: &str) -> String {
    format!("{gateway}/canary")
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `gateway`: the name, the disk and what it must survive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gateway {
    /// Unique per cloud account.
    pub(crate) id: GatewayId,
    /// Directory of the log and the sessions, absolute or relative to the working directory. Default
    /// `$STATE_DIRECTORY`, else `data` beside the file.
    pub(crate) data_dir: PathBuf,
    /// Bytes that the log may take on disk. Default 4 GiB, from 32 MiB.
    pub(crate) max_disk: u64,
    /// Bytes that the file system must keep free. Default 512 MiB.
    pub(crate) keep_free: u64,
    /// Bytes of memory that peers may make the gateway take. Default 128 MiB, from 32 MiB.
    pub(crate) max_memory: u64,
    /// How long publishes are collected for one commit. Default zero, at most 10 s.
    pub(crate) commit_wait: Duration,
    /// What the disk is measured against.
    pub(crate) survive: Survive,
}

/// `gateway.survive`: the outage that the gateway is meant to survive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Survive {
    /// How long the cloud is away. Default 12 h.
    pub(crate) outage: Duration,
    /// Publishes per second over all devices. Default 40.
    pub(crate) rate: f64,
    /// Bytes of a typical payload. Default 256.
    pub(crate) size: u64,
}

pub(super) fn read(root: &Section<'_>, env: &BTreeMap<String, String>, reading: &mut Reading<'_>) -> Gateway {
    let section = root.section("gateway");
    let id = section.text("id").map(|text| GatewayId::parse(&text));
    let id = match id {
        Some(Ok(id)) => id,
        Some(Err(reason)) => {
            reading.faults.push(section.fault("id", reason));
            GatewayId(String::new())
        }
        None => GatewayId(String::new()),
    };
    let survive = section.section("survive");
    Gateway {
        id,
        data_dir: data_dir(&section, env, reading),
        max_disk: section.bytes("max_disk").unwrap_or_default(),
        keep_free: section.bytes("keep_free").unwrap_or_default(),
        max_memory: section.bytes("max_memory").unwrap_or_default(),
        commit_wait: section.duration("commit_wait").unwrap_or_default(),
        survive: Survive {
            outage: survive.duration("outage").unwrap_or_default(),
            rate: survive.rate("rate").unwrap_or_default(),
            size: survive.bytes("size").unwrap_or_default(),
        },
    }
}

fn data_dir(section: &Section<'_>, env: &BTreeMap<String, String>, reading: &mut Reading<'_>) -> PathBuf {
    if let Some(written) = section.text("data_dir") {
        let path = reading.base_dir.join(&written);
        if is_of_a_home(&written) {
            reading.faults.push(section.fault("data_dir", NO_HOME));
        } else if written.is_empty() {
            reading.faults.push(section.fault("data_dir", "is empty; name a directory"));
        } else if reading.check_files && path.exists() && !path.is_dir() {
            reading
                .faults
                .push(section.fault("data_dir", format!("{} exists and is not a directory", path.display())));
        }
        return path;
    }
    // systemd gives several directories separated by colons; the first is ours.
    let state = env
        .get("STATE_DIRECTORY")
        .and_then(|list| list.split(':').find(|path| !path.is_empty()));
    state.map_or_else(|| reading.base_dir.join("data"), PathBuf::from)
}
