//! TCP as the device's network.

use std::sync::{Arc, Mutex, PoisonError};

use forebay_device_core::{Lost, Network, Socket, Uptime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::HostClock;

/// Why the gateway was not reached the last time, for a person; what the core knows of it is one word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Takes note of it.
    pub(crate) fn note(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// What was noted last.
    pub(crate) fn noted(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Dials one gateway.
#[derive(Debug)]
pub struct TcpNetwork {
    /// `host:port`.
    gateway: String,
    clock: HostClock,
    trouble: Trouble,
}

impl TcpNetwork {
    /// The way to `gateway`, as `host:port`.
    pub fn new(gateway: String, clock: HostClock) -> Self {
        Self::telling(gateway, clock, Trouble::default())
    }

    /// The same; why it leads nowhere is noted.
    pub(crate) fn telling(gateway: String, clock: HostClock, trouble: Trouble) -> Self {
        Self { gateway, clock, trouble }
    }

    /// # Errors
    /// Why nothing answers there, in words.
    async fn dial(&self) -> Result<TcpStream, String> {
        let gateway = &self.gateway;
        let found = tokio::net::lookup_host(gateway).await;
        let addresses: Vec<_> = found
            .map_err(|error| format!("the name in {gateway} cannot be resolved: {error}"))?
            .collect();
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| {
            let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("nothing accepts connections at {gateway} ({}): {error}", tried.join(", "))
        })?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(stream)
    }
}

impl Network for TcpNetwork {
    type Socket<'a> = TcpSocket;

    async fn join(&mut self, _until: Uptime) -> Result<(), Lost> {
        Ok(())
    }

    async fn open(&mut self, until: Uptime) -> Result<TcpSocket, Lost> {
        self.trouble.note(Some(format!("{} does not answer", self.gateway)));
        let dialled = timeout_at(self.clock.instant(until), self.dial())
            .await
            .map_err(|_| Lost::TimedOut)?;
        let stream = dialled.map_err(|why| {
            self.trouble.note(Some(why));
            Lost::Unreachable
        })?;
        self.trouble.note(None);
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
