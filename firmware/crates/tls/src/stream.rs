//! rustls's unbuffered connection over a [`Socket`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use forebay_device_core::{Lost, Socket, Uptime};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, Error};

use crate::Client;

/// The largest record a peer may send: header, 2^14 bytes, and what encryption adds (RFC 8446 section 5.2).
pub const RECORD_BYTES: usize = 5 + (1 << 14) + 256;
/// Bytes of one outgoing record: a publish of the device fits, and no more than a kilobyte of heap is needed at a time.
const FRAGMENT: usize = 1024;
/// What a record adds to its text: header, content type, tag.
const OVERHEAD: usize = 5 + 1 + 16;

/// An open TLS connection. Dropping it closes it without a word; [`Socket::close`] says goodbye.
pub struct Stream<'c, S> {
    client: &'c mut Client,
    /// Boxed: by value it would be moved through every future above, over a small stack.
    connection: Box<UnbufferedClientConnection>,
    socket: S,
    /// Bytes of `client.incoming` that hold what came.
    filled: usize,
    /// Encrypted, to be sent.
    outgoing: Vec<u8>,
    /// Decrypted, to be read: never more than `client.incoming` held.
    text: Vec<u8>,
    read: usize,
}

/// What is to be done next.
enum Step {
    /// Ask again.
    Again,
    /// Bytes from the peer are needed.
    Read,
    /// Text may be sent, and none waits to be read.
    Ready,
    /// The text was encrypted.
    Encrypted,
    /// The peer will send nothing more.
    Closed,
}

/// What goes out at the next chance.
enum Outgoing<'t> {
    Nothing,
    Text(&'t [u8]),
    Goodbye,
}

impl<'c, S: Socket> Stream<'c, S> {
    /// The end of the peer's certificate, in seconds since 1970.
    pub(crate) fn valid_until(&self) -> Option<u64> {
        self.client.clock.valid_until()
    }

    pub(crate) async fn open(
        client: &'c mut Client,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        socket: S,
        until: Uptime,
    ) -> Result<Self, Lost> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(|error| {
            client.failed(error);
            Lost::NotTrusted
        })?;
        let mut stream = Self {
            client,
            connection: Box::new(connection),
            socket,
            filled: 0,
            outgoing: Vec::with_capacity(FRAGMENT + OVERHEAD),
            text: Vec::new(),
            read: 0,
        };
        loop {
            let step = stream.step(&Outgoing::Nothing, until).await?;
            stream.flush(until).await?;
            match step {
                Step::Ready => return Ok(stream),
                Step::Read if stream.receive(until).await? == 0 => return Err(Lost::TimedOut),
                Step::Closed => return Err(Lost::Closed),
                _ => {}
            }
        }
    }

    /// One step of the connection. When it fails, the peer is told why before the error is returned.
    async fn step(&mut self, outgoing: &Outgoing<'_>, until: Uptime) -> Result<Step, Lost> {
        match self.process(outgoing) {
            Ok(step) => Ok(step),
            Err(error) => {
                // The alert that names the fault is encoded by the steps after the error.
                for _ in 0..4 {
                    if !matches!(self.process(&Outgoing::Nothing), Ok(Step::Again)) {
                        break;
                    }
                }
                // The connection is over either way.
                self.flush(until).await.ok();
                self.client.failed(error);
                Err(Lost::NotTrusted)
            }
        }
    }

    fn process(&mut self, outgoing: &Outgoing<'_>) -> Result<Step, Error> {
        let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut self.client.incoming[..self.filled]);
        let step = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::EncodeTlsData(mut data)) => append(&mut self.outgoing, |buffer| match data.encode(buffer) {
                Ok(length) => Ok(length),
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => Err(required_size),
                Err(EncodeError::AlreadyEncoded) => Ok(0),
            })
            .map(|()| Step::Again),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // The caller flushes before it waits for anything.
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut result = Ok(Step::Again);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            self.text.extend_from_slice(record.payload);
                        }
                        Err(error) => {
                            result = Err(error);
                            break;
                        }
                    }
                }
                result
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match outgoing {
                Outgoing::Nothing => Ok(Step::Ready),
                Outgoing::Text(text) => {
                    append(&mut self.outgoing, |buffer| fitted(traffic.encrypt(text, buffer))).map(|()| Step::Encrypted)
                }
                Outgoing::Goodbye => {
                    append(&mut self.outgoing, |buffer| fitted(traffic.queue_close_notify(buffer))).map(|()| Step::Encrypted)
                }
            },
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
            Ok(_) => Err(Error::HandshakeNotComplete),
        };
        self.client.incoming.copy_within(discard..self.filled, 0);
        self.filled -= discard;
        step
    }

    async fn flush(&mut self, until: Uptime) -> Result<(), Lost> {
        if !self.outgoing.is_empty() {
            let sent = self.socket.write_all(&self.outgoing, until).await;
            self.outgoing.clear();
            sent?;
        }
        Ok(())
    }

    /// Takes what came from the socket; 0 if nothing did.
    async fn receive(&mut self, until: Uptime) -> Result<usize, Lost> {
        let free = &mut self.client.incoming[self.filled..];
        if free.is_empty() {
            // A record, or a handshake message over several, that no peer of ours has reason to send.
            return Err(Lost::Protocol);
        }
        let count = self.socket.read(free, until).await?;
        self.filled += count;
        Ok(count)
    }
}

