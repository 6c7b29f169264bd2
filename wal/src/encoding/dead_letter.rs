//! Dead letters: records that can never be delivered, with the reason, in the stream [`StreamId::DEAD`].
//!
//! A dead letter keeps identity, route, topic, properties and times of the record it was. Its payload is an envelope,
//! integers little-endian:
//!
//! ```text
//! version u8 = 1 | epoch u64 | stream u8 | offset u64 | reason length u16 | reason | detail length u16 | detail | payload
//! ```

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::encoding::record::Cursor;
use crate::record::{Epoch, NewRecord, Offset, Record, RecordId, StreamId};

const VERSION: u8 = 1;
const MAX_TEXT: usize = 1024;

/// A dead letter, taken out of its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The id that the record had.
    pub id: RecordId,
    /// One of the documented reason codes.
    pub reason: String,
    /// What was wrong and what to do.
    pub detail: String,
    /// When the gateway accepted it.
    pub received: Timestamp,
    /// The payload as published.
    pub payload: Bytes,
}

impl DeadLetter {
    /// Opens the envelope of a record of [`StreamId::DEAD`]; `None` if it is not one.
    #[must_use]
    pub fn open(record: &Record) -> Option<Self> {
        let mut rest = Cursor(&record.payload);
        if rest.u8()? != VERSION {
            return None;
        }
        let id = RecordId {
            epoch: Epoch(rest.u64()?),
            stream: StreamId(rest.u8()?),
            offset: Offset(rest.u64()?),
        };
        let reason = usize::from(rest.u16()?);
        let reason = rest.text(reason)?.to_owned();
        let detail = usize::from(rest.u16()?);
        let detail = rest.text(detail)?.to_owned();
        let payload = record.payload.slice(record.payload.len() - rest.0.len()..);
        Some(Self {
            id,
            reason,
            detail,
            received: record.received,
            payload,
        })
    }
}

/// Encodes the dead letter of `record`.
pub(crate) fn encode(record: &Record, reason: &str, detail: &str, offset: u64, out: &mut Vec<u8>) -> usize {
    let mut payload = Vec::with_capacity(64 + reason.len() + detail.len() + record.payload.len());
    payload.push(VERSION);
    payload.extend_from_slice(&record.id.epoch.0.to_le_bytes());
    payload.push(record.id.stream.0);
    payload.extend_from_slice(&record.id.offset.0.to_le_bytes());
    for text in [reason, detail] {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        payload.extend_from_slice(&(text.len() as u16).to_le_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    payload.extend_from_slice(&record.payload);
    let letter = NewRecord {
        stream: StreamId::DEAD,
        received: record.received,
        identity: &record.identity,
        route: &record.route,
        topic: &record.topic,
        payload: &payload,
        qos: record.qos,
        retain: record.retain,
        expiry: record.expiry,
        properties: &record.properties,
    };
    crate::encoding::record::encode(&letter, offset, 0, None, out)
}
