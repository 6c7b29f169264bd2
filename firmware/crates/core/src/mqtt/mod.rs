//! The device's own MQTT 5: the client's half of what it uses, without an allocation.
//!
//! It sends CONNECT, PUBLISH at QoS 1, PINGREQ and DISCONNECT, and understands CONNACK, PUBACK, PINGRESP and DISCONNECT.
//! It shares nothing with the gateway's codec, so that neither confirms the other's mistakes. See
//! `docs/decisions/0012-device-codec.md` for why it is not a library.

mod decode;
mod encode;

pub(crate) use decode::{Decoded, decode};
pub(crate) use encode::{Connect, connect, disconnect, ping, publish};

/// Reason codes of MQTT 5 that the device tells apart.
pub(crate) mod reason {
    /// From here on a code is a refusal.
    pub(crate) const FIRST_ERROR: u8 = 0x80;
}
