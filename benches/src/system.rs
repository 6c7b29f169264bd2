//! The servers compared, each configured for the same work.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::collector;
use crate::server::{Server, first_line, free_port};

/// A server and what it does with a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// Acks after the commit to its log; the cloud is away.
    Forebay,
    /// The same with all that watches switched on: `watch:`, a canary, traces of one record in a hundred.
    ForebayEverything,
    /// Queues in memory for a bridge whose cloud is away; acks at once.
    MosquittoQueue,
    /// The same, and writes its whole state to disk each second, behind the acks.
    MosquittoAutosave,
    /// No bridge and no subscriber: acks and forgets.
    MosquittoBare,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// A release build.
    pub forebay: PathBuf,
    /// Debian's, or any other.
    pub mosquitto: PathBuf,
}

impl System {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            System::Forebay => "Forebay",
            System::ForebayEverything => "Forebay, everything on",
            System::MosquittoQueue => "Mosquitto, queue in RAM",
            System::MosquittoAutosave => "Mosquitto, autosave 1 s",
            System::MosquittoBare => "Mosquitto, nothing stored",
        }
    }

    /// Whether it is Forebay.
    fn is_ours(self) -> bool {
        matches!(self, System::Forebay | System::ForebayEverything)
    }

    /// Starts it with a data directory of its own.
    ///
    /// # Errors
    ///
    /// The program is missing or does not get ready.
    pub fn start(self, programs: &Programs, certificates: &Certificates, directory: &Path) -> anyhow::Result<Server> {
        let started = match self {
            System::Forebay | System::ForebayEverything => gateway_config(certificates, directory)
                .and_then(|config| self.observed(config))
                .and_then(|config| start_gateway(&programs.forebay, &config, directory)),
            _ => self.start_mosquitto(&programs.mosquitto, certificates, directory),
        };
        started.with_context(|| format!("starting {}", self.name()))
    }

    /// The configuration with everything on that looks, or with none of it.
    fn observed(self, mut config: Value) -> anyhow::Result<Value> {
        if self == System::ForebayEverything {
            config["watch"] = json!([{
                "topic": "devices/+/telemetry",
                "every": "60s",
                "sequence": {"counter": "/seq"},
                "fields": [{"at": "/seq", "range": [0, 1e18]}],
            }]);
            config["cloud"]["canary"] = json!("1m");
            config["admin"]["otlp"] = json!({"endpoint": format!("http://{}", collector::start()?), "sample": "1%"});
        } else {
            config["cloud"]["canary"] = json!("off");
        }
        Ok(config)
    }

    fn start_mosquitto(self, program: &Path, certificates: &Certificates, directory: &Path) -> anyhow::Result<Server> {
        let (plain, tls) = (free_port()?, free_port()?);
        let mut text = format!(
            "listener {plain} 127.0.0.1\n\
             listener {tls} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
             allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
             log_dest stderr\nlog_type error\nlog_type warning\npersistence true\npersistence_location {}/\n",
            certificates.ca.display(),
            certificates.server.display(),
            certificates.server_key.display(),
            directory.display(),
        );
        if rustix::process::geteuid().is_root() {
            text.push_str("user root\n");
        }
        if self == System::MosquittoAutosave {
            text.push_str("autosave_interval 1\n");
        }
        if self != System::MosquittoBare {
            write!(
                text,
                "connection cloud\naddress 127.0.0.1:{}\ntopic devices/# out 1\ncleansession false\nnotifications false\n\
                 remote_clientid edge-a\nbridge_protocol_version mqttv311\nrestart_timeout 1\n",
                free_port()?
            )?;
        }
        let config = directory.join("mosquitto.conf");
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&config);
        Server::silent(
            command,
            directory,
            SocketAddr::from(([127, 0, 0, 1], plain)),
            SocketAddr::from(([127, 0, 0, 1], tls)),
        )
    }
}

impl Programs {
    /// Finds both, or says how to get them.
    ///
    /// # Errors
    ///
    /// One that is needed is missing.
    pub fn find(forebay: Option<PathBuf>, mosquitto: Option<PathBuf>, systems: &[System]) -> anyhow::Result<Programs> {
        let forebay = forebay.map_or_else(|| Ok(std::env::current_exe()?.with_file_name("forebay")), anyhow::Ok)?;
        if systems.iter().any(|system| system.is_ours()) && !forebay.is_file() {
            bail!(
                "{} is missing: build it with `cargo build --release`, or name one with --forebay",
                forebay.display()
            );
        }
        // Debian keeps it where only root's PATH looks.
        let places = mosquitto.map_or_else(|| vec!["mosquitto".into(), "/usr/sbin/mosquitto".into()], |path| vec![path]);
        let found = places.iter().find(|path| first_line(Command::new(path).arg("-h")).is_some());
        match found {
            Some(mosquitto) => Ok(Programs {
                forebay,
                mosquitto: mosquitto.clone(),
            }),
            None if systems.iter().all(|system| system.is_ours()) => Ok(Programs {
                forebay,
                mosquitto: places[0].clone(),
            }),
            None => bail!(
                "no mosquitto found: `apt-get install mosquitto` (and `systemctl disable --now mosquitto`: no service is needed), \
                 name one with --mosquitto, or leave it out with `--systems forebay`"
            ),
        }
    }

    /// What each says it is.
    pub fn versions(&self) -> (String, String) {
        let ask =
            |program: &Path, argument: &str| first_line(Command::new(program).arg(argument)).unwrap_or_else(|| "version unknown".into());
        (ask(&self.forebay, "--version"), ask(&self.mosquitto, "-h"))
    }
}

/// A gateway's configuration with a plain and a mutual TLS listener, its data in `directory` and a cloud that is away, to be changed at will.
///
/// # Errors
///
/// Loopback has no port left.
pub fn gateway_config(certificates: &Certificates, directory: &Path) -> anyhow::Result<Value> {
    Ok(json!({
        "gateway": {"id": "bench", "data_dir": directory.join("data")},
        "listeners": [
            {"bind": "127.0.0.1:0", "identity": "{client_id}"},
            {
                "bind": "127.0.0.1:0",
                "names": ["localhost", "127.0.0.1"],
                "identity": "{client_id}",
                "tls": {"certificate": certificates.server, "key": certificates.server_key, "client_ca": certificates.ca},
            },
        ],
        "cloud": {"profile": "mqtt", "endpoint": "127.0.0.1", "port": free_port()?},
        "admin": {"bind": "127.0.0.1:0"},
    }))
}

/// Starts a gateway with such a configuration; what it logs goes to `directory`.
///
/// # Errors
///
/// As [`Server::announced`].
pub fn start_gateway(program: &Path, config: &Value, directory: &Path) -> anyhow::Result<Server> {
    // JSON is YAML, and quotes itself.
    let path = directory.join("forebay.yaml");
    fs::write(&path, serde_json::to_string_pretty(config)?)?;
    let mut command = Command::new(program);
    // The environment that config/forebay.service gives it.
    command.arg("run").arg("-c").arg(&path).env("MALLOC_ARENA_MAX", "1");
    Server::announced(command, directory)
}