impl<S: Socket> Socket for Stream<'_, S> {
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost> {
        loop {
            if self.read < self.text.len() {
                let count = buffer.len().min(self.text.len() - self.read);
                buffer[..count].copy_from_slice(&self.text[self.read..self.read + count]);
                self.read += count;
                return Ok(count);
            }
            self.text.clear();
            self.read = 0;
            let step = self.step(&Outgoing::Nothing, until).await?;
            self.flush(until).await?;
            match step {
                Step::Ready | Step::Read => {
                    if self.receive(until).await? == 0 {
                        return Ok(0);
                    }
                }
                Step::Closed => return Err(Lost::Closed),
                Step::Again | Step::Encrypted => {}
            }
        }
    }

    async fn write_all(&mut self, bytes: &[u8], until: Uptime) -> Result<(), Lost> {
        for fragment in bytes.chunks(FRAGMENT) {
            loop {
                match self.step(&Outgoing::Text(fragment), until).await? {
                    Step::Encrypted => break,
                    Step::Again => {}
                    Step::Closed => return Err(Lost::Closed),
                    // A handshake that has ended does not block.
                    Step::Read | Step::Ready => return Err(Lost::Protocol),
                }
            }
            self.flush(until).await?;
        }
        Ok(())
    }

    async fn close(&mut self, until: Uptime) {
        while let Ok(Step::Again) = self.process(&Outgoing::Goodbye) {}
        // Nobody is left to tell.
        self.flush(until).await.ok();
        self.socket.close(until).await;
    }
}

/// Lets `write` append to the buffer; it says how much it wrote, or how much room it needs.
fn append(buffer: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) -> Result<(), Error> {
    let start = buffer.len();
    let mut room = FRAGMENT + OVERHEAD;
    loop {
        buffer.resize(start + room, 0);
        match write(&mut buffer[start..]) {
            Ok(length) => {
                buffer.truncate(start + length);
                return Ok(());
            }
            Err(required) if required > room && required <= RECORD_BYTES => room = required,
            Err(_) => {
                buffer.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}

/// The room that an encryption needs, or the nothing that it cannot be given.
fn fitted(result: Result<usize, EncryptError>) -> Result<usize, usize> {
    result.map_err(|error| match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => required_size,
        EncryptError::EncryptExhausted => usize::MAX,
    })
}

impl<S> core::fmt::Debug for Stream<'_, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stream").field("filled", &self.filled).finish_non_exhaustive()
    }
}
