//! The first message of a connection: a ClientHello, or what came in its place.

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::HandshakeFault;
use super::fault;

const HANDSHAKE_RECORD: u8 = 0x16;
const MQTT_CONNECT: u8 = 0x10;
const READ_SIZE: usize = 4096;
/// Record header, handshake header, then the two bytes of the highest version of an old client.
const LEGACY_VERSION_AT: usize = 9;

/// Reads a ClientHello from `stream`.
///
/// The bytes are seen before rustls sees them, so that a plain MQTT client or a TLS 1.1 device gets its true name.
pub(super) async fn client_hello<S>(stream: &mut S) -> Result<Accepted, HandshakeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut first = Vec::with_capacity(LEGACY_VERSION_AT + 2);
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let count = stream.read(&mut buffer).await.map_err(|error| fault::of_io(&error, None))?;
        if count == 0 {
            return Err(if first.is_empty() {
                HandshakeFault::SilentClose
            } else {
                HandshakeFault::ClosedEarly
            });
        }
        let mut unread = &buffer[..count];
        let missing = (LEGACY_VERSION_AT + 2).saturating_sub(first.len());
        first.extend_from_slice(&unread[..missing.min(count)]);
        if let Some(not_tls) = not_tls(&first) {
            return Err(not_tls);
        }
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread).map_err(|error| fault::of_io(&error, None))?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) if unread.is_empty() => return Ok(accepted),
                Ok(Some(_)) => {
                    return Err(HandshakeFault::Protocol {
                        detail: "data beyond the ClientHello before our answer".into(),
                    });
                }
                Err((error, mut alert)) => {
                    let mut answer = Vec::new();
                    // Writing to memory cannot fail, and a peer that is gone misses only the alert: the fault is reported either way.
                    if alert.write_all(&mut answer).is_ok() && stream.write_all(&answer).await.is_ok() {
                        stream.flush().await.ok();
                    }
                    return Err(too_old(&first).unwrap_or_else(|| fault::of_tls(&error, None)));
                }
            }
        }
    }
}

fn not_tls(first: &[u8]) -> Option<HandshakeFault> {
    let looks_like = match first {
        [HANDSHAKE_RECORD, 0x03, ..] | [HANDSHAKE_RECORD] | [] => return None,
        [MQTT_CONNECT, ..] => "plain MQTT",
        [b'G' | b'H' | b'O' | b'P', letter, ..] if letter.is_ascii_uppercase() => "plain HTTP",
        [0x80, _, 0x01, ..] => return Some(HandshakeFault::VersionTooOld { offered: "SSL 2.0 hello" }),
        _ => "no known protocol",
    };
    Some(HandshakeFault::NotTls { looks_like })
}

fn too_old(first: &[u8]) -> Option<HandshakeFault> {
    let offered = match first.get(LEGACY_VERSION_AT..LEGACY_VERSION_AT + 2)? {
        [3, 0] => "SSL 3.0",
        [3, 1] => "TLS 1.0",
        [3, 2] => "TLS 1.1",
        _ => return None,
    };
    Some(HandshakeFault::VersionTooOld { offered })
}
