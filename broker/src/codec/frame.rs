//! Framing and the basic types: fixed header, variable byte integer, strings, binary data.

use std::num::NonZeroU16;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{EncodeError, Fault, Found};
use super::text::{self, Text};
use super::{PacketType, Version};

/// The most a variable byte integer can say.
pub(super) const MAX_VARINT: usize = 268_435_455;

/// The least that is made room for when a packet is incomplete.
const MIN_RESERVE: usize = 4096;

/// A fixed header that was read whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// The lower half of the first byte.
    pub(super) flags: u8,
    /// Bytes before the body.
    length: usize,
    /// Whether the length field had no padding.
    minimal: bool,
}

impl Header {
    /// MQTT 5 forbids padded length fields; 3.1.1 does not, and some modems send them.
    pub(super) fn check_minimal(self, version: Version) -> Found<()> {
        if version == Version::V5 && !self.minimal {
            Err(Fault::PaddedLength)
        } else {
            Ok(())
        }
    }
}

/// Splits one whole packet off `buffer`, or makes room for more of it.
pub(super) fn take(buffer: &mut BytesMut, max_packet: usize) -> Found<Option<(Header, Bytes)>> {
    let Some((&first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let Some((remaining, width)) = varint(rest)? else { return Ok(None) };
    let length = 1 + width;
    let total = length + remaining;
    if total > max_packet {
        return Err(Fault::TooLarge {
            size: total,
            limit: max_packet,
        });
    }
    if buffer.len() < total {
        // The claimed length buys no memory: room doubles with what has arrived.
        let missing = total - buffer.len();
        buffer.reserve(missing.min(buffer.len().max(MIN_RESERVE)));
        return Ok(None);
    }
    let header = Header {
        flags: first & 0x0f,
        length,
        minimal: width == varint_width(remaining),
    };
    Ok(Some((header, buffer.split_to(total).freeze())))
}

/// The bytes of the whole packet that begins here; `None` while its length has not come, or is none.
#[must_use]
pub fn packet_length(bytes: &[u8]) -> Option<usize> {
    let (remaining, width) = varint(bytes.get(1..)?).ok()??;
    Some(1 + width + remaining)
}

/// Reads a variable byte integer: its value and width, or `None` if it is not there in full.
fn varint(bytes: &[u8]) -> Found<Option<(usize, usize)>> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Fault::LengthField) }
}

/// How many bytes the value takes as a variable byte integer.
pub(super) fn varint_width(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// A cursor over a part of a packet; it never reads past that part.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// All of `frame`.
    pub(super) fn new(frame: &'a Bytes) -> Reader<'a> {
        Reader {
            frame,
            at: 0,
            end: frame.len(),
        }
    }

    /// What follows the fixed header.
    pub(super) fn body(frame: &'a Bytes, header: Header) -> Reader<'a> {
        Reader {
            frame,
            at: header.length,
            end: frame.len(),
        }
    }

    pub(super) fn remaining(&self) -> usize {
        self.end - self.at
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The bytes of an earlier range, copying nothing.
    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        self.frame.slice(range)
    }

    pub(super) fn get(&self, range: Range<usize>) -> &'a [u8] {
        &self.frame[range]
    }

    /// Refuses whatever is left.
    pub(super) fn finish(&self) -> Found<()> {
        if self.at == self.end {
            Ok(())
        } else {
            Err(Fault::Trailing(self.remaining()))
        }
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        let rest = self.frame.slice(self.at..self.end);
        self.at = self.end;
        rest
    }

    fn skip(&mut self, length: usize, field: &'static str) -> Found<Range<usize>> {
        if length > self.remaining() {
            return Err(Fault::Truncated(field));
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Found<u8> {
        let range = self.skip(1, field)?;
        Ok(self.frame[range.start])
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Found<u16> {
        let range = self.skip(2, field)?;
        Ok(u16::from_be_bytes([self.frame[range.start], self.frame[range.start + 1]]))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Found<u32> {
        let high = self.u16(field)?;
        let low = self.u16(field)?;
        Ok(u32::from(high) << 16 | u32::from(low))
    }

    /// A variable byte integer inside a packet: only MQTT 5 has them, so padding is refused.
    pub(super) fn varint(&mut self, field: &'static str) -> Found<usize> {
        let (value, width) = varint(&self.frame[self.at..self.end])?.ok_or(Fault::Truncated(field))?;
        if width != varint_width(value) {
            return Err(Fault::PaddedLength);
        }
        self.at += width;
        Ok(value)
    }

    pub(super) fn packet_id(&mut self) -> Found<NonZeroU16> {
        NonZeroU16::new(self.u16("packet id")?).ok_or(Fault::PacketIdZero)
    }

    /// The range of a length-prefixed field.
    pub(super) fn field(&mut self, field: &'static str) -> Found<Range<usize>> {
        let length = usize::from(self.u16(field)?);
        self.skip(length, field)
    }

    pub(super) fn binary(&mut self, field: &'static str) -> Found<Bytes> {
        let range = self.field(field)?;
        Ok(self.frame.slice(range))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Found<Text> {
        Text::checked(self.binary(field)?, field)
    }

    /// The range of a string, which is checked.
    pub(super) fn text_range(&mut self, field: &'static str) -> Found<Range<usize>> {
        let range = self.field(field)?;
        text::check(&self.frame[range.clone()], field)?;
        Ok(range)
    }

    /// A reader for the property section; this one continues after it.
    pub(super) fn section(&mut self) -> Found<Reader<'a>> {
        let length = self.varint("property length")?;
        let range = self.skip(length, "properties")?;
        Ok(Reader {
            frame: self.frame,
            at: range.start,
            end: range.end,
        })
    }
}

/// Writes a whole packet from its body.
pub(super) fn write(packet_type: PacketType, flags: u8, body: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    write_header((packet_type as u8) << 4 | flags, body.len(), out)?;
    out.put_slice(body);
    Ok(())
}

/// Writes a fixed header.
pub(super) fn write_header(first: u8, remaining: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    if remaining > MAX_VARINT {
        return Err(EncodeError::PacketTooLong { size: remaining });
    }
    out.reserve(remaining.min(64 * 1024) + 5);
    out.put_u8(first);
    write_varint(remaining, out);
    Ok(())
}

/// Writes a variable byte integer; the caller knows that `value` fits.
pub(super) fn write_varint(mut value: usize, out: &mut BytesMut) {
    debug_assert!(value <= MAX_VARINT);
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(super) fn write_binary(bytes: &[u8], field: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u16(field_length(bytes, field)?);
    out.put_slice(bytes);
    Ok(())
}

pub(super) fn write_text(text: &[u8], field: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    if text.contains(&0) {
        return Err(EncodeError::Unsayable("a string holds a NUL character, which MQTT excludes"));
    }
    write_binary(text, field, out)
}

pub(super) fn field_length(bytes: &[u8], field: &'static str) -> Result<u16, EncodeError> {
    u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong { field, size: bytes.len() })
}
