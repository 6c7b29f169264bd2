//! The TLS files of listeners after they were read: this version reads them once, when a listener opens, so what is replaced on disk
//! later is not in use. That is looked for, and told.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_broker::tls::{CertificateClock, ServerTls, TlsFiles};
use tokio_util::sync::CancellationToken;

use super::program::{Identity, Program};
use super::self_check::SelfCheck;

/// How often the files are compared with what is in use.
const LOOK: Duration = Duration::from_secs(15);

/// What a listener has read.
#[derive(Clone, Debug)]
pub(crate) struct UsedFiles {
    files: TlsFiles,
    clock: CertificateClock,
    /// A hash of each file's bytes by its path, `None` if it could not be read.
    hashes: BTreeMap<PathBuf, Option<u64>>,
}

impl UsedFiles {
    /// These files as they are now, judged by this clock. Blocks on the disk.
    pub(crate) fn of(files: &TlsFiles, clock: &CertificateClock) -> Self {
        let paths = [&files.certificate, &files.key, &files.client_ca].into_iter().chain(&files.crl);
        Self {
            files: files.clone(),
            clock: clock.clone(),
            hashes: paths.map(|path| (path.clone(), hash(path))).collect(),
        }
    }

    /// Those that are others on disk now, and whether a listener could open with them.
    fn stale(&self) -> Vec<StaleFile> {
        let changed = self.hashes.iter().filter(|(path, before)| hash(path) != **before);
        let changed: Vec<_> = changed.map(|(path, _)| path.clone()).collect();
        if changed.is_empty() {
            return Vec::new();
        }
        let fault = ServerTls::load(&self.files, &self.clock)
            .err()
            .map(|error| format!("{:#}", anyhow::Error::from(error)));
        let stale = |path| StaleFile {
            path,
            fault: fault.clone(),
        };
        changed.into_iter().map(stale).collect()
    }
}

/// A file of a listener that is another on disk than the one in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StaleFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Why a listener could not open with the files as they are on disk now.
    pub(crate) fault: Option<String>,
}

impl fmt::Display for StaleFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            None => write!(
                f,
                "{path} has changed on disk; the running gateway reads it at the start only and still uses the old one: restart the gateway"
            ),
            Some(why) => write!(
                f,
                "{path} has changed on disk, and the new file cannot be used: {why}; do not restart the gateway before that is fixed: it still uses the old one"
            ),
        }
    }
}

/// The files that all open listeners use, and the program. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenerFiles(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    used: BTreeMap<String, UsedFiles>,
    /// Those that are others on disk now.
    stale: Vec<StaleFile>,
    program: Option<Program>,
    /// What replaced it, and the version of that, if it says one.
    replaced: Option<(Identity, Option<String>)>,
}

impl ListenerFiles {
    /// Of a gateway that starts now.
    pub(crate) fn of_this_process() -> Self {
        let files = Self::default();
        files.lock().program = Program::running();
        files
    }

    /// The listener has opened with these.
    pub(crate) fn uses(&self, listener: &str, files: UsedFiles) {
        self.lock().used.insert(listener.to_owned(), files);
    }

    /// The files that have changed on disk and are not in use so.
    pub(crate) fn stale(&self) -> Vec<StaleFile> {
        self.lock().stale.clone()
    }

    /// Whether the program on disk is another than the one that runs.
    pub(crate) fn restart_is_pending(&self) -> bool {
        self.lock().replaced.is_some()
    }

    /// The version of that one, if it says one.
    pub(crate) fn installed_version(&self) -> Option<String> {
        self.lock().replaced.clone()?.1
    }

    /// Compares every 15 seconds until shutdown, on the blocking pool; what the self-check says of files is looked up anew when
    /// something has changed.
    pub(crate) async fn run(self, check: SelfCheck, shutdown: CancellationToken) {
        while tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_err() {
            let files = self.clone();
            match tokio::task::spawn_blocking(move || files.look()).await {
                Ok(new) => {
                    for file in &new {
                        tracing::error!("a file of a listener: {file}");
                    }
                    if !new.is_empty() {
                        check.again();
                    }
                }
                Err(error) => tracing::error!(%error, "the listeners' files could not be compared"),
            }
        }
    }

