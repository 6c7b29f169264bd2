//! Parts of the bridge that benchmarks measure alone.

use std::io;

use tokio::net::TcpStream;

use crate::Version;
use crate::link::{Reasons, Relay, Tap};

/// A connection to the cloud, carried to and from a Unix socket that rumqttc dials. It is closed when this is dropped.
#[derive(Debug)]
pub struct Relayed {
    /// Where MQTT 5 is to dial: a name in Linux's abstract namespace.
    pub socket: String,
    _relay: Relay,
}

/// Carries the bytes of `cloud` as the bridge does, its answers read.
///
/// # Errors
///
/// There is no Unix socket to be had.
pub fn relay(cloud: TcpStream) -> io::Result<Relayed> {
    let (relay, socket) = Relay::start(Box::new(cloud), Tap::new(Version::V5, Reasons::default()))?;
    Ok(Relayed { socket, _relay: relay })
}
