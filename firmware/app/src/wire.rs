//! The emulator's way to the gateway: the serial line of the Wi-Fi module carries the TCP stream itself.
//!
//! The line shows neither connect nor disconnect: a connection that is gone is one on which nothing comes any more.

use board_qemu::Wifi;
use embassy_time::with_deadline;
use embedded_io_async::{Read, Write};
use forebay_device_core::{Lost, Network, Socket, Uptime};

use crate::platform::instant;

/// The line.
pub(crate) struct Wire(pub(crate) Wifi);

impl Network for Wire {
    type Socket<'a> = Line<'a>;

    async fn join(&mut self, _until: Uptime) -> Result<(), Lost> {
        Ok(())
    }

    async fn open(&mut self, _until: Uptime) -> Result<Line<'_>, Lost> {
        self.0.forget();
        Ok(Line(&mut self.0))
    }

    async fn reset(&mut self, _until: Uptime) {}

    fn signal_dbm(&self) -> Option<i8> {
        None
    }
}

/// The stream on it.
pub(crate) struct Line<'a>(&'a mut Wifi);

impl Socket for Line<'_> {
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost> {
        match with_deadline(instant(until), self.0.read(buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(never)) => match never {},
            Err(_) => Ok(0),
        }
    }

    async fn write_all(&mut self, bytes: &[u8], until: Uptime) -> Result<(), Lost> {
        match with_deadline(instant(until), self.0.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(never)) => match never {},
            Err(_) => Err(Lost::TimedOut),
        }
    }

    async fn close(&mut self, _until: Uptime) {}
}