    /// Compares once. Returns what is stale since the last time, or has become usable or unusable since.
    fn look(&self) -> Vec<StaleFile> {
        let (program, known) = {
            let state = self.lock();
            (state.program.clone(), state.replaced.clone())
        };
        let replaced = program.and_then(|program| {
            let by = program.replaced_by()?;
            // The file is large: it is searched once.
            known
                .filter(|(before, _)| *before == by)
                .or_else(|| Some((by, program.installed_version())))
        });
        let used: Vec<_> = self.lock().used.values().cloned().collect();
        let mut stale: Vec<_> = used.iter().flat_map(UsedFiles::stale).collect();
        stale.sort();
        stale.dedup();
        let mut state = self.lock();
        let new = stale.iter().filter(|file| !state.stale.contains(file)).cloned().collect();
        state.stale = stale;
        if replaced.is_some() && state.replaced.is_none() {
            tracing::warn!("the program on disk has been replaced; this process runs the old one until the gateway is restarted");
        }
        state.replaced = replaced;
        new
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a file's bytes; `None` if it cannot be read.
fn hash(path: &Path) -> Option<u64> {
    let bytes = std::fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn paths(files: Vec<StaleFile>) -> Vec<PathBuf> {
        files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn b4_any_file_of_a_listener_that_changes_is_stale_until_it_is_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = ["server.pem", "server.key", "devices-ca.pem", "devices.crl"];
        names.iter().for_each(|name| std::fs::write(at(name), name).unwrap());
        let files = TlsFiles {
            certificate: at("server.pem"),
            key: at("server.key"),
            client_ca: at("devices-ca.pem"),
            crl: Some(at("devices.crl")),
        };
        let used = ListenerFiles::default();
        let clock = CertificateClock::fixed(SystemTime::UNIX_EPOCH);
        used.uses("0.0.0.0:8883", UsedFiles::of(&files, &clock));
        used.uses("0.0.0.0:8884", UsedFiles::of(&files, &clock));
        for name in names {
            assert_eq!(used.look(), []);
            std::fs::write(at(name), "another").unwrap();
            assert_eq!(
                (paths(used.look()), paths(used.stale())),
                (vec![at(name)], vec![at(name)]),
                "once for two listeners"
            );
            assert_eq!(
                (paths(used.look()), paths(used.stale())),
                (vec![], vec![at(name)]),
                "it is told once"
            );
            std::fs::remove_file(at(name)).unwrap();
            used.look();
            assert_eq!(paths(used.stale()), [at(name)], "gone");
            std::fs::write(at(name), name).unwrap();
            used.look();
            assert_eq!(used.stale(), []);
        }
    }

    /// What `forebay certs` makes, in a folder.
    fn made() -> (tempfile::TempDir, TlsFiles) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["gateway.local".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        std::fs::write(at("server.pem"), certificate.pem()).unwrap();
        std::fs::write(at("server.key"), key.serialize_pem()).unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(at("devices-ca.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
        let files = TlsFiles {
            certificate: at("server.pem"),
            key: at("server.key"),
            client_ca: at("devices-ca.pem"),
            crl: None,
        };
        (folder, files)
    }

    #[test]
    fn a_file_that_is_replaced_by_one_that_cannot_be_used_asks_for_no_restart() {
        let (_folder, files) = made();
        let clock = CertificateClock::fixed(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        ServerTls::load(&files, &clock).unwrap();
        let used = ListenerFiles::default();
        used.uses("0.0.0.0:8883", UsedFiles::of(&files, &clock));

        let before = std::fs::read(&files.certificate).unwrap();
        std::fs::write(&files.certificate, "garbage").unwrap();
        let told = used.look();
        let text = told[0].to_string();
        assert!(
            text.contains("the new file cannot be used: ") && text.contains("do not restart"),
            "{text}"
        );
        assert!(!text.contains(": restart the gateway"), "{text}");

        // Another one that can be used is told anew, with the other advice.
        let other = [before.as_slice(), b"\n"].concat();
        std::fs::write(&files.certificate, other).unwrap();
        let told = used.look();
        assert_eq!((told.len(), told[0].fault.as_deref()), (1, None));
        assert!(told[0].to_string().ends_with(": restart the gateway"), "{}", told[0]);
    }
}
