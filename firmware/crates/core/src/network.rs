//! What the device needs of a network.
//!
//! No future of the device is ever dropped half-way: a module that talks in commands and answers loses data, and its
//! place in the conversation, when a caller walks away in the middle. So every wait has its end as an argument, and
//! nothing needs to be cancelled.
#![expect(async_fn_in_trait, reason = "the device's futures stay on one thread")]

use core::fmt;

use crate::clock::Uptime;
use crate::wall::WallTime;

/// Why a connection, or the attempt to make one, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The other side closed it.
    Closed,
    /// Nothing came within the time given.
    TimedOut,
    /// The access point, or its pass phrase, did not take us.
    NotJoined,
    /// The host is not there, or nobody listens.
    Unreachable,
    /// The radio module does not answer, or answers nonsense.
    Module,
    /// TLS failed: certificates, names, validity, or a handshake that breaks the rules.
    NotTrusted,
    /// The peer broke the protocol.
    Protocol,
    /// The gateway said no.
    Refused,
}

impl Lost {
    /// All of them, in the order of [`Lost::index`].
    pub const ALL: [Self; 8] = [
        Self::Closed,
        Self::TimedOut,
        Self::NotJoined,
        Self::Unreachable,
        Self::Module,
        Self::NotTrusted,
        Self::Protocol,
        Self::Refused,
    ];

    /// Its place in [`Lost::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// One word for the health report.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::TimedOut => "timeout",
            Self::NotJoined => "wifi",
            Self::Unreachable => "unreachable",
            Self::Module => "module",
            Self::NotTrusted => "tls",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A stream of bytes both ways whose every wait ends at a given moment.
pub trait Socket {
    /// Waits for bytes until `until`, and gives those that are there: 0 if none came.
    ///
    /// # Errors
    /// The connection is over. `buffer` must not be empty.
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost>;

    /// Hands all bytes over.
    ///
    /// # Errors
    /// The connection is over, also when `until` came first: what was sent of the bytes is then unknown.
    async fn write_all(&mut self, bytes: &[u8], until: Uptime) -> Result<(), Lost>;

    /// Says goodbye, if that is possible before `until`.
    async fn close(&mut self, until: Uptime);
}

/// The way to the gateway, one connection at a time.
pub trait Network {
    /// An open connection.
    type Socket<'a>: Socket
    where
        Self: 'a;

    /// Joins the Wi-Fi network; does nothing where that is done already.
    ///
    /// # Errors
    /// [`Lost::NotJoined`], [`Lost::TimedOut`], [`Lost::Module`].
    async fn join(&mut self, until: Uptime) -> Result<(), Lost>;

    /// Opens a TCP connection to the gateway.
    ///
    /// # Errors
    /// [`Lost::Unreachable`], [`Lost::TimedOut`], [`Lost::Module`].
    async fn open(&mut self, until: Uptime) -> Result<Self::Socket<'_>, Lost>;

    /// Resets the radio module: what was joined and open is gone.
    async fn reset(&mut self, until: Uptime);

    /// Signal strength in dBm when last heard, if there is a radio.
    fn signal_dbm(&self) -> Option<i8>;
}

/// Makes a connection private, and sure of its peer.
pub trait Secure {
    /// The connection inside.
    type Stream<'a, S: Socket>: Socket
    where
        Self: 'a;

    /// Shakes hands; certificates are judged at `now`.
    ///
    /// # Errors
    /// [`Lost::NotTrusted`] when the peer is not who it must be; else what became of the socket.
    async fn secure<S: Socket>(&mut self, socket: S, now: WallTime, until: Uptime) -> Result<Self::Stream<'_, S>, Lost>;

    /// The seconds since 1970 until which the certificate is valid that the peer of this stream has shown, if it showed one.
    fn valid_until<S: Socket>(stream: &Self::Stream<'_, S>) -> Option<u64>;
}
