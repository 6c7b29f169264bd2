//! TCP as the device's network.

use forebay_device_core::{Lost, Network, Socket, Uptime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::HostClock;

/// Dials one gateway.
#[derive(Debug)]
pub struct TcpNetwork {
    /// `host:port`.
    gateway: String,
    clock: HostClock,
}

impl TcpNetwork {
    /// The way to `gateway`, as `host:port`.
    pub fn new(gateway: String, clock: HostClock) -> Self {
        Self { gateway, clock }
    }
}

impl Network for TcpNetwork {
    type Socket<'a> = TcpSocket;

    async fn join(&mut self, _until: Uptime) -> Result<(), Lost> {
        Ok(())
    }

    async fn open(&mut self, until: Uptime) -> Result<TcpSocket, Lost> {
        let stream = timeout_at(self.clock.instant(until), TcpStream::connect(&self.gateway))
            .await
            .map_err(|_| Lost::TimedOut)?
            .map_err(|_| Lost::Unreachable)?;
        stream.set_nodelay(true).map_err(|_| Lost::Unreachable)?;
        Ok(TcpSocket { stream, clock: self.clock })
    }

    async fn reset(&mut self, _until: Uptime) {}

    fn signal_dbm(&self) -> Option<i8> {
        None
    }
}

/// An open connection.
#[derive(Debug)]
pub struct TcpSocket {
    stream: TcpStream,
    clock: HostClock,
}

impl Socket for TcpSocket {
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost> {
        match timeout_at(self.clock.instant(until), self.stream.read(buffer)).await {
            Err(_) => Ok(0),
            Ok(Ok(0) | Err(_)) => Err(Lost::Closed),
            Ok(Ok(count)) => Ok(count),
        }
    }

    async fn write_all(&mut self, bytes: &[u8], until: Uptime) -> Result<(), Lost> {
        timeout_at(self.clock.instant(until), self.stream.write_all(bytes))
            .await
            .map_err(|_| Lost::TimedOut)?
            .map_err(|_| Lost::Closed)
    }

    async fn close(&mut self, until: Uptime) {
        // Nobody is left to tell.
        timeout_at(self.clock.instant(until), self.stream.shutdown()).await.ok();
    }
}
