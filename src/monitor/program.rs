//! The program on disk, after this process was started from it: an upgrade replaces it, and the old one runs on for weeks.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file that this process was started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    path: PathBuf,
    file: Identity,
}

/// What tells a file from another of its name. A package manager writes a new file and renames it; a copy in place changes the rest.
type Identity = (u64, u64, u64, i64, i64);

impl Program {
    /// The running one; `None` where the kernel does not tell, or the file is gone already.
    pub(crate) fn running() -> Option<Self> {
        Self::at(&std::env::current_exe().ok()?)
    }

    fn at(path: &Path) -> Option<Self> {
        let file = identity(&std::fs::metadata(path).ok()?);
        Some(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Whether another program is at its place now. That none is there is an upgrade under way, or a removal. Blocks on the disk.
    pub(crate) fn is_replaced(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| identity(&found) != self.file)
    }
}

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k29_a_program_that_was_replaced_while_it_runs_is_noticed() {
        assert!(!Program::running().unwrap().is_replaced());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay");
        std::fs::write(&path, "old").unwrap();
        let program = Program::at(&path).unwrap();
        assert!(!program.is_replaced());
        std::fs::remove_file(&path).unwrap();
        assert!(!program.is_replaced(), "an upgrade under way");
        std::fs::write(folder.path().join("new"), "new").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(program.is_replaced());
        assert_eq!(Program::at(&folder.path().join("none")), None);
    }
}
