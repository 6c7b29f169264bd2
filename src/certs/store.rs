//! Files that are either whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file to be written.
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) content: String,
    pub(super) secret: bool,
}

/// Why files were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Overwriting was not asked for.
    #[error("{} exists; give --force to replace it, or another --dir", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot write {}; check the folder's owner and free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Refuses if any of `paths` exists and `force` is not given.
pub(super) fn check_free<'a>(paths: impl IntoIterator<Item = &'a Path>, force: bool) -> Result<(), StoreError> {
    let taken = paths.into_iter().find(|path| !force && path.symlink_metadata().is_ok());
    taken.map_or(Ok(()), |path| Err(StoreError::Exists { path: path.to_owned() }))
}

/// Writes all `files`, which lie in one folder.
///
/// 1. Every file is complete and synced under a temporary name.
/// 2. Each is renamed to its place, refusing to replace one without `force`.
/// 3. The folder is synced.
///
/// A failure before step 2 leaves everything as it was.
pub(super) fn write_all(files: &[NewFile], force: bool) -> Result<(), StoreError> {
    check_free(files.iter().map(|file| file.path.as_path()), force)?;
    let mut staged = Staged::default();
    for file in files {
        staged.add(file).map_err(|source| StoreError::Write {
            path: file.path.clone(),
            source,
        })?;
    }
    for (file, temporary) in files.iter().zip(&staged.paths) {
        place(temporary, &file.path, force).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists { path: file.path.clone() },
            _ => StoreError::Write {
                path: file.path.clone(),
                source,
            },
        })?;
    }
    match files.first().map(|file| parent(&file.path)) {
        Some(folder) => File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| StoreError::Write {
                path: folder.to_owned(),
                source,
            }),
        None => Ok(()),
    }
}

/// Temporary files, removed when dropped: after the renames there is nothing left to remove.
#[derive(Default)]
struct Staged {
    paths: Vec<PathBuf>,
}

impl Staged {
    fn add(&mut self, file: &NewFile) -> io::Result<()> {
        let folder = parent(&file.path);
        fs::create_dir_all(folder)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = folder.join(format!(".forebay-{:016x}.tmp", u64::from_le_bytes(random)));
        let mode = if file.secret { 0o600 } else { 0o644 };
        let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        self.paths.push(path);
        target.write_all(file.content.as_bytes())?;
        target.sync_all()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in &self.paths {
            // Those that were renamed are gone, which is what we want of all.
            fs::remove_file(path).ok();
        }
    }
}

fn place(from: &Path, to: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot; the check before is then all there is.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        outcome => outcome.map_err(io::Error::from),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pair(folder: &Path, content: &str) -> [NewFile; 2] {
        [("a.key", true), ("a.pem", false)].map(|(name, secret)| NewFile {
            path: folder.join("new").join(name),
            content: content.to_owned(),
            secret,
        })
    }

    #[test]
    fn nothing_is_overwritten_without_force_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        write_all(&pair(folder.path(), "one"), false).unwrap();
        fs::remove_file(inner.join("a.key")).unwrap();

        let refused = write_all(&pair(folder.path(), "two"), false).unwrap_err();
        assert!(matches!(refused, StoreError::Exists { path } if path.ends_with("a.pem")));
        assert_eq!(fs::read_to_string(inner.join("a.pem")).unwrap(), "one");
        assert!(!inner.join("a.key").exists());

        write_all(&pair(folder.path(), "three"), true).unwrap();
        assert_eq!(fs::read_to_string(inner.join("a.pem")).unwrap(), "three");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 2);
    }

    #[test]
    fn a_key_is_its_owners_only_even_when_it_replaces_an_open_one() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("new/a.key");
        fs::create_dir(key.parent().unwrap()).unwrap();
        fs::write(&key, "open to all").unwrap();
        write_all(&pair(folder.path(), "secret"), true).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("new"), "a file").unwrap();
        let error = write_all(&pair(folder.path(), "x"), false).unwrap_err();
        assert!(matches!(error, StoreError::Write { .. }), "{error}");
    }
}
