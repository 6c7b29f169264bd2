//! QEMU's B-L475E-IOT01A.
//!
//! A guest's reset ends QEMU (`-no-reboot`), because its flash is read-only to the guest: what the guest wrote is in `flash.bin`, and QEMU
//! must be started again to run from it. That is what [`Emulator::run_until`] does.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use crate::flash_file::FlashFile;

/// Where the stack is.
pub const STACK: (u32, u32) = (0x2000_0000, 0xd000);

/// A board in a folder of its own: its flash, the update that is offered, and QEMU while the power is on.
#[derive(Debug)]
pub struct Emulator {
    folder: TempDir,
    running: Option<Running>,
    wifi: Option<u16>,
    /// Every line the firmware has logged, over all starts.
    pub lines: Vec<String>,
    /// How often the power came on or the guest reset itself.
    pub starts: u32,
}

#[derive(Debug)]
struct Running {
    qemu: Child,
    lines: Receiver<String>,
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The line came.
    Seen(String),
    /// The firmware said that nothing can run.
    Halted,
    /// The time was up: the firmware hangs.
    Hangs,
}

impl Emulator {
    /// A board with this flash, powered off.
    ///
    /// # Errors
    /// If its folder cannot be written.
    pub fn new(flash: &FlashFile) -> Result<Emulator> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        flash.write_to(&folder.path().join("flash.bin"))?;
        Ok(Emulator {
            folder,
            running: None,
            wifi: None,
            lines: Vec::new(),
            starts: 0,
        })
    }

    /// From the next start on the serial line of the Wi-Fi module is a TCP connection to this port of the loopback.
    pub fn connect_wifi(&mut self, port: u16) {
        self.wifi = Some(port);
    }

    /// From the next start on the board's clock runs this many times faster than the host's, 1 to 9: an hour of the device then passes in
    /// minutes, and its processor seems as much slower.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn hasten(&self, speed: u8) -> Result<()> {
        std::fs::write(self.path("speed"), speed.clamp(1, 9).to_string()).context("cannot write the speed")
    }

    /// Offers an image as an update; `None` takes the offer back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn offer(&self, image: Option<&[u8]>) -> Result<()> {
        let path = self.path("update.img");
        match image {
            Some(image) => {
                // By renaming: the firmware must never see half an offer.
                let part = self.path("update.part");
                std::fs::write(&part, image)
                    .and_then(|()| std::fs::rename(&part, &path))
                    .context("cannot write the update")
            }
            None if path.exists() => std::fs::remove_file(&path).context("cannot remove the update"),
            None => Ok(()),
        }
    }

    /// The flash as it is now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn flash(&self) -> Result<FlashFile> {
        FlashFile::read_from(&self.path("flash.bin"))
    }

    /// Replaces the flash while the power is off.
    ///
    /// # Errors
    /// If the power is on or the file cannot be written.
    pub fn set_flash(&mut self, flash: &FlashFile) -> Result<()> {
        if self.running.is_some() {
            bail!("the flash can be changed only while the power is off");
        }
        flash.write_to(&self.path("flash.bin"))
    }

    /// Cuts the power, at whatever moment.
    pub fn cut_power(&mut self) {
        self.running = None;
    }

    /// Powers on if the power is off, and waits until a line contains `text`. After a reset of the guest the power comes back at once.
    ///
    /// # Errors
    /// If QEMU cannot be started or ends in a way no firmware ends it.
    pub fn run_until(&mut self, text: &str, limit: Duration) -> Result<Ended> {
        let deadline = Instant::now() + limit;
        loop {
            if self.running.is_none() {
                self.power_on()?;
            }
            let Some(running) = &mut self.running else { continue };
            let left = deadline.saturating_duration_since(Instant::now());
            match running.lines.recv_timeout(left) {
                Ok(line) => {
                    let seen = line.contains(text);
                    self.lines.push(line.clone());
                    if seen {
                        return Ok(Ended::Seen(line));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(Ended::Hangs),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = running.qemu.wait().context("cannot wait for QEMU")?;
                    self.running = None;
                    if self.ended(status)? {
                        return Ok(Ended::Halted);
                    }
                }
            }
        }
    }

    /// Whether the firmware ended for good; if not, it reset itself.
    fn ended(&self, status: ExitStatus) -> Result<bool> {
        match status.code() {
            Some(0) => Ok(false),
            Some(1) if self.lines.last().is_some_and(|line| line.starts_with("boot: nothing to run")) => Ok(true),
            _ => {
                let last = self.lines.iter().rev().take(5).rev().cloned().collect::<Vec<_>>().join("\n");
                bail!("QEMU ended with {status}; the last lines were:\n{last}")
            }
        }
    }

    /// The bytes of RAM at `at`, while the power is on.
    ///
    /// # Errors
    /// If the power is off or the monitor does not answer.
    pub fn memory(&self, at: u32, length: u32) -> Result<Vec<u8>> {
        let mut monitor = UnixStream::connect(self.path("monitor")).context("cannot reach the monitor; is the power on?")?;
        monitor
            .set_read_timeout(Some(Duration::from_secs(10)))
            .context("cannot set a time-out")?;
        // Once for its greeting, once after the command.
        read_prompt(&mut monitor)?;
        writeln!(monitor, "pmemsave {at:#x} {length:#x} memory.bin").context("cannot ask the monitor")?;
        read_prompt(&mut monitor)?;
        let bytes = std::fs::read(self.path("memory.bin")).context("the monitor saved nothing")?;
        if bytes.len() == length as usize {
            Ok(bytes)
        } else {
            Err(anyhow!("the monitor saved {} of {length} bytes", bytes.len()))
        }
    }

    /// Bytes of stack used at most since the start: the firmware paints it, QEMU's memory begins as zeros.
    ///
    /// # Errors
    /// As [`Emulator::memory`].
    pub fn stack_used(&self) -> Result<u32> {
        let (at, length) = STACK;
        let bytes = self.memory(at, length)?;
        let untouched = bytes.chunks_exact(4).take_while(|word| *word == [0; 4] || *word == PAINT).count();
        Ok(length - 4 * untouched as u32)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn power_on(&mut self) -> Result<()> {
        self.starts += 1;
        let mut command = Command::new("qemu-system-arm");
        command
            .args(["-M", "b-l475e-iot01a", "-display", "none", "-no-reboot", "-kernel", "flash.bin"])
            .args(["-semihosting-config", "enable=on,target=native"])
            .args(["-monitor", "unix:monitor,server=on,wait=off", "-serial", "null"]);
        match self.wifi {
            Some(port) => {
                command.args([
                    "-chardev",
                    &format!("socket,id=wifi,host=127.0.0.1,port={port}"),
                    "-serial",
                    "chardev:wifi",
                ]);
            }
            None => {
                command.args(["-serial", "null"]);
            }
        }
        let mut qemu = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-arm; `firmware/run` installs it")?;
        let console = qemu.stderr.take().context("QEMU has no standard error")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(console).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        self.running = Some(Running { qemu, lines });
        Ok(())
    }
}

const PAINT: [u8; 4] = 0x5354_4b21_u32.to_le_bytes();

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

fn read_prompt(monitor: &mut UnixStream) -> Result<()> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"(qemu) ") {
        monitor.read_exact(&mut byte).context("the monitor does not answer")?;
        answer.push(byte[0]);
    }
    Ok(())
}

/// A file of the built images, by name.
///
/// # Errors
/// If it was not built.
pub fn built(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    std::fs::read(&path).with_context(|| format!("cannot read {}: `firmware/run images` builds it", path.display()))
}
