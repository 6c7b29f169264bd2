//! One record in bytes. The layout is in [`crate::format`].

use bytes::Bytes;

use crate::clock::{BootId, Timestamp};
use crate::encoding::entry::Entry;
use crate::record::{Epoch, NewRecord, Offset, Partition, Record, RecordId, StreamId};

/// Bytes before the optional fields.
pub(crate) const FIXED: usize = 64;
/// The largest record, encoded.
pub(crate) const MAX_RECORD: usize = 4 << 20;

/// Bytes of an origin.
const ORIGIN_BYTES: usize = 17;

const QOS: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const TRUSTED: u8 = 0b0000_1000;
const EXPIRY: u8 = 0b0001_0000;
const ORIGIN: u8 = 0b0010_0000;

/// What a record takes, encoded.
pub(crate) fn encoded_len(record: &NewRecord<'_>, origin: bool) -> usize {
    FIXED
        + record.expiry.map_or(0, |_| 4)
        + if origin { ORIGIN_BYTES } else { 0 }
        + record.identity.len()
        + record.route.len()
        + record.topic.len()
        + record.properties.len()
        + record.payload.len()
}

/// Appends a record to `out`. The caller has checked [`fits`].
pub(crate) fn encode(record: &NewRecord<'_>, offset: u64, slot: u32, origin: Option<RecordId>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let len = encoded_len(record, origin.is_some());
    let flags = (record.qos & QOS)
        | if record.retain { RETAIN } else { 0 }
        | if record.received.trusted { TRUSTED } else { 0 }
        | if record.expiry.is_some() { EXPIRY } else { 0 }
        | if origin.is_some() { ORIGIN } else { 0 };
    let mut fixed = [0; FIXED];
    fixed[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    fixed[8..16].copy_from_slice(&offset.to_le_bytes());
    fixed[16] = record.stream.0;
    fixed[17] = flags;
    fixed[18..22].copy_from_slice(&slot.to_le_bytes());
    fixed[22..30].copy_from_slice(&record.received.wall_ms.to_le_bytes());
    fixed[30..46].copy_from_slice(&record.received.boot.0.to_le_bytes());
    fixed[46..54].copy_from_slice(&record.received.monotonic_ms.to_le_bytes());
    fixed[54..56].copy_from_slice(&(record.identity.len() as u16).to_le_bytes());
    fixed[56..58].copy_from_slice(&(record.route.len() as u16).to_le_bytes());
    fixed[58..60].copy_from_slice(&(record.topic.len() as u16).to_le_bytes());
    fixed[60..64].copy_from_slice(&(record.properties.len() as u32).to_le_bytes());
    out.reserve(len);
    out.extend_from_slice(&fixed);
    if let Some(expiry) = record.expiry {
        out.extend_from_slice(&expiry.to_le_bytes());
    }
    if let Some(origin) = origin {
        out.extend_from_slice(&origin.epoch.0.to_le_bytes());
        out.push(origin.stream.0);
        out.extend_from_slice(&origin.offset.0.to_le_bytes());
    }
    out.extend_from_slice(record.identity.as_bytes());
    out.extend_from_slice(record.route.as_bytes());
    out.extend_from_slice(record.topic.as_bytes());
    out.extend_from_slice(record.properties);
    out.extend_from_slice(record.payload);
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    len
}

/// Whether every field fits its length on disk; gives the encoded size and the limit when it does not.
pub(crate) fn fits(record: &NewRecord<'_>) -> Result<usize, (usize, usize)> {
    let len = encoded_len(record, false);
    if len > MAX_RECORD {
        return Err((len, MAX_RECORD));
    }
    let names = record.identity.len().max(record.route.len()).max(record.topic.len());
    if names > usize::from(u16::MAX) {
        Err((names, usize::from(u16::MAX)))
    } else {
        Ok(len)
    }
}

/// A record where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View<'a> {
    pub(crate) stream: StreamId,
    pub(crate) offset: u64,
    pub(crate) slot: u32,
    pub(crate) received: Timestamp,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) expiry: Option<u32>,
    pub(crate) origin: Option<RecordId>,
    pub(crate) identity: &'a str,
    pub(crate) route: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Reads the record that fills `bytes` exactly; `None` if damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<View<'_>> {
    let mut rest = Cursor(bytes);
    let crc = rest.u32()?;
    if rest.u32()? as usize != bytes.len() || crc32c::crc32c(&bytes[4..]) != crc {
        return None;
    }
    let offset = rest.u64()?;
    let stream = StreamId(rest.u8()?);
    let flags = rest.u8()?;
    let slot = rest.u32()?;
    let wall_ms = rest.u64()?;
    let boot = BootId(rest.u128()?);
    let monotonic_ms = rest.u64()?;
    let identity = usize::from(rest.u16()?);
    let route = usize::from(rest.u16()?);
    let topic = usize::from(rest.u16()?);
    let properties = rest.u32()? as usize;
    let expiry = if flags & EXPIRY != 0 { Some(rest.u32()?) } else { None };
    let origin = if flags & ORIGIN != 0 {
        Some(RecordId {
            epoch: Epoch(rest.u64()?),
            stream: StreamId(rest.u8()?),
            offset: Offset(rest.u64()?),
        })
    } else {
        None
    };
    Some(View {
        stream,
        offset,
        slot,
        received: Timestamp {
            wall_ms,
            boot,
            monotonic_ms,
            trusted: flags & TRUSTED != 0,
        },
        qos: flags & QOS,
        retain: flags & RETAIN != 0,
        expiry,
        origin,
        identity: rest.text(identity)?,
        route: rest.text(route)?,
        topic: rest.text(topic)?,
        properties: rest.take(properties)?,
        payload: rest.0,
    })
}

