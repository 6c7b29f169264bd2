//! A record on its way from the log to the cloud.

use forebay_wal::{Offset, Record, StreamId, SuspensionKey};
use tokio::time::Instant;

/// Memory that a record takes beside its payload, topic, identity and properties.
const RECORD_OVERHEAD: usize = 256;

/// A record's place in the log.
pub(crate) type RecordKey = (StreamId, Offset);

/// A device in one stream: the stream's index and the identity.
pub(crate) type DeviceKey = (usize, String);

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) record: Record,
    /// Index of its stream.
    pub(crate) stream_index: usize,
    /// Part of a probe, or of the drain after it, of a suspended pair.
    pub(crate) probe: bool,
    /// No record of the log but what proves a connection.
    pub(crate) canary: bool,
    /// Was older than 30 s at its first sending.
    pub(crate) late: bool,
    /// An earlier connection of this process had written it.
    pub(crate) seen: bool,
    /// The cloud refused it for the moment on this connection.
    pub(crate) refused: bool,
    /// When it was handed to the connection.
    pub(crate) sent: Option<Instant>,
    /// Its bytes count against the stream's read-ahead.
    pub(crate) counted: bool,
}

impl Item {
    pub(crate) const fn new(record: Record, stream_index: usize, probe: bool) -> Self {
        Self {
            record,
            stream_index,
            probe,
            canary: false,
            late: false,
            seen: false,
            refused: false,
            sent: None,
            counted: false,
        }
    }

    /// What proves a connection.
    pub(crate) const fn canary(record: Record) -> Self {
        let mut item = Self::new(record, usize::MAX, false);
        item.canary = true;
        item
    }

    pub(crate) const fn key(&self) -> RecordKey {
        (self.record.stream, self.record.offset)
    }

    pub(crate) fn device(&self) -> DeviceKey {
        (self.stream_index, self.record.identity.clone())
    }

    pub(crate) fn pair(&self) -> SuspensionKey {
        SuspensionKey {
            stream: self.record.stream,
            route: self.record.route.clone(),
            identity: self.record.identity.clone(),
        }
    }

    pub(crate) fn is_of(&self, pair: &SuspensionKey) -> bool {
        self.record.stream == pair.stream && self.record.route == pair.route && self.record.identity == pair.identity
    }

    /// What it takes of the read-ahead.
    pub(crate) fn bytes(&self) -> usize {
        let record = &self.record;
        record.payload.len() + record.topic.len() + record.identity.len() + record.properties.len() + RECORD_OVERHEAD
    }
}
