//! Records and the ids that name them.

use std::fmt;

use bytes::Bytes;

use crate::clock::Timestamp;

/// A stream's place in the log's directory of streams; stable for as long as the directory exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u8);

impl StreamId {
    /// What is stored for local reasons: sessions, QoS 2 packet ids, retained messages.
    pub const LOCAL: Self = Self(0xF0);
    /// Dead letters, with their reasons.
    pub const DEAD: Self = Self(0xF1);
}

/// A record's place in its stream. Never used twice within an [`Epoch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// The number of a commit since this log was opened. Later batches have larger numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch(pub u64);

/// A random number, a new one at each start: what the disk shows may be older than what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One of the 64 groups that devices fall into by a hash that is part of the format; delivery progress is kept per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// How many partitions there are.
    pub const COUNT: usize = 64;

    /// The partition of an identity: CRC32C of its bytes, modulo 64.
    #[must_use]
    pub fn of(identity: &str) -> Self {
        Self((crc32c::crc32c(identity.as_bytes()) % 64) as u8)
    }

    /// 0 to 63.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of partitions, one bit each: what one lane owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSet(pub u64);

impl PartitionSet {
    /// All 64.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether the partition is in the set.
    #[must_use]
    pub const fn contains(self, partition: Partition) -> bool {
        self.0 & (1 << partition.0) != 0
    }
}

/// Names a record for ever. With the gateway's id in front it is the `forebay-id` that the cloud gets:
/// `gateway/epoch/stream/offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// The directory's epoch when the record was first accepted.
    pub epoch: Epoch,
    /// The stream.
    pub stream: StreamId,
    /// The offset in the stream.
    pub offset: Offset,
}

/// A record to append; everything is copied by [`crate::Producer::append`].
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Where it goes.
    pub stream: StreamId,
    /// When the gateway accepted it.
    pub received: Timestamp,
    /// The publisher's identity, at most 128 bytes.
    pub identity: &'a str,
    /// The name of the route that chose the stream, empty for internal streams.
    pub route: &'a str,
    /// The topic as the device published it.
    pub topic: &'a str,
    /// The payload as the device published it.
    pub payload: &'a [u8],
    /// 0, 1 or 2, as published.
    pub qos: u8,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// MQTT 5 message expiry interval in seconds, as published.
    pub expiry: Option<u32>,
    /// The MQTT 5 properties that travel with the message, in wire encoding without the leading length:
    /// payload format, content type, response topic, correlation data, user properties.
    pub properties: &'a [u8],
}

/// A record as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id: under which it was first accepted.
    pub id: RecordId,
    /// The stream in which it waits.
    pub stream: StreamId,
    /// Its place there, which [`crate::Log::settle`] takes. The id's offset, unless the record was put back.
    pub offset: Offset,
    /// The partition of its identity.
    pub partition: Partition,
    /// When the gateway accepted it.
    pub received: Timestamp,
    /// The publisher's identity.
    pub identity: String,
    /// The name of the route that chose the stream.
    pub route: String,
    /// The topic as published.
    pub topic: String,
    /// The payload as published.
    pub payload: Bytes,
    /// 0, 1 or 2, as published.
    pub qos: u8,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// MQTT 5 message expiry interval in seconds, as published.
    pub expiry: Option<u32>,
    /// The MQTT 5 properties that travel, in wire encoding without the leading length.
    pub properties: Bytes,
}

impl Record {
    /// Whether it was put back: it waits in another place than the one it was first accepted to.
    #[must_use]
    pub fn is_put_back(&self) -> bool {
        (self.id.stream, self.id.offset) != (self.stream, self.offset)
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The cloud acked it.
    Delivered,
    /// Its MQTT 5 expiry or the stream's `max_age` ran out before it could be sent.
    Expired,
    /// It can never be delivered; it moves to the dead letters with a stable reason code (`topic-too-long`) and a sentence for people.
    Dead {
        /// One of the documented codes.
        reason: &'static str,
        /// What was wrong and what to do.
        detail: String,
    },
}
