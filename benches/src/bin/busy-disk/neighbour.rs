//! The other program: writes a file of 1 GB from front to back, syncs it, and begins again.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};

/// MiB of one file.
const MIB: u64 = 1024;
/// How often it is looked whether a file is written.
const LOOK: Duration = Duration::from_millis(20);

/// Writes until it is stopped.
pub(crate) struct Neighbour {
    stop: Sender<()>,
    thread: JoinHandle<anyhow::Result<u32>>,
}

impl Neighbour {
    pub(crate) fn start(directory: &Path) -> Neighbour {
        let (stop, stopped) = channel();
        let path = directory.join("neighbour");
        let thread = std::thread::spawn(move || {
            let mut files = 0;
            loop {
                files += 1;
                if write_one(&path, &stopped)? {
                    return Ok(files);
                }
            }
        });
        Neighbour { stop, thread }
    }

    /// Ends it; gives the files begun.
    pub(crate) fn stop(self) -> anyhow::Result<u32> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the neighbour's thread failed"))?
    }
}

/// A process of its own, so that nothing but the disk and the cores are shared. True if it was stopped.
fn write_one(path: &Path, stopped: &Receiver<()>) -> anyhow::Result<bool> {
    let mut child = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "conv=fsync"])
        .args([format!("count={MIB}"), format!("of={}", path.display())])
        .stderr(Stdio::null())
        .spawn()
        .context("starting `dd`")?;
    let is_stopped = wait(&mut child, stopped)?;
    match std::fs::remove_file(path) {
        // Stopped before `dd` made it.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed.with_context(|| format!("removing {}", path.display()))?,
    }
    Ok(is_stopped)
}

fn wait(child: &mut Child, stopped: &Receiver<()>) -> anyhow::Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "`dd` failed; is the disk full?");
            return Ok(false);
        }
        if stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
            child.kill()?;
            child.wait()?;
            return Ok(true);
        }
    }
}
