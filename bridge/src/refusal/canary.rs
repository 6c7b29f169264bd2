//! The bridge's own canary, as a publish and in the window: it proves that a connection is good before a close counts against a record.

use bytes::Bytes;
use forebay_wal::{BootId, Epoch, Offset, Partition, Record, RecordId, StreamId, Timestamp};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::message::item::Item;
use crate::message::{self, Publish};
use crate::{Canary, Version};

impl Canary {
    /// It as a publish.
    pub(crate) fn publish(&self, version: Version) -> Publish {
        let properties = (version == Version::V5).then(PublishProperties::default);
        message::sized(self.topic.clone(), self.payload.clone(), true, properties)
    }

    /// What stands for it in the window: a record of no stream.
    pub(crate) fn item(&self) -> Item {
        let nowhere = Offset(u64::MAX);
        let received = Timestamp {
            wall_ms: 0,
            boot: BootId(0),
            monotonic_ms: 0,
            trusted: false,
        };
        let record = Record {
            id: RecordId {
                epoch: Epoch(0),
                stream: StreamId(u8::MAX),
                offset: nowhere,
            },
            stream: StreamId(u8::MAX),
            offset: nowhere,
            partition: Partition::of(""),
            received,
            identity: String::new(),
            route: String::new(),
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            qos: 1,
            retain: false,
            expiry: None,
            properties: Bytes::new(),
        };
        Item::canary(record)
    }
}
