//! What is mounted where a directory is.

use std::path::{Path, PathBuf};

/// The mount that a directory is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `ext4`, `tmpfs`.
    pub(crate) kind: String,
    /// Nothing can be written there.
    pub(crate) read_only: bool,
    /// All options, of the mount and of the file system.
    pub(crate) options: Vec<String>,
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

    /// What else is to be known of it: which option or property, what it does, and what to do about it; whether it costs acked messages.
    pub(crate) fn doubts(&self) -> Vec<Doubt> {
        let kind = self.kind.as_str();
        let is_ext = matches!(kind, "ext4" | "ext3");
        let mut doubts: Vec<Doubt> = Vec::new();
        let option = |wanted: &[&str]| self.options.iter().find(|option| wanted.contains(&option.as_str()));
        if let Some(option) = option(&["barrier=0", "nobarrier"]) {
            doubts.push(Doubt {
                loses: true,
                what: format!("mounted with {option}: the disk keeps what it likes in its own cache, and a power cut loses acked messages"),
                advice: "remove the option from /etc/fstab",
            });
        }
        if let Some(option) = option(&["data=writeback"]) {
            doubts.push(Doubt {
                loses: false,
                what: format!(
                    "mounted with {option}: after a power cut a file may hold what another one held; the log notices it, and salvages less"
                ),
                advice: "mount with data=ordered, the default",
            });
        }
        if let Some(option) = option(&["errors=continue"]).filter(|_| is_ext) {
            doubts.push(Doubt {
                loses: false,
                what: format!(
                    "mounted with {option}: after an error in the file system the kernel goes on writing and may damage it further"
                ),
                advice: "mount with errors=remount-ro: the gateway then still sends what waits, and says so",
            });
        }
        if is_network(kind) {
            doubts.push(Doubt {
                loses: false,
                what: "a file system over a network: what a sync, a lock and an open file are worth depends on its server, and each ack waits for it".to_owned(),
                advice: "name a directory on a local disk (ext4)",
            });
        }
        if matches!(kind, "btrfs" | "bcachefs" | "zfs") {
            doubts.push(Doubt {
                loses: false,
                what: "a file system that copies on write: when it is full, neither writing over old blocks nor deleting may find space"
                    .to_owned(),
                advice: "keep gateway.keep_free at some 10 % of it, or name a directory on ext4",
            });
        }
        doubts
    }
}

/// Something that is to be known of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// Acked messages may be lost by it.
    pub(crate) loses: bool,
    pub(crate) what: String,
    pub(crate) advice: &'static str,
}

/// Whether another machine keeps the files.
fn is_network(kind: &str) -> bool {
    const KINDS: [&str; 12] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "afs",
        "glusterfs",
        "lustre",
        "ocfs2",
        "gfs2",
    ];
    const FUSE: [&str; 6] = ["sshfs", "glusterfs", "rclone", "s3fs", "ceph", "davfs"];
    KINDS.contains(&kind) || kind.strip_prefix("fuse.").is_some_and(|kind| FUSE.contains(&kind))
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
                options: options.split(',').chain(superblock.split(',')).map(str::to_owned).collect(),
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
    fn k20_k22_options_and_kinds_that_are_in_doubt_are_named() {
        for (line, loses, words) in [
            ("ext4 /dev/sda1 rw,errors=remount-ro,data=ordered", false, vec![]),
            ("ext4 /dev/sda1 rw", false, vec![]),
            ("ext4 /dev/sda1 rw,nobarrier", true, vec!["nobarrier"]),
            (
                "ext4 /dev/sda1 rw,barrier=0,data=writeback,errors=continue",
                true,
                vec!["barrier=0", "data=writeback", "errors=continue"],
            ),
            ("vfat /dev/sda1 rw,errors=continue", false, vec![]),
            ("nfs4 server:/data rw,hard", false, vec!["over a network"]),
            ("cifs //server/data rw", false, vec!["over a network"]),
            ("fuse.sshfs me@server: rw", false, vec!["over a network"]),
            ("fuse.mergerfs a:b rw", false, vec![]),
            ("btrfs /dev/sda1 rw", false, vec!["copies on write"]),
        ] {
            let info = format!("22 1 8:1 / /data rw,relatime shared:1 - {line}\n");
            let doubts = find(&info, Path::new("/data/log")).unwrap().doubts();
            assert_eq!(doubts.iter().any(|doubt| doubt.loses), loses, "{line}: {doubts:?}");
            assert_eq!(doubts.len(), words.len(), "{line}: {doubts:?}");
            let is_told = |word: &&str| doubts.iter().any(|doubt| doubt.what.contains(*word));
            assert!(words.iter().all(is_told), "{line}: {doubts:?}");
        }
    }

    #[test]
    fn the_kernel_says_of_this_machine() {
        assert!(Mount::of(Path::new("/proc/not/there")).is_some_and(|mount| mount.kind == "proc"));
    }
}
