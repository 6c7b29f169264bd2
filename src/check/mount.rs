//! What is mounted where a directory is.

use std::path::{Path, PathBuf};

/// The mount that a directory is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `ext4`, `tmpfs`.
    pub(crate) kind: String,
    /// Nothing can be written there.
    pub(crate) read_only: bool,
}

impl Mount {
    /// Of this directory, or of its nearest parent that exists; `None` if the kernel does not say.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let there = super::disk::existing(directory).canonicalize().ok()?;
        find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &there)
    }

    /// Why what is written there does not survive: in memory, or in the layer of a container. `None` if nothing is known against it.
    pub(crate) fn loses(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "tmpfs" | "ramfs" | "devtmpfs" | "rootfs" => Some("which is in memory: a power cut or a reboot loses every acked message"),
            "overlay" | "aufs" => Some("the layer of a container: it goes with the container, and every acked message with it"),
            _ => None,
        }
    }
}

/// The innermost mount over `path`; where several are mounted on one another the last is seen.
fn find(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut before = before.split(' ').skip(4);
        let (Some(point), Some(options)) = (before.next(), before.next()) else {
            continue;
        };
        let mut after = after.split(' ');
        let (Some(kind), Some(superblock)) = (after.next(), after.nth(1)) else {
            continue;
        };
        let point = unescaped(point);
        let depth = point.components().count();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(known, _)| depth >= *known) {
            let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
            let mount = Mount {
                kind: kind.to_owned(),
                read_only: is_read_only(options) || is_read_only(superblock),
            };
            best = Some((depth, mount));
        }
    }
    best.map(|(_, mount)| mount)
}

/// The kernel writes a space as `\040`, and so on.
fn unescaped(point: &str) -> PathBuf {
    let text = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(
        text.iter()
            .fold(point.to_owned(), |text, (code, character)| text.replace(code, character)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                        23 22 0:5 / /run rw,nosuid - tmpfs tmpfs rw,size=1k\n\
                        24 23 8:2 / /run/data rw - ext4 /dev/sdb1 ro\n\
                        25 22 0:9 / /mnt/a\\040b ro,relatime - ramfs none rw\n\
                        26 22 0:10 / /var rw - ext4 /dev/sdc1 rw\n\
                        27 26 0:11 / /var rw - overlay overlay rw,lowerdir=/a\n\
                        nonsense\n";

    #[test]
    fn e19_the_innermost_and_last_mount_over_a_path_is_found() {
        for (path, kind, read_only, loses) in [
            ("/home/x", "ext4", false, false),
            ("/run", "tmpfs", false, true),
            ("/run/x/y", "tmpfs", false, true),
            ("/running", "ext4", false, false),
            ("/run/data/x", "ext4", true, false),
            ("/mnt/a b/c", "ramfs", true, true),
            ("/var/lib", "overlay", false, true),
        ] {
            let mount = find(INFO, Path::new(path)).unwrap();
            assert_eq!(
                (mount.kind.as_str(), mount.read_only, mount.loses().is_some()),
                (kind, read_only, loses),
                "{path}"
            );
        }
        assert_eq!(find("", Path::new("/")), None);
    }

    #[test]
    fn the_kernel_says_of_this_machine() {
        assert!(Mount::of(Path::new("/proc/not/there")).is_some_and(|mount| mount.kind == "proc"));
    }
}
