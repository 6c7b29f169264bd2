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
const REASON_STRING: u8 = 0x1F;
const RECEIVE_MAXIMUM: u8 = 0x21;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;
/// Bytes of the smallest packet that a record can be sent in, with its properties; a smaller bound would make each a dead letter.
const MIN_PACKET: u8 = 128;
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
    is_accepted: bool,
}

impl Tap {
    pub(crate) fn new(version: Version, reasons: Reasons) -> Self {
        Self {
            version,
            reasons,
            pending: BytesMut::new(),
            is_accepted: false,
        }
    }

    /// Takes bytes of the cloud and appends what rumqttc may read to `out`. Returns the end if the cloud said goodbye or sent
    /// what cannot be read; nothing after it counts.
    pub(crate) fn take(&mut self, bytes: &[u8], out: &mut BytesMut) -> Option<End> {
        self.pending.extend_from_slice(bytes);
        // Known from its first byte: a packet that never ends, such as a page of HTTP, is not waited for.
        if !self.is_accepted && self.pending.first().is_some_and(|first| first >> 4 != CONNACK) {
            return Some(unreadable("another packet than CONNACK as its answer to CONNECT"));
        }
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

    fn packet(&mut self, packet: &[u8], header: usize, out: &mut BytesMut) -> Result<(), End> {
        let (kind, flags, body) = (packet[0] >> 4, packet[0] & 0x0F, &packet[header..]);
        let is_v5 = self.version == Version::V5;
        match kind {
            CONNACK if self.is_accepted => return Err(unreadable("a second CONNACK")),
            CONNACK => match body {
                [_, 0, properties @ ..] => {
                    if is_v5 {
                        granted(properties)?;
                    }
                    self.is_accepted = true;
                    out.extend_from_slice(packet);
                }
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

/// Refuses a CONNACK with properties on which rumqttc would wait for ever: cut off, or granting nothing at all (MQTT 5 §3.2.2.3).
fn granted(properties: &[u8]) -> Result<(), End> {
    let Some((length, mut rest)) = counted(properties) else {
        return Err(unreadable("a CONNACK without the properties of MQTT 5; choose version 3.1.1"));
    };
    if length != rest.len() {
        return Err(unreadable("a CONNACK with properties of a wrong length"));
    }
    while !rest.is_empty() {
        match property(&mut rest) {
            Some((RECEIVE_MAXIMUM, [0, 0])) => return Err(unreadable("a CONNACK with a Receive Maximum of 0")),
            Some((MAXIMUM_PACKET_SIZE, [0, 0, 0, size])) if *size < MIN_PACKET => {
                return Err(unreadable(&format!(
                    "a CONNACK with a Maximum Packet Size of {size}, into which no message fits"
                )));
            }
            Some(_) => {}
            None => return Err(unreadable("a CONNACK with malformed properties")),
        }
    }
    Ok(())
}

fn reason(code: u8, properties: &[u8]) -> Reason {
    Reason {
        code,
        words: reason_string(properties).map(|words| plain(&words)),
    }
}

/// The reason string among properties, if they can be read that far.
fn reason_string(properties: &[u8]) -> Option<String> {
    let (_, mut rest) = counted(properties)?;
    loop {
        if let (REASON_STRING, words) = property(&mut rest)? {
            return String::from_utf8(words.to_vec()).ok();
        }
    }
}

/// Parts properties from their length in front, which the packet's end bounds as well.
fn counted(mut properties: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for index in 0..4 {
        let byte = properties.try_get_u8().ok()?;
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((length, properties));
        }
    }
    None
}

/// Takes the next property: its number and its value, of a user property the second half. MQTT 5 §2.2.2.2.
fn property<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let number = rest.try_get_u8().ok()?;
    let size = match number {
        0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
        0x13 | RECEIVE_MAXIMUM | 0x22 => 2,
        0x11 | MAXIMUM_PACKET_SIZE => 4,
        0x12 | 0x15 | 0x16 | 0x1A | 0x1C | REASON_STRING => return Some((number, string(rest)?)),
        0x26 => {
            string(rest)?;
            return Some((number, string(rest)?));
        }
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(size)?;
    *rest = after;
    Some((number, value))
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
        tap.is_accepted = bytes.first().is_some_and(|first| first >> 4 != CONNACK);
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
    fn no_code_of_any_packet_in_any_form_leaves_the_connection_waiting() {
        let properties: [&[u8]; 4] = [b"", b"\x00", b"\x04\x1f\x00\x01x", b"\x7f\x1f"];
        for version in [Version::V5, Version::V311] {
            for (kind, code, properties) in
                (0..16_u8).flat_map(|kind| (0..=0xFF_u8).flat_map(move |code| properties.map(|form| (kind, code, form))))
            {
                let front: &[u8] = match kind {
                    CONNACK => &[0],
                    DISCONNECT | 15 => &[],
                    _ => &[0, 1],
                };
                let body = [front, &[code], properties].concat();
                let packet = [&[kind << 4, u8::try_from(body.len()).unwrap()], &body[..]].concat();
                let (out, end, reasons) = tap(version, &packet);
                let is_v5 = version == Version::V5;
                let expected = match kind {
                    CONNACK if code > 0 => matches!(&end, Some(End::Refused(reason)) if reason.code == code),
                    CONNACK if is_v5 => end.is_none() == matches!(properties, [0] | [4, ..]),
                    CONNACK | PUBLISH | PINGRESP => end.is_none() && out == packet,
                    PUBACK if is_v5 => end.is_none() && reasons.take(1).map_or(0, |reason| reason.code) == code,
                    DISCONNECT if is_v5 => matches!(&end, Some(End::Disconnected(reason)) if reason.code == code),
                    _ => matches!(end, Some(End::Unreadable(_))) && out.is_empty(),
                };
                assert!(expected, "{version:?} {packet:02x?}: {end:?}");
            }
        }
    }

    #[test]
    fn what_comes_before_a_connack_or_a_second_one_is_the_end() {
        let reasons = Reasons::default();
        for (bytes, said) in [
            (&b"\x20\x02\x00\x00\x20\x02\x00\x00"[..], "second CONNACK"),
            (b"HTTP", "another packet"),
            (b"\xd0", "another packet"),
        ] {
            let end = Tap::new(Version::V311, reasons.clone()).take(bytes, &mut BytesMut::new());
            assert!(matches!(&end, Some(End::Unreadable(what)) if what.contains(said)), "{end:?}");
        }
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
