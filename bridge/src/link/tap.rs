//! Reads what the cloud sends before rumqttc does. rumqttc knows fewer answers than clouds give, and ends the connection over
//! the others without their reason.
//!
//! Only whole packets are passed on, and only in forms that rumqttc reads. A reason code and its words are kept here: those of
//! a PUBACK until the [`Link`](super::Link) asks for them, those of CONNACK and DISCONNECT as the connection's [`End`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, BytesMut};

use super::relay::End;
use crate::Version;

/// Longest packet taken from the cloud; this connection subscribes to nothing.
pub(crate) const MAX_INCOMING: u32 = 256 * 1024;
/// Characters of the cloud's words that are repeated.
const MAX_WORDS: usize = 200;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
/// Stands for every code but success towards rumqttc, which knows it: "unspecified error".
const REFUSED: u8 = 0x80;

/// A reason code, and the words that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) code: u8,
    pub(crate) words: Option<String>,
}

/// The reasons of PUBACKs that were not plain successes, by packet id, until they are asked for. At most one per packet id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reasons(Arc<Mutex<HashMap<u16, Reason>>>);

impl Reasons {
    pub(crate) fn take(&self, packet_id: u16) -> Option<Reason> {
        self.lock().remove(&packet_id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Reason>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parts the cloud's bytes into packets.
#[derive(Debug)]
pub(crate) struct Tap {
    version: Version,
    reasons: Reasons,
    pending: BytesMut,
}

impl Tap {
    pub(crate) fn new(version: Version, reasons: Reasons) -> Self {
        Self {
            version,
            reasons,
            pending: BytesMut::new(),
        }
    }

    /// Takes bytes of the cloud and appends what rumqttc may read to `out`. Returns the end if the cloud said goodbye or sent
    /// what cannot be read; nothing after it counts.
    pub(crate) fn take(&mut self, bytes: &[u8], out: &mut BytesMut) -> Option<End> {
        self.pending.extend_from_slice(bytes);
        loop {
            let (header, body) = match lengths(&self.pending) {
                Ok(Some(lengths)) => lengths,
                Ok(None) => return None,
                Err(what) => return Some(End::Unreadable(what)),
            };
            if self.pending.len() < header + body {
                return None;
            }
            let packet = self.pending.split_to(header + body);
            if let Err(end) = self.packet(&packet, header, out) {
                return Some(end);
            }
        }
    }

    fn packet(&self, packet: &[u8], header: usize, out: &mut BytesMut) -> Result<(), End> {
        let (kind, flags, body) = (packet[0] >> 4, packet[0] & 0x0F, &packet[header..]);
        let is_v5 = self.version == Version::V5;
        match kind {
            CONNACK => match body {
                [_, 0, ..] => out.extend_from_slice(packet),
                [_, code, properties @ ..] => return Err(End::Refused(reason(*code, properties))),
                _ => return Err(unreadable("a CONNACK without a code")),
            },
            PUBACK => {
                let (id, rest) = body
                    .split_first_chunk::<2>()
                    .ok_or_else(|| unreadable("a PUBACK without a packet id"))?;
                if flags != 0 || *id == [0, 0] || !is_v5 && !rest.is_empty() {
                    return Err(unreadable("a malformed PUBACK"));
                }
                match rest {
                    [] | [0, ..] => out.extend_from_slice(&[PUBACK << 4, 2, id[0], id[1]]),
                    [code, properties @ ..] => {
                        self.reasons.lock().insert(u16::from_be_bytes(*id), reason(*code, properties));
                        out.extend_from_slice(&[PUBACK << 4, 3, id[0], id[1], REFUSED]);
                    }
                }
            }
            PUBLISH | PINGRESP => out.extend_from_slice(packet),
            DISCONNECT if is_v5 => {
                let (code, properties) = body.split_first().unwrap_or((&0, &[]));
                return Err(End::Disconnected(reason(*code, properties)));
            }
            _ => return Err(unreadable(&format!("a packet of type {kind}, for which nothing asked"))),
        }
        Ok(())
    }
}

fn unreadable(what: &str) -> End {
    End::Unreadable(what.to_owned())
}

/// Bytes of the fixed header and of what follows; `None` while the header is not whole.
fn lengths(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if length > MAX_INCOMING as usize {
                return Err(format!("a packet of {length} bytes, more than {MAX_INCOMING}"));
            }
            return Ok(Some((index + 2, length)));
        }
    }
    if bytes.len() > 4 {
        return Err("a packet whose length has more than four bytes".to_owned());
    }
    Ok(None)
}

fn reason(code: u8, properties: &[u8]) -> Reason {
    Reason {
        code,
        words: reason_string(properties).map(|words| plain(&words)),
    }
}

/// The reason string among properties, if they can be read that far.
fn reason_string(mut rest: &[u8]) -> Option<String> {
    // The properties' length, which the packet's end bounds as well.
    while rest.try_get_u8().ok()? & 0x80 != 0 {}
    loop {
        match rest.try_get_u8().ok()? {
            0x1F => return String::from_utf8(string(&mut rest)?.to_vec()).ok(),
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C => drop(string(&mut rest)?),
            0x26 => {
                string(&mut rest)?;
                string(&mut rest)?;
            }
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => drop(rest.try_get_u8().ok()?),
            0x13 | 0x21 | 0x22 => drop(rest.try_get_u16().ok()?),
            0x11 | 0x27 => drop(rest.try_get_u32().ok()?),
            _ => return None,
        }
    }
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(rest.try_get_u16().ok()?);
    let (string, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

/// A peer's words for a line of our log: short, and without control characters.
fn plain(words: &str) -> String {
    words.chars().take(MAX_WORDS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(version: Version, bytes: &[u8]) -> (Vec<u8>, Option<End>, Reasons) {
        let reasons = Reasons::default();
        let mut tap = Tap::new(version, reasons.clone());
        let mut out = BytesMut::new();
        // In pieces of one byte: nothing may depend on how TCP cuts.
        let end = bytes.iter().find_map(|byte| tap.take(&[*byte], &mut out));
        (out.to_vec(), end, reasons)
    }

    #[test]
    fn every_code_of_a_puback_reaches_us_and_none_ends_rumqttc() {
        for code in 0x01..=0xFF {
            let (out, end, reasons) = tap(Version::V5, &[0x40, 3, 1, 2, code]);
            assert_eq!(out, [0x40, 3, 1, 2, 0x80], "{code:#04x}");
            assert!(end.is_none());
            assert_eq!(reasons.take(0x0102).map(|reason| reason.code), Some(code));
        }
        let (out, _, reasons) = tap(
            Version::V5,
            b"\x40\x0a\x00\x07\x95\x06\x1f\x00\x03big\x40\x04\x00\x08\x00\x00\x40\x02\x00\x09",
        );
        assert_eq!(out, b"\x40\x03\x00\x07\x80\x40\x02\x00\x08\x40\x02\x00\x09");
        let words = Some("big".to_owned());
        assert_eq!(reasons.take(7), Some(Reason { code: 0x95, words }));
        assert_eq!(reasons.take(8), None, "success");
    }

    #[test]
    fn the_reason_of_a_disconnect_is_read_in_its_short_and_long_form() {
        for (bytes, code, words) in [
            (&b"\xe0\x00"[..], 0x00, None),
            (b"\xe0\x01\x8e", 0x8E, None),
            (b"\xe0\x02\x97\x00", 0x97, None),
            (b"\xe0\x08\x90\x06\x1f\x00\x03a\nb", 0x90, Some("a\\nb".to_owned())),
            (b"\xe0\x04\x81\x7f\xff\xff", 0x81, None),
        ] {
            let (out, end, _) = tap(Version::V5, bytes);
            assert!(
                matches!(&end, Some(End::Disconnected(reason)) if *reason == Reason { code, words }),
                "{end:?}"
            );
            assert_eq!(out, [] as [u8; 0]);
        }
    }

    #[test]
    fn a_connack_that_refuses_is_the_end_and_names_any_code() {
        for (version, bytes, code) in [
            (Version::V5, &b"\x20\x03\x00\xc1\x00"[..], 0xC1),
            (Version::V5, b"\x20\x02\x00\x01", 0x01),
            (Version::V311, b"\x20\x02\x00\x63", 0x63),
        ] {
            let (_, end, _) = tap(version, bytes);
            assert!(matches!(&end, Some(End::Refused(reason)) if reason.code == code), "{end:?}");
        }
        assert_eq!(tap(Version::V5, b"\x20\x03\x00\x00\x00").0, b"\x20\x03\x00\x00\x00");
    }

    #[test]
    fn what_cannot_be_read_is_the_end() {
        for (version, bytes) in [
            (Version::V5, &b"\x40\x01\x00"[..]),
            (Version::V5, b"\x41\x02\x00\x01"),
            (Version::V5, b"\x40\x02\x00\x00"),
            (Version::V5, b"\x90\x03\x00\x01\x00"),
            (Version::V5, b"\x00\x00"),
            (Version::V5, b"\x30\xff\xff\xff\xff\x01"),
            (Version::V5, b"\x30\xff\xff\xff\x7f"),
            (Version::V5, b"\x20\x00"),
            (Version::V311, b"\x40\x03\x00\x01\x00"),
            (Version::V311, b"\xe0\x00"),
        ] {
            let (_, end, _) = tap(version, bytes);
            assert!(matches!(end, Some(End::Unreadable(_))), "{bytes:02x?}: {end:?}");
        }
    }
}
