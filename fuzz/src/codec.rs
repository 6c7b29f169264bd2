//! The MQTT codec of the device side: a version and a role by the first byte, then what a peer sends.

use bytes::BytesMut;
use forebay_broker::codec::{self, Packet, Role, Version};

const MAX_PACKET: usize = 4096;
/// Bytes are fed one by one only up to this size: it takes the square of it.
const BY_BYTES: usize = 256;

/// 1. Nothing panics. 2. What is decoded can be encoded, and decodes to the same. 3. It makes no difference in what pieces bytes arrive.
pub(crate) fn target(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let version = if choice & 1 == 0 { Version::V311 } else { Version::V5 };
    let role = if choice & 2 == 0 { Role::Server } else { Role::Client };
    if choice & 4 == 0 {
        let whole = decode_all(stream, version, role);
        for packet in &whole.packets {
            survives_the_wire(packet, version, role);
        }
        if stream.len() <= BY_BYTES {
            assert_eq!(decode_by_bytes(stream, version, role), whole, "in pieces it is something else");
        }
    } else {
        connect(stream);
    }
}

/// What a stream of bytes was, up to its first error.
#[derive(Debug, PartialEq)]
struct Decoded {
    packets: Vec<Packet>,
    error: Option<String>,
}

impl Decoded {
    /// Takes what is complete; `false` after an error.
    fn take(&mut self, buffer: &mut BytesMut, version: Version, role: Role) -> bool {
        loop {
            let before = buffer.len();
            match codec::decode(buffer, version, role, MAX_PACKET) {
                Ok(Some(packet)) => {
                    assert!(buffer.len() < before, "a packet of no bytes");
                    self.packets.push(packet);
                }
                Ok(None) => return true,
                Err(error) => {
                    self.error = Some(error.to_string());
                    return false;
                }
            }
        }
    }
}

fn decode_all(stream: &[u8], version: Version, role: Role) -> Decoded {
    let mut decoded = Decoded {
        packets: Vec::new(),
        error: None,
    };
    decoded.take(&mut BytesMut::from(stream), version, role);
    decoded
}

fn decode_by_bytes(stream: &[u8], version: Version, role: Role) -> Decoded {
    let mut decoded = Decoded {
        packets: Vec::new(),
        error: None,
    };
    let mut buffer = BytesMut::new();
    for byte in stream {
        buffer.extend_from_slice(&[*byte]);
        if !decoded.take(&mut buffer, version, role) {
            break;
        }
    }
    decoded
}

fn survives_the_wire(packet: &Packet, version: Version, role: Role) {
    let mut wire = BytesMut::new();
    codec::encode(packet, version, &mut wire).unwrap_or_else(|error| panic!("{packet:?} has no form on the wire: {error}"));
    // Properties may be written in another order and lengths in fewer bytes; the packet is the same.
    let again = codec::decode(&mut wire, version, role, MAX_PACKET).unwrap_or_else(|error| panic!("{packet:?} is refused: {error}"));
    assert_eq!(again.as_ref(), Some(packet));
    assert!(wire.is_empty(), "{packet:?} leaves {wire:?}");
}

/// The first packet of a connection, which says its own version.
fn connect(stream: &[u8]) {
    let mut buffer = BytesMut::from(stream);
    let Ok(Some(connect)) = codec::decode_connect(&mut buffer, MAX_PACKET) else {
        return;
    };
    let packet = Packet::Connect(Box::new(connect.clone()));
    let mut wire = BytesMut::new();
    codec::encode(&packet, Version::V5, &mut wire).unwrap_or_else(|error| panic!("{connect:?} has no form on the wire: {error}"));
    let again = codec::decode_connect(&mut wire, MAX_PACKET).unwrap_or_else(|error| panic!("{connect:?} is refused: {error}"));
    assert_eq!(again, Some(connect));
}
