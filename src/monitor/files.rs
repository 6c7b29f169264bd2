//! The TLS files of listeners after they were read: this version reads them once, when a listener opens, so what is replaced on disk
//! later is not in use. That is looked for, and told.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_broker::tls::TlsFiles;
use tokio_util::sync::CancellationToken;

use super::program::Program;
use super::self_check::SelfCheck;

/// How often the files are compared with what is in use.
const LOOK: Duration = Duration::from_secs(15);

/// What a listener has read, by path: a hash of each file's bytes, `None` if it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsedFiles(BTreeMap<PathBuf, Option<u64>>);

impl UsedFiles {
    /// These files as they are now. Blocks on the disk.
    pub(crate) fn of(files: &TlsFiles) -> Self {
        let paths = [&files.certificate, &files.key, &files.client_ca].into_iter().chain(&files.crl);
        Self(paths.map(|path| (path.clone(), hash(path))).collect())
    }
}

/// The files that all open listeners use, and the program. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenerFiles(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    used: BTreeMap<String, UsedFiles>,
    /// Those that are others on disk now.
    stale: Vec<PathBuf>,
    program: Option<Program>,
    is_replaced: bool,
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
    pub(crate) fn stale(&self) -> Vec<PathBuf> {
        self.lock().stale.clone()
    }

    /// Whether the program on disk is another than the one that runs.
    pub(crate) fn restart_is_pending(&self) -> bool {
        self.lock().is_replaced
    }

    /// Compares every 15 seconds until shutdown, on the blocking pool; what the self-check says of files is looked up anew when
    /// something has changed.
    pub(crate) async fn run(self, check: SelfCheck, shutdown: CancellationToken) {
        while tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_err() {
            let files = self.clone();
            match tokio::task::spawn_blocking(move || files.look()).await {
                Ok(new) => {
                    for path in &new {
                        tracing::error!(
                            path = %path.display(),
                            "a file of a listener has changed on disk; this version reads it at the start only and still uses the old one: restart the gateway"
                        );
                    }
                    if !new.is_empty() {
                        check.again();
                    }
                }
                Err(error) => tracing::error!(%error, "the listeners' files could not be compared"),
            }
        }
    }

    /// Compares once. Returns what has become stale since the last time.
    fn look(&self) -> Vec<PathBuf> {
        let program = self.lock().program.clone();
        let is_replaced = program.is_some_and(|program| program.is_replaced());
        let used: Vec<_> = self.lock().used.values().flat_map(|used| used.0.clone()).collect();
        let mut stale: Vec<_> = used
            .into_iter()
            .filter(|(path, before)| hash(path) != *before)
            .map(|(path, _)| path)
            .collect();
        stale.sort();
        stale.dedup();
        let mut state = self.lock();
        let new = stale.iter().filter(|path| !state.stale.contains(path)).cloned().collect();
        state.stale = stale;
        if is_replaced && !state.is_replaced {
            tracing::warn!("the program on disk has been replaced; this process runs the old one until the gateway is restarted");
        }
        state.is_replaced = is_replaced;
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
    use super::*;

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
        used.uses("0.0.0.0:8883", UsedFiles::of(&files));
        used.uses("0.0.0.0:8884", UsedFiles::of(&files));
        for name in names {
            assert_eq!(used.look(), Vec::<PathBuf>::new());
            std::fs::write(at(name), "another").unwrap();
            assert_eq!(
                (used.look(), used.stale()),
                (vec![at(name)], vec![at(name)]),
                "once for two listeners"
            );
            assert_eq!((used.look(), used.stale()), (vec![], vec![at(name)]), "it is told once");
            std::fs::remove_file(at(name)).unwrap();
            used.look();
            assert_eq!(used.stale(), [at(name)], "gone");
            std::fs::write(at(name), name).unwrap();
            used.look();
            assert_eq!(used.stale(), Vec::<PathBuf>::new());
        }
    }
}
