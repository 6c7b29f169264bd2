//! A file system of its own on a loop device, whose writes the kernel counts at the block layer.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Bytes of a sector in a block device's `stat`, whatever the device's own are.
const SECTOR: u64 = 512;

/// An ext4 image, mounted. Unmounted when dropped.
#[derive(Debug)]
pub struct Image {
    image: PathBuf,
    mounted: PathBuf,
    /// What the kernel counts for its block device.
    stat: String,
}

/// Goes on in a mount namespace of its own, so that nothing stays mounted however this process ends. To be called before anything else.
///
/// # Errors
///
/// It is not possible here, as without root.
pub fn own_mounts() -> anyhow::Result<()> {
    const INSIDE: &str = "FOREBAY_BENCH_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root can mount a file system");
    }
    if !Command::new("unshare")
        .args(["--mount", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        bail!("`unshare --mount` does not work here (Debian's util-linux)");
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(INSIDE, "1").exec()).context("running unshare")
}

impl Image {
    /// Makes an image of this size in `directory` and mounts it there.
    ///
    /// # Errors
    ///
    /// No loop devices, no `mkfs.ext4`, or not root.
    pub fn mount(directory: &Path, name: &str, mib: u64) -> anyhow::Result<Image> {
        let image = directory.join(format!("{name}.ext4"));
        let mounted = directory.join(name);
        File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir(&mounted)?;
        // The kernel would otherwise go on making inode tables in the background, which would be counted.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-m", "0", "-N", "2048", "-E", eager, path(&image)?])?;
        run("mount", &["-o", "loop", path(&image)?, path(&mounted)?])?;
        let device = fs::metadata(&mounted)?.dev();
        Ok(Image {
            image,
            mounted,
            stat: format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device)),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Bytes written to the device so far, after everything that the file system holds back was written.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn written(&self) -> anyhow::Result<u64> {
        rustix::fs::syncfs(File::open(&self.mounted)?)?;
        let path = &self.stat;
        let stat = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let sectors = stat.split_ascii_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
        Ok(sectors.with_context(|| format!("{path} has no seventh field"))? * SECTOR)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = path(&self.mounted).and_then(|mounted| run("umount", &[mounted])) {
            eprintln!("{} stays mounted: {error:#}", self.mounted.display());
        }
        fs::remove_file(&self.image).ok();
    }
}

/// Unmounts whatever is mounted below a directory, also where files are still open.
pub(crate) fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(directory)) {
        if let Err(error) = run("umount", &["--lazy", point]) {
            eprintln!("{point} stays mounted: {error:#}");
        }
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

/// Runs a program of the system to its end and gives what it printed.
fn run(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    // Debian keeps these where only root's PATH looks.
    let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name)
        .args(arguments)
        .env("PATH", search)
        .output()
        .with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
