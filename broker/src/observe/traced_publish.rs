//! A traced publish: the times on its way to its ack.

use std::sync::Arc;
use std::time::Instant;

use forebay_wal::{Offset, StreamId};

/// Told to [`Observer::traced`](super::Observer::traced) once the publish has left its connection's outbox.
#[derive(Clone, Debug)]
pub struct TracedPublish {
    /// The stream of its record.
    pub stream: StreamId,
    /// The offset of its record.
    pub offset: Offset,
    /// The identity that published it.
    pub identity: Arc<str>,
    /// Its topic.
    pub topic: String,
    /// Its QoS level.
    pub qos: u8,
    /// When its packet was read.
    pub read: Instant,
    /// When its record was in the log's open batch.
    pub appended: Instant,
    /// When its connection learnt that the record is committed; `None` if the commit failed.
    pub committed: Option<Instant>,
    /// When its ack was written to the socket; `None` if the connection broke before, or at QoS 0.
    pub answered: Option<Instant>,
}
