//! Syncs of the gateway's disk, answered as the test wants it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::gateway::Gateway;

/// A library that answers `fsync` and `fdatasync` from a file, for a process to be started with.
pub struct Syncs {
    library: PathBuf,
    file: PathBuf,
}

impl Syncs {
    /// Builds the library in `folder`. The disk is well until it is told otherwise.
    pub fn new(folder: &Path) -> Self {
        let syncs = Self {
            library: folder.join("sync.so"),
            file: folder.join("sync"),
        };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/sync.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&syncs.library)
            .arg(source)
            .status()
            .expect("a C compiler is there, as the build needs one");
        assert!(built.success(), "{source} is not built");
        syncs
    }

    /// `stands`, `unknown` (that of a directory) or `well`, from the next sync on; what stands goes on when it is told otherwise.
    pub fn say(&self, answer: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, answer).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Runs the gateway on this disk.
    pub fn under(&self, gateway: Gateway) -> Gateway {
        let preload = format!("LD_PRELOAD={}", self.library.display());
        gateway.through(&["env", &preload, &format!("SYNC_FILE={}", self.file.display())])
    }
}
