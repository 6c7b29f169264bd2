//! The configuration: from YAML to validated types, once.
//!
//! `load` reads the file, lays the environment and the flags over it, and reports *everything* that is wrong with
//! the result at once. `schema/reference.rs` lists every key; checks, defaults and `docs/configuration.md` come from it.

mod access;
mod admin;
mod cloud;
mod fault;
mod gateway;
mod limits;
mod listener;
mod overrides;
mod route;
mod schema;
mod stream;
mod units;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use access::AccessRule;
pub(crate) use admin::{Admin, Otlp, Secret, read_token};
pub(crate) use cloud::{ClientCertificate, Cloud, CloudTls, Profile, Protocol};
pub(crate) use fault::{ConfigError, Fault};
pub(crate) use gateway::{Gateway, canary_topic};
pub(crate) use limits::{Limits, Sessions};
pub(crate) use listener::{Identity, Listener, ListenerTls};
pub(crate) use overrides::Overrides;
pub(crate) use route::{CloudRoute, Route};
pub(crate) use stream::{Stream, WhenFull};
pub(crate) use units::{duration, show_bytes, show_duration};
pub(crate) use watch::{Field, Watch};

use schema::{Reading, Section};
use yaml::{Node, Value};

/// The exit code of a configuration that cannot be used (`EX_CONFIG`).
pub(crate) const EXIT_CODE: u8 = 78;

/// A validated configuration: nothing of it has to be checked again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The gateway's name and disk.
    pub(crate) gateway: Gateway,
    /// Where devices connect, at least one.
    pub(crate) listeners: Vec<Listener>,
    /// Who may do what, first match wins.
    pub(crate) access: Vec<AccessRule>,
    /// Bounds of connections.
    pub(crate) limits: Limits,
    /// Bounds of persistent sessions.
    pub(crate) sessions: Sessions,
    /// The log's queues in order of priority, 1 to 8.
    pub(crate) streams: Vec<Stream>,
    /// What goes to the cloud, first match wins.
    pub(crate) routes: Vec<Route>,
    /// What is watched of the devices' publishes.
    pub(crate) watch: Vec<Watch>,
    /// The cloud; `None` if this is a local broker only.
    pub(crate) cloud: Option<Cloud>,
    /// The admin listener.
    pub(crate) admin: Admin,
    /// Sixteen hex digits that change when a setting changes, wherever it was made.
    pub(crate) fingerprint: String,
}

/// Reads, completes and checks a configuration file.
///
/// # Errors
/// Everything that is wrong, for exit code 78.
pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
    let failed = |reason: String| ConfigError {
        file: path.to_owned(),
        faults: vec![Fault::of_file(reason)],
    };
    let bytes = std::fs::read(path).map_err(|error| {
        failed(format!(
            "cannot be read: {error}. `-c FILE` names another file; config/minimal.yaml is an example"
        ))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| failed(format!("is not UTF-8 text: {error}")))?;
    let base_dir = path.parent().unwrap_or_else(|| Path::new(""));
    parse(&text, base_dir, overrides).map_err(|error| ConfigError {
        file: path.to_owned(),
        ..error
    })
}

/// As [`load`], for a gateway that waits for other files: also returns which of those cannot be read yet.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn load_to_run(path: &Path, overrides: &Overrides) -> Result<(Config, Vec<Fault>), ConfigError> {
    match load(path, overrides) {
        Ok(config) => Ok((config, Vec::new())),
        Err(error) if error.passes() => {
            let overrides = Overrides {
                skip_files: true,
                ..overrides.clone()
            };
            Ok((load(path, &overrides)?, error.faults))
        }
        Err(error) => Err(error),
    }
}

/// Reads a configuration from text; relative paths start at `base_dir`.
///
/// # Errors
/// Everything that is wrong.
pub(crate) fn parse(text: &str, base_dir: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
    let error = |faults| ConfigError {
        file: "the configuration".into(),
        faults,
    };
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut root = match Node::parse_file(text) {
        Ok(root) => root,
        Err(fault) => return Err(error(vec![*fault])),
    };
    let mut faults = Vec::new();
    overrides.apply(&mut root, &mut faults);
    schema::check(&root, &mut faults);

    let section = Section::root(&root);
    let mut reading = Reading {
        base_dir,
        check_files: !overrides.skip_files,
        faults,
    };
    let gateway = gateway::read(&section, &overrides.env, &mut reading);
    let listeners = listener::read(&section, &mut reading);
    let streams = stream::read(&section, &mut reading);
    let cloud = cloud::read(&section, &gateway.id, &listeners, &mut reading);
    let config = Config {
        access: access::read(&section, &mut reading),
        limits: limits::read_limits(&section),
        sessions: limits::read_sessions(&section, &mut reading),
        routes: route::read(&section, &streams, cloud.is_some(), &mut reading),
        watch: watch::read(&section, &mut reading),
        admin: admin::read(&section, &listeners, &mut reading),
        fingerprint: fingerprint(&root),
        gateway,
        listeners,
        streams,
        cloud,
    };
    if reading.faults.is_empty() {
        return Ok(config);
    }
    reading.faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
    Err(error(reading.faults))
}

/// FNV-1a over the values, in the order of the file: enough to see that something changed.
fn fingerprint(root: &Node) -> String {
    fn mix(hash: &mut u64, text: &str) {
        // The separator cannot stand in UTF-8, so `ab` `c` differs from `a` `bc`.
        for byte in text.bytes().chain([0xff]) {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn walk(hash: &mut u64, node: &Node) {
        match &node.value {
            Value::Null => mix(hash, "null"),
            Value::Bool(value) => mix(hash, if *value { "true" } else { "false" }),
            Value::Number(text) | Value::Text(text) => mix(hash, text),
            Value::List(items) => {
                mix(hash, "[");
                items.iter().for_each(|item| walk(hash, item));
                mix(hash, "]");
            }
            Value::Map(entries) => {
                mix(hash, "{");
                for (key, value) in entries {
                    mix(hash, &key.name);
                    walk(hash, value);
                }
                mix(hash, "}");
            }
        }
    }
    let mut hash = 0xcbf2_9ce4_8422_2325;
    walk(&mut hash, root);
    format!("{hash:016x}")
}
