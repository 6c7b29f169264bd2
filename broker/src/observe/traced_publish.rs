//! A publish that is traced: when what happened to it on its way to its ack.

use std::sync::Arc;
use std::time::Instant;

use forebay_wal::{Offset, StreamId};

/// Told to [`Observer::traced`](super::Observer::traced) once the publish has left its connection's order.
#[derive(Clone, Debug)]
pub struct TracedPublish {
    /// Where its record is: the stream.
    pub stream: StreamId,
    /// Where its record is: the offset.
    pub offset: Offset,
    /// Who published.
    pub identity: Arc<str>,
    /// On which topic.
    pub topic: String,
    /// Its QoS level.
    pub qos: u8,
    /// When its packet was read.
    pub read: Instant,
    /// When its record was in the log's open batch.
    pub appended: Instant,
    /// When its connection had learnt that the record survives a power cut; none = it does not, the commit failed.
    pub committed: Option<Instant>,
    /// When its ack had been written to the socket; none = the line broke before, or QoS 0.
    pub answered: Option<Instant>,
}
