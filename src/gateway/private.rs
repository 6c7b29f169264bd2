//! What the gateway writes is for its own user: what devices sent is in it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What others than the owner may do.
const OTHERS: u32 = 0o077;

/// From now on what this process makes is for its user only, whatever umask it was started with.
pub(crate) fn make_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(OTHERS));
}

/// Takes from others what an earlier release, or another umask, has left them of the data directory. What cannot be changed is
/// named in the log. Blocks on the disk.
pub(super) fn close_to_others(data_dir: &Path) {
    let log = data_dir.join("log");
    let (mut others, mut closed) = (false, 0);
    let mut close = |path: &Path| match narrow(path) {
        Ok(changed) => closed += u64::from(changed),
        Err(error) => tracing::warn!(
            path = %path.display(),
            %error,
            "others than the gateway's user may use this file, and that cannot be changed; chmod and chown it"
        ),
    };
    for entry in entries(data_dir) {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(is_ours);
        others |= !is_ours;
        if is_ours {
            close(&entry.path());
        }
    }
    entries(&log).for_each(|entry| close(&entry.path()));
    // A directory that holds other things too may be meant to be shared.
    if !others {
        close(data_dir);
    }
    if closed > 0 {
        tracing::info!(directory = %data_dir.display(), closed, "files in the data directory were open to others; they are the gateway's alone now");
    }
}

fn is_ours(name: &str) -> bool {
    name == "log" || ["state.redb", "watch.json"].iter().any(|ours| name.starts_with(ours))
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok)
}

/// Whether something had to be taken from others. Links are left alone.
fn narrow(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // The log may have deleted it since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mode = match found.file_type() {
        kind if kind.is_file() => FILE_MODE,
        kind if kind.is_dir() => DIRECTORY_MODE,
        _ => return Ok(false),
    };
    if found.permissions().mode() & OTHERS == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn b7_what_an_earlier_release_left_open_is_closed_and_what_is_not_ours_is_left() {
        for (neighbour, directory_mode) in [(None, 0o700), (Some("notes.txt"), 0o755)] {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path().join("data");
            fs::create_dir_all(data.join("log")).unwrap();
            let ours = [
                "state.redb",
                "watch.json",
                "log/0000000001.redb",
                "log/lock",
                "log/0000000002.redb.damaged",
            ];
            for name in ours.into_iter().chain(neighbour) {
                fs::write(data.join(name), "x").unwrap();
                fs::set_permissions(data.join(name), Permissions::from_mode(0o666)).unwrap();
            }
            for directory in [&data, &data.join("log")] {
                fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
            }
            close_to_others(&data);
            for name in ours {
                assert_eq!(mode(&data.join(name)), 0o600, "{name}");
            }
            assert_eq!((mode(&data.join("log")), mode(&data)), (0o700, directory_mode));
            if let Some(name) = neighbour {
                assert_eq!(mode(&data.join(name)), 0o666);
            }
        }
        close_to_others(Path::new("/nowhere/at/all"));
    }
}
