//! Which log a command is about, and how it is reached: a running gateway's through its admin API, a stopped one's
//! directory under its lock. Which of the two it is, the lock says.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use forebay_wal::{InspectError, Inspector, Log, Observer, OpenError};

use super::client::Client;
use super::failure::Failure;
use crate::cli::ConfigArgs;
use crate::cli::admin_api::UrlArgs;
use crate::config::Config;
use crate::gateway;
use crate::inspect::{self, About, AuditLine, Change, Changed, ClockLine, Line, Selection, Stat};

/// Where the log is.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PlaceArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    url: UrlArgs,
}

/// Which log, and how to show it.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A log that can be asked.
pub(super) enum Access {
    Running(Box<Client>),
    Stopped(Box<StoppedLog>),
}

pub(super) struct StoppedLog {
    pub(super) config: Config,
    about: About,
    inspector: Option<Inspector>,
}

impl PlaceArgs {
    /// Finds the log, and how to reach it.
    pub(super) fn open(&self) -> Result<Access, Failure> {
        if let Some(api) = self.url.api().map_err(Failure::Failed)? {
            let unreachable = format!("no gateway answers at http://{}", api.address());
            return Ok(Access::Running(Box::new(Client::new(api, unreachable)?)));
        }
        let config = self
            .config
            .load_settings()
            .map_err(|error| Failure::Configuration(crate::cli::report(&error)))?;
        let directory = gateway::log_directory(&config);
        match Inspector::stopped(&directory) {
            Ok(inspector) => {
                let clock = gateway::clock();
                clock.remember(inspector.last_trusted());
                Ok(Access::Stopped(Box::new(StoppedLog {
                    about: About::new(&config, clock),
                    config,
                    inspector: Some(inspector),
                })))
            }
            Err(InspectError::Locked { path }) => {
                let api = self.url.api_of(&config.admin).map_err(Failure::Failed)?;
                let unreachable = format!(
                    "a running Forebay holds {}, but its admin API does not answer at http://{}; if it runs with another admin.bind, \
                     name that with --url http://HOST:PORT, and if it is only starting, try again",
                    path.display(),
                    api.address()
                );
                Ok(Access::Running(Box::new(Client::new(api, unreachable)?)))
            }
            Err(error @ InspectError::NoLog { .. }) => {
                let advice = format!("{error}: has the gateway run yet? Is gateway.data_dir or -c FILE right?");
                Err(Failure::Failed(anyhow!(advice)))
            }
            Err(error @ InspectError::Unreadable { .. }) => {
                let advice = format!("`forebay log salvage {} --all` takes out the whole records", directory.display());
                Err(Failure::Disk(anyhow!(error).context(advice)))
            }
            Err(error) => Err(Failure::Disk(error.into())),
        }
    }
}

impl Access {
    pub(super) fn stat(&self) -> Result<Stat, Failure> {
        match self {
            Self::Running(client) => client.object("/log/stat"),
            Self::Stopped(stopped) => Ok(inspect::stat(&stopped.about, stopped.inspector()?, None)),
        }
    }

    pub(super) fn clock(&self) -> Result<ClockLine, Failure> {
        match self {
            Self::Running(client) => client.object("/clock"),
            Self::Stopped(stopped) => {
                let last_trusted = stopped.inspector()?.last_trusted();
                Ok(inspect::clock(&stopped.about.clock.report(), last_trusted))
            }
        }
    }

    pub(super) fn audit(&self) -> Result<AuditLine, Failure> {
        match self {
            Self::Running(client) => client.object("/audit"),
            Self::Stopped(stopped) => inspect::audit(stopped.inspector()?).map_err(disk),
        }
    }

    pub(super) fn segments(&self, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        match self {
            Self::Running(client) => client.lines("/log/segments", see),
            Self::Stopped(stopped) => inspect::segments(stopped.inspector()?, see).map_err(disk),
        }
    }

    pub(super) fn verify(&self, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        match self {
            Self::Running(client) => client.lines("/log/verify", see),
            Self::Stopped(stopped) => {
                inspect::verify(stopped.inspector()?, see);
                Ok(())
            }
        }
    }

    pub(super) fn records(&self, selection: &Selection, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        match self {
            Self::Running(client) => client.lines(&format!("/log/records?{}", selection.query()), see),
            Self::Stopped(stopped) => inspect::records(&stopped.about.gateway, stopped.inspector()?, selection, see).map_err(failed),
        }
    }

    pub(super) fn tail(&self, selection: &Selection, count: usize, follow: bool, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        match self {
            Self::Running(client) => client.lines(&format!("/log/records?tail={count}&follow={follow}&{}", selection.query()), see),
            Self::Stopped(_) if follow => {
                let advice = "the gateway is not running, so there are no new records; leave --follow out, or start it with `forebay run`";
                Err(Failure::Failed(anyhow!(advice)))
            }
            Self::Stopped(stopped) => inspect::tail(&stopped.about.gateway, stopped.inspector()?, selection, count, see).map_err(failed),
        }
    }

    pub(super) fn letters(&self, selection: &Selection, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        match self {
            Self::Running(client) => client.lines(&format!("/dead/records?{}", selection.query()), see),
            Self::Stopped(stopped) => {
                let inspector = stopped.inspector()?;
                selection.streams(inspector).map_err(failed)?;
                inspect::letters(&stopped.about.gateway, inspector, selection, see);
                Ok(())
            }
        }
    }
}

impl Access {
    /// Changes the log: through the running gateway, or by opening the stopped one's for as long as it takes.
    pub(super) fn change(&mut self, change: &Change) -> Result<Changed, Failure> {
        match self {
            Self::Running(client) => match change {
                Change::Requeue(numbers) => client.post("/dead/requeue", numbers),
                Change::Drop(numbers) => client.post("/dead/drop", numbers),
                Change::Replay(numbers) => client.post("/log/replay", numbers),
                Change::ForgetTime => client.post("/clock/reset", &()),
            },
            Self::Stopped(stopped) => stopped.change(change),
        }
    }
}

/// Nobody watches the commits of a command.
struct Unobserved;

impl Observer for Unobserved {
    fn committed(&self, _latency: Duration, _records: u64, _bytes: u64) {}
}

impl StoppedLog {
    /// The lock for looking goes, the log is opened, changed and closed, and the lock is taken again.
    fn change(&mut self, change: &Change) -> Result<Changed, Failure> {
        self.inspector = None;
        let opened = Log::open(gateway::log_options(&self.config), gateway::clock(), Arc::new(Unobserved), None);
        let opened = opened.map_err(|error| match error {
            OpenError::Locked { .. } => Failure::Failed(anyhow!("{error}; the gateway was started meanwhile: run this again")),
            error => Failure::Disk(error.into()),
        })?;
        let changed = inspect::change(&opened.log, change).map_err(disk);
        opened.log.close().map_err(|error| Failure::Disk(error.into()))?;
        drop(opened);
        self.inspector = Inspector::stopped(&gateway::log_directory(&self.config)).ok();
        changed
    }

    fn inspector(&self) -> Result<&Inspector, Failure> {
        self.inspector
            .as_ref()
            .ok_or_else(|| Failure::Internal(anyhow!("the log is being changed")))
    }
}

fn failed(reason: String) -> Failure {
    Failure::Failed(anyhow!(reason))
}

fn disk(reason: String) -> Failure {
    Failure::Disk(anyhow!(reason))
}
