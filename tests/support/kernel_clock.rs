//! What the kernel says of its clock, as the test wants it: the machine's own answer is not the test's to change.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::gateway::Gateway;

/// A library that answers `adjtimex` from a file, for a process to be started with.
pub struct KernelClock {
    library: PathBuf,
    file: PathBuf,
}

impl KernelClock {
    /// Builds the library in `folder`. The clock is synchronised until it is told otherwise.
    pub fn new(folder: &Path) -> Self {
        let clock = Self {
            library: folder.join("adjtimex.so"),
            file: folder.join("adjtimex"),
        };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/adjtimex.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&clock.library)
            .arg(source)
            .status()
            .expect("a C compiler is there, as the build needs one");
        assert!(built.success(), "{source} is not built");
        clock.say("synchronised");
        clock
    }

    /// `synchronised`, `unsynchronised` or `refused`, from the next question on.
    pub fn say(&self, answer: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, answer).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Runs the gateway with this kernel.
    pub fn under(&self, gateway: Gateway) -> Gateway {
        let preload = format!("LD_PRELOAD={}", self.library());
        gateway.through(&["env", &preload, &self.variable()])
    }

    /// The library's path, for `LD_PRELOAD`.
    pub fn library(&self) -> String {
        self.library.display().to_string()
    }

    /// The variable that the library reads.
    pub fn variable(&self) -> String {
        format!("ADJTIMEX_FILE={}", self.file.display())
    }
}
