//! Packets from the gateway. No bytes panic it.

use core::time::Duration;

use super::reason;

/// The bytes are no packet that a gateway sends to this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    ConnAck(ConnAck),
    PubAck { id: u16, code: u8 },
    Pong,
    Disconnect { code: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnAck {
    pub(crate) code: u8,
    pub(crate) session_present: bool,
    /// Publishes that may be unacked at once.
    pub(crate) receive_maximum: u16,
    /// Seconds that replace ours.
    pub(crate) keep_alive: Option<u16>,
    /// Since 1970, as the gateway's user property `forebay-time` tells it.
    pub(crate) time: Option<Duration>,
}

/// The user property of CONNACK in which a Forebay gateway tells the time: milliseconds since 1970, in decimal.
const TIME: &[u8] = b"forebay-time";

/// The first packet and its length; none if more bytes are needed.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Decoded, usize)>, Malformed> {
    let Some((&head, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some((length, rest)) = number(rest)? else { return Ok(None) };
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let used = bytes.len() - rest.len() + length;
    let packet = match head {
        0x20 => Decoded::ConnAck(connack(body)?),
        0x40 => {
            let (id, rest) = be16(body)?;
            Decoded::PubAck {
                id,
                code: rest.first().copied().unwrap_or(0),
            }
        }
        0xd0 if body.is_empty() => Decoded::Pong,
        0xe0 => Decoded::Disconnect {
            code: body.first().copied().unwrap_or(0),
        },
        _ => return Err(Malformed),
    };
    Ok(Some((packet, used)))
}

fn connack(body: &[u8]) -> Result<ConnAck, Malformed> {
    let [flags, code, rest @ ..] = body else { return Err(Malformed) };
    let mut connack = ConnAck {
        code: *code,
        session_present: match flags {
            0 => false,
            1 if *code < reason::FIRST_ERROR => true,
            _ => return Err(Malformed),
        },
        receive_maximum: u16::MAX,
        keep_alive: None,
        time: None,
    };
    let (length, rest) = number(rest)?.ok_or(Malformed)?;
    let mut properties = rest.get(..length).filter(|_| rest.len() == length).ok_or(Malformed)?;
    while let Some((id, rest)) = properties.split_first() {
        properties = match id {
            // Receive Maximum
            0x21 => {
                let (value, rest) = be16(rest)?;
                connack.receive_maximum = Some(value).filter(|value| *value > 0).ok_or(Malformed)?;
                rest
            }
            // Server Keep Alive
            0x13 => {
                let (value, rest) = be16(rest)?;
                connack.keep_alive = Some(value);
                rest
            }
            // User Property
            0x26 => {
                let (key, rest) = binary(rest)?;
                let (value, rest) = binary(rest)?;
                if key == TIME {
                    connack.time = decimal(value).map(Duration::from_millis);
                }
                rest
            }
            // Topic Alias Maximum: two bytes.
            0x22 => be16(rest)?.1,
            // Maximum QoS, Retain, Wildcard, Subscription Identifiers and Shared Subscription Available: a byte.
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => rest.get(1..).ok_or(Malformed)?,
            // Session Expiry Interval, Maximum Packet Size: four bytes.
            0x11 | 0x27 => rest.get(4..).ok_or(Malformed)?,
            // Assigned Client Identifier, Authentication Method and Data, Response Information, Server Reference, Reason String.
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => binary(rest)?.1,
            _ => return Err(Malformed),
        };
    }
    Ok(connack)
}

/// A variable byte integer; none if it is not complete.
fn number(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, Malformed> {
    let mut value = 0;
    for index in 0..4 {
        let Some(byte) = bytes.get(index) else { return Ok(None) };
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &bytes[index + 1..])));
        }
    }
    Err(Malformed)
}

fn be16(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (value, rest) = bytes.split_first_chunk::<2>().ok_or(Malformed)?;
    Ok((u16::from_be_bytes(*value), rest))
}

fn binary(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (length, rest) = be16(bytes)?;
    rest.split_at_checked(length.into()).ok_or(Malformed)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    (1..=15).contains(&digits.len()).then_some(())?;
    digits
        .iter()
        .try_fold(0, |sum: u64, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use forebay_flash::sim::Random;

    use super::*;

    const CONNACK: &[u8] = b"\x20\x33\x01\x00\x30\x21\x00\x64\x27\x00\x02\x00\x00\x22\x00\x0a\x25\x00\x2a\x00\x13\x04\xb0\
        \x26\x00\x0cforebay-time\x00\x0d1795723200123";

    #[test]
    fn a_connack_is_understood() {
        let (packet, used) = decode(CONNACK).unwrap().unwrap();
        assert_eq!(used, CONNACK.len());
        assert_eq!(
            packet,
            Decoded::ConnAck(ConnAck {
                code: 0,
                session_present: true,
                receive_maximum: 100,
                keep_alive: Some(1200),
                time: Some(Duration::from_millis(1_795_723_200_123)),
            })
        );
    }

    #[test]
    fn acks_pongs_and_ends_are_understood_one_after_the_other() {
        let mut bytes: &[u8] = b"\x40\x02\x00\x07\x40\x04\x01\x00\x97\x00\xd0\x00\xe0\x01\x8b\x20";
        let expected = [
            Decoded::PubAck { id: 7, code: 0 },
            Decoded::PubAck { id: 256, code: 0x97 },
            Decoded::Pong,
            Decoded::Disconnect { code: 0x8b },
        ];
        for packet in expected {
            let (found, used) = decode(bytes).unwrap().unwrap();
            assert_eq!(found, packet);
            bytes = &bytes[used..];
        }
        assert_eq!(decode(bytes), Ok(None));
    }

    #[test]
    fn parts_ask_for_more_and_nonsense_is_refused() {
        for length in 0..CONNACK.len() {
            assert_eq!(decode(&CONNACK[..length]), Ok(None), "{length}");
        }
        for bad in [
            &b"\x30\x02\x00\x00"[..],
            b"\x20\x02\x02\x00",
            b"\x20\x03\x01\x87\x00",
            b"\x40\x01\x00",
            b"\xd0\x80\x80\x80\x80\x01",
            b"\x20\x06\x00\x00\x03\x21\x00\x00",
        ] {
            assert_eq!(decode(bad), Err(Malformed), "{bad:02x?}");
        }
    }

    #[test]
    fn no_bytes_panic_it() {
        let mut random = Random(1);
        for _ in 0..20_000 {
            let mut bytes = std::vec::Vec::from(CONNACK);
            for _ in 0..=random.below(4) {
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place] = random.draw() as u8;
            }
            let _any = decode(&bytes);
        }
    }
}