/// Times beyond this are no times: milliseconds until the year 2248.
const NO_TIME_MS: u64 = 1 << 43;

/// Finds out whether a whole record begins at `at`. Of the billions of places that are asked in large segments some few have
/// a right checksum by chance, so what a record never says counts too.
pub(crate) fn decode_at(bytes: &[u8], at: usize) -> Option<View<'_>> {
    let len = u32::from_le_bytes(*bytes.get(at + 4..at + 8)?.first_chunk()?) as usize;
    // A checksum over what cannot be a record is not worth its time.
    if !(FIXED..=MAX_RECORD).contains(&len) {
        return None;
    }
    let record = bytes.get(at..at.checked_add(len)?)?;
    let (stream, flags) = (record[16], record[17]);
    let names = [54, 56, 58].map(|at| usize::from(u16::from_le_bytes([record[at], record[at + 1]])));
    let properties = u32::from_le_bytes([record[60], record[61], record[62], record[63]]) as usize;
    let least = names.iter().sum::<usize>().saturating_add(properties).saturating_add(FIXED);
    let are_flags = flags & !(QOS | RETAIN | TRUSTED | EXPIRY | ORIGIN) == 0 && flags & QOS != QOS;
    let is_likely = are_flags && stream <= StreamId::DEAD.0 && least <= len;
    let view = if is_likely { decode(record)? } else { return None };
    (view.received.wall_ms < NO_TIME_MS && view.received.monotonic_ms < NO_TIME_MS).then_some(view)
}

/// Stream and offset that stand where a record's would, if it began at `at`.
pub(crate) fn peek(bytes: &[u8], at: usize) -> Option<(u8, u64)> {
    let head = bytes.get(at + 8..at + 17)?;
    Some((head[8], u64::from_le_bytes(*head.first_chunk()?)))
}

/// The index line of a record that begins at `at`.
pub(crate) fn entry_of(view: &View<'_>, at: usize) -> Entry {
    Entry {
        partition: Partition::of(view.identity).index() as u8,
        slot: view.slot,
        at: at as u32,
        len: view.len() as u32,
    }
}

impl View<'_> {
    /// What it takes, encoded.
    pub(crate) fn len(&self) -> usize {
        FIXED
            + self.expiry.map_or(0, |_| 4)
            + self.origin.map_or(0, |_| ORIGIN_BYTES)
            + self.identity.len()
            + self.route.len()
            + self.topic.len()
            + self.properties.len()
            + self.payload.len()
    }

    /// An owned record whose payload and properties share `buffer`, which this view borrows from.
    pub(crate) fn to_record(self, buffer: &Bytes, epoch: Epoch) -> Record {
        Record {
            id: self.origin.unwrap_or(RecordId {
                epoch,
                stream: self.stream,
                offset: Offset(self.offset),
            }),
            stream: self.stream,
            offset: Offset(self.offset),
            partition: Partition::of(self.identity),
            received: self.received,
            identity: self.identity.to_owned(),
            route: self.route.to_owned(),
            topic: self.topic.to_owned(),
            payload: shared(buffer, self.payload),
            qos: self.qos,
            retain: self.retain,
            expiry: self.expiry,
            properties: shared(buffer, self.properties),
        }
    }
}

fn shared(buffer: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { buffer.slice_ref(part) }
}

/// Takes little-endian values off the front; `None` if too short.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// A number of seven bits a byte, the lowest first; `None` if it does not fit 64 bits, too.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn text(&mut self, n: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(n)?).ok()
    }
}
