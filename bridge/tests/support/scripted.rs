//! A cloud that says what a test wants, byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A CONNACK that accepts, in MQTT 5.
pub(crate) const ACCEPT_V5: &[u8] = &[0x20, 3, 0, 0, 0];
/// A CONNACK that accepts, in MQTT 3.1.1.
pub(crate) const ACCEPT_V311: &[u8] = &[0x20, 2, 0, 0];

/// A PUBLISH that came.
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    /// 0 at QoS 0.
    pub(crate) id: u16,
    /// Properties, if any, and payload.
    pub(crate) rest: &'a [u8],
}

/// Reads one packet: its first byte and its body.
async fn packet(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let head = socket.read_u8().await.ok()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = socket.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// A cloud that answers the n-th CONNECT, counted from 0, with `connack`, and each PUBLISH with `answer`; `None` is a plain PUBACK.
/// Returns its port.
pub(crate) async fn cloud(
    connack: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
    answer: impl Fn(&Publish<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connack, answer, connects) = (Arc::new(connack), Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (connack, answer, connects) = (Arc::clone(&connack), Arc::clone(&answer), Arc::clone(&connects));
            tokio::spawn(async move {
                while let Some((head, body)) = packet(&mut socket).await {
                    let bytes = match head >> 4 {
                        1 => connack(connects.fetch_add(1, Ordering::Relaxed)),
                        3 => {
                            let (topic, rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
                            let (id, rest) = if head & 6 == 0 {
                                ([0, 0], rest)
                            } else {
                                ([rest[0], rest[1]], &rest[2..])
                            };
                            let publish = Publish {
                                topic: std::str::from_utf8(topic).unwrap(),
                                id: u16::from_be_bytes(id),
                                rest,
                            };
                            answer(&publish).unwrap_or_else(|| if publish.id == 0 { Vec::new() } else { vec![0x40, 2, id[0], id[1]] })
                        }
                        // What answers a PUBLISH of the test.
                        4 | 5 => Vec::new(),
                        12 => vec![0xD0, 0],
                        _ => return,
                    };
                    if socket.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}
