//! The self-check, at start and every hour: what `forebay check` knows, the file against what runs, and what expires.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_wal::Log;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::certs::inspect::{crl_ends, first_end};
use crate::check::{self, CheckOptions, Report};
use crate::config::{self, Config, Overrides};

const EVERY: Duration = Duration::from_secs(3600);

/// Where the configuration came from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The file.
    pub(crate) path: PathBuf,
    /// What was laid over it.
    pub(crate) overrides: Overrides,
}

/// The file against what runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FileState {
    /// A restart changes nothing.
    #[default]
    Same,
    /// A restart brings other settings.
    Differs,
    /// A restart fails.
    Broken,
}

/// All states, for the gauge.
pub(crate) const FILE_STATES: [FileState; 3] = [FileState::Same, FileState::Differs, FileState::Broken];

/// A file that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// `certificate`, `device_ca`, `crl`, `cloud_certificate` or `cloud_ca`.
    pub(crate) what: &'static str,
    /// Which.
    pub(crate) file: String,
    /// The first end in it, in seconds since 1970.
    pub(crate) ends: i64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Findings {
    /// When, in seconds since 1970 by the machine's clock.
    pub(crate) at: u64,
    /// What `forebay check` found.
    pub(crate) report: Report,
    /// The file against what runs.
    pub(crate) file: FileState,
    /// Why the file is broken; empty if it is not.
    pub(crate) fault: String,
    /// What ends, and when.
    pub(crate) expiries: Vec<Expiry>,
    /// Errors in the file system of the log that the kernel has counted since the first check.
    pub(crate) new_errors: u64,
}

/// The newest findings. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelfCheck(Arc<Newest>);

#[derive(Debug, Default)]
struct Newest {
    findings: Mutex<Option<Arc<Findings>>>,
    /// Errors in the file system that the kernel had counted at the first check.
    first_errors: OnceLock<u64>,
    again: Notify,
}

impl FileState {
    /// The label's text.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Broken => "broken",
        }
    }
}

impl SelfCheck {
    /// The newest findings; none before the first check has ended.
    #[must_use]
    pub(crate) fn findings(&self) -> Option<Arc<Findings>> {
        self.lock().clone()
    }

    /// Has it checked now, not within the hour.
    pub(crate) fn again(&self) {
        self.0.again.notify_one();
    }

    /// Checks at once and every hour until shutdown, on the blocking pool.
    pub(crate) async fn run(
        self,
        config: Arc<Config>,
        origin: Arc<Origin>,
        log: Log,
        now: impl Fn() -> SystemTime + Send,
        shutdown: CancellationToken,
    ) {
        loop {
            let (config, origin, log, now) = (Arc::clone(&config), Arc::clone(&origin), log.clone(), now());
            let looking = move || {
                let errors = check::Kernel::of(&config.gateway.data_dir).errors.unwrap_or(0);
                (check(&config, &origin, log.status().disk_bytes, now), errors)
            };
            let found = tokio::task::spawn_blocking(looking).await;
            match found {
                Ok((mut findings, errors)) => {
                    let first = self.0.first_errors.get_or_init(|| errors);
                    findings.new_errors = errors.saturating_sub(*first);
                    *self.lock() = Some(Arc::new(findings));
                }
                Err(error) => tracing::error!(%error, "the self-check failed"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.0.again.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Findings>>> {
        self.0.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at everything. Blocks on the disk. `taken` = bytes that the log takes already; certificates are judged at `now`.
pub(crate) fn check(config: &Config, origin: &Origin, taken: u64, now: SystemTime) -> Findings {
    let options = CheckOptions {
        taken,
        ..CheckOptions::default()
    };
    let (file, fault) = match config::load_to_run(&origin.path, &origin.overrides) {
        Ok((found, _)) if found.fingerprint == config.fingerprint => (FileState::Same, String::new()),
        Ok(_) => (FileState::Differs, String::new()),
        Err(error) => (FileState::Broken, error.to_string()),
    };
    Findings {
        at: forebay_wal::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        report: check::run_at(config, &options, now),
        file,
        fault,
        expiries: expiries(config),
        new_errors: 0,
    }
}

fn expiries(config: &Config) -> Vec<Expiry> {
    let mut found: Vec<Expiry> = Vec::new();
    let mut note = |what, path: &std::path::Path, ends: Option<i64>| {
        let file = path.display().to_string();
        let is_known = found.iter().any(|known| known.what == what && known.file == file);
        if let Some(ends) = ends.filter(|_| !is_known) {
            found.push(Expiry { what, file, ends });
        }
    };
    for tls in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        note("certificate", &tls.certificate, first_end(&tls.certificate));
        note("device_ca", &tls.client_ca, first_end(&tls.client_ca));
        if let Some(crl) = &tls.crl {
            note("crl", crl, crl_ends(crl));
        }
    }
    if let Some(tls) = config.cloud.as_ref().and_then(|cloud| cloud.tls.as_ref()) {
        if let Some(identity) = &tls.identity {
            note("cloud_certificate", &identity.certificate, first_end(&identity.certificate));
        }
        if let Some(ca) = &tls.ca {
            note("cloud_ca", ca, first_end(ca));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "gateway: {id: g, data_dir: d, survive: {outage: 1m, rate: 1/s}}\nlisteners: [{bind: \"127.0.0.1:0\"}]\n";

    fn checked(running: &str, on_disk: &str) -> Findings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.yaml");
        let config = config::parse(running, folder.path(), &Overrides::default()).unwrap();
        std::fs::write(&path, on_disk).unwrap();
        let origin = Origin {
            path,
            overrides: Overrides::default(),
        };
        check(&config, &origin, 0, forebay_wal::wall_clock())
    }

    #[test]
    fn the_file_is_held_against_what_runs() {
        assert_eq!(checked(CONFIG, CONFIG).file, FileState::Same);
        assert_eq!(checked(CONFIG, &CONFIG.replace("1m", "2m")).file, FileState::Differs);
        let broken = checked(CONFIG, &CONFIG.replace("id: g", "idd: g"));
        assert_eq!(broken.file, FileState::Broken);
        assert!(broken.fault.contains("idd"), "{}", broken.fault);
    }
}
