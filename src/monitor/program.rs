//! The program on disk, after this process was started from it: an upgrade replaces it, and the old one runs on for weeks.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Stands in each program, so that one which runs can read what another file on disk is.
static MARK: &str = concat!("this is the program forebay of version ", env!("CARGO_PKG_VERSION"), ";");
/// The longest version that is believed.
const LONGEST_VERSION: usize = 40;
/// A file that is larger is no program of ours.
const LARGEST: u64 = 512 << 20;
/// How much of a file is searched at a time.
const PIECE: usize = 1 << 20;

/// The file that this process was started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    path: PathBuf,
    file: Identity,
}

/// What tells a file from another of its name. A package manager writes a new file and renames it; a copy in place changes the rest.
pub(super) type Identity = (u64, u64, u64, i64, i64);

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

    /// Which other program is at its place now, if one is. That none is there is an upgrade under way, or a removal. Blocks on the disk.
    pub(super) fn replaced_by(&self) -> Option<Identity> {
        let found = std::fs::metadata(&self.path).ok()?;
        Some(identity(&found)).filter(|found| *found != self.file)
    }

    /// The version of the program that is at its place now; `None` if that does not say. It is read, not run. Blocks on the disk.
    pub(super) fn installed_version(&self) -> Option<String> {
        version_in(File::open(&self.path).ok()?)
    }
}

/// The version that a program says in its bytes.
fn version_in(file: File) -> Option<String> {
    // The compiler must not leave it out as unused.
    let mark = std::hint::black_box(MARK).as_bytes();
    let needle = &mark[..mark.len() - env!("CARGO_PKG_VERSION").len() - 1];
    let mut file = file.take(LARGEST);
    let mut window = Vec::new();
    loop {
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut window).ok()?;
        let places = window.windows(needle.len()).enumerate().filter(|(_, bytes)| *bytes == needle);
        let found = places.filter_map(|(at, _)| version_at(&window[at + needle.len()..])).next();
        if found.is_some() || read == 0 {
            return found;
        }
        // What may be the beginning of one.
        let kept = window.len().saturating_sub(needle.len() + LONGEST_VERSION + 1);
        window.drain(..kept);
    }
}

/// A version that ends with a semicolon.
fn version_at(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(LONGEST_VERSION + 1).position(|byte| *byte == b';')?;
    let version = std::str::from_utf8(&bytes[..end]).ok()?;
    let is_version = version.chars().all(|char| char.is_ascii_alphanumeric() || ".-+".contains(char));
    (is_version && !version.is_empty()).then(|| version.to_owned())
}

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k29_a_program_that_was_replaced_while_it_runs_is_noticed() {
        assert_eq!(Program::running().unwrap().replaced_by(), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay");
        std::fs::write(&path, "old").unwrap();
        let program = Program::at(&path).unwrap();
        assert_eq!(program.replaced_by(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(program.replaced_by(), None, "an upgrade under way");
        std::fs::write(folder.path().join("new"), "new").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(program.replaced_by().is_some());
        assert_eq!(Program::at(&folder.path().join("none")), None);
    }

    #[test]
    fn k29_the_version_of_a_program_is_read_from_its_file() {
        // This one is a program with the mark in it.
        assert_eq!(
            Program::running().unwrap().installed_version().as_deref(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay");
        let mark = MARK.split_once(env!("CARGO_PKG_VERSION")).unwrap().0;
        let version_of = |before: usize, text: &str| {
            std::fs::write(&path, [vec![b'.'; before], text.as_bytes().to_vec()].concat()).unwrap();
            Program::at(&path).unwrap().installed_version()
        };
        for before in [0, 7, PIECE - 60, PIECE - 30, PIECE - 1, PIECE, 2 * PIECE - 10] {
            let found = version_of(before, &format!("{mark}12.3.4-rc.1;..."));
            assert_eq!(found.as_deref(), Some("12.3.4-rc.1"), "after {before} bytes");
        }
        for text in [
            "",
            mark,
            &format!("{mark};"),
            &format!("{mark}1\u{1b}[2J;"),
            &format!("{mark}{};", "1".repeat(99)),
        ] {
            assert_eq!(version_of(3, text), None, "{text:?}");
        }
    }
}
