//! A small file system mounted for one test, ext4 in an image of its own, or where a container has no loop devices tmpfs:
//! needs root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FallocateFlags;
use tempfile::TempDir;

use super::program::program;

/// A mounted file system; unmounted when dropped, also by a test that fails.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Makes and mounts one of this size.
    pub fn new(mib: u64) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test mounts a file system: run it as root"
        );
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let image = disk.folder.path().join("image");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        run("mkfs.ext4", "e2fsprogs", &["-q", "-m", "0", &image.display().to_string()]);
        let (image, mounted) = (image.display().to_string(), disk.path().display().to_string());
        let looped = Command::new(program("mount", "mount"))
            .args(["-o", "loop", &image, &mounted])
            .status();
        if !looped.unwrap().success() {
            eprintln!("no loop device; a tmpfs stands in for ext4");
            run("mount", "mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", &mounted]);
        }
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// From now on nothing can be written.
    pub fn read_only(&self) {
        run("mount", "mount", &["-o", "remount,ro", &self.path().display().to_string()]);
    }

    /// Lets the file system fail, so that the kernel makes it read-only under open files; `false` where a tmpfs stands in.
    pub fn fails(&self) -> bool {
        let mounted = self.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let device = mounts.lines().find_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            rest.starts_with(&format!("{mounted} ext4 ")).then(|| device.rsplit('/').next())?
        });
        let Some(device) = device else { return false };
        run("mount", "mount", &["-o", "remount,errors=remount-ro", &mounted]);
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
        true
    }

    /// Takes all but these bytes, by files that [`Disk::relieve`] deletes.
    pub fn fill(&self, leave: u64) {
        let file = File::create(self.path().join("filler")).unwrap();
        // What a log frees while it is being filled is taken too.
        let mut taken = 0;
        while free(&self.path()) > leave {
            let more = (free(&self.path()) - leave).min(1 << 20);
            if rustix::fs::fallocate(&file, FallocateFlags::empty(), taken, more).is_err() {
                break;
            }
            taken += more;
        }
        file.sync_all().unwrap();
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn relieve(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a gateway that is being killed may still have files open.
        let mounted = self.path();
        if let Err(error) = Command::new("umount").arg("-l").arg(&mounted).status() {
            eprintln!("{} stays mounted: {error}", mounted.display());
        }
    }
}

/// Bytes left.
pub fn free(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}

fn run(name: &str, package: &str, arguments: &[&str]) {
    let output = Command::new(program(name, package)).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
