//! `forebay check`: what can be told about a configuration without starting anything.
//!
//! Routes that no publish reaches, topics that the cloud would refuse, certificates, the disk against the outage that the
//! gateway is meant to survive, what is written to it per day; and, for one topic and identity, where a message goes
//! and why. The decisions are those of the running gateway: the same access rules, routes and mapping.

mod access;
mod admin;
mod certificates;
pub(crate) mod descriptors;
mod disk;
mod kernel;
mod memory;
mod mount;
mod report;
mod routes;
mod sample;
mod topics;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use crate::config::Config;
pub(crate) use admin::AREA as ADMIN;
use disk::Space;
pub(crate) use disk::record_bytes;
pub(crate) use kernel::Kernel;
pub(crate) use mount::Mount;
pub(crate) use report::{AREAS, Finding, Report, Severity};

/// What to look at besides the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckOptions {
    /// A topic to follow through the gateway.
    pub(crate) sample: Option<String>,
    /// The identity that publishes the sample.
    pub(crate) identity: Option<String>,
    /// Bytes that a running gateway's log takes of the disk already.
    pub(crate) taken: u64,
}

/// Checks a valid configuration against this machine: its clock, its files, its disk.
#[must_use]
pub(crate) fn run(config: &Config, options: &CheckOptions) -> Report {
    run_at(config, options, forebay_wal::wall_clock())
}

/// As [`run`], with certificates judged at `now`.
#[must_use]
pub(crate) fn run_at(config: &Config, options: &CheckOptions, now: SystemTime) -> Report {
    let space = Space::of(&config.gateway.data_dir).map(|space| space.without(options.taken));
    run_with(config, options, now, space.as_ref().map_err(String::as_str))
}

fn run_with(config: &Config, options: &CheckOptions, now: SystemTime, space: Result<&Space, &str>) -> Report {
    let mut report = Report::default();
    let mapping = topics::mapping(config);
    routes::check(config, &mut report);
    topics::check(config, mapping.as_ref(), &mut report);
    certificates::check(config, now, &mut report);
    disk::check(config, space, &mut report);
    memory::check(config, &mut report);
    memory::files(config, &mut report);
    admin::check(config, &mut report);
    if let Some(topic) = &options.sample {
        sample::check(config, mapping.as_ref(), topic, options.identity.as_deref(), &mut report);
    }
    report
}
