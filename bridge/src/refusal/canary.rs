//! Whether a connection is good enough to accuse a record on it: a canary of the bridge's own was acked there first. So a cloud
//! that accepts CONNECT and then closes at every publish convicts nobody.

use bytes::Bytes;
use forebay_wal::{BootId, Epoch, Offset, Partition, Record, RecordId, StreamId, Timestamp};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::message::item::Item;
use crate::message::{self, Publish};
use crate::{Canary, Config, Version};

/// So many connections must end at the canary before its topic may be what ends them.
const CLOSES: u32 = 3;

/// How far one connection is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Proof {
    #[default]
    None,
    /// The canary is in flight.
    Asked,
    /// It was acked, or refused by name: this cloud answers.
    Given,
}

/// What this process knows of its canaries.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    /// One was answered.
    answered: bool,
    /// Connections in a row that the peer closed at one.
    closes: u32,
    /// Another publish was acked.
    others: bool,
}

impl Proofs {
    /// A canary was answered.
    pub(crate) const fn answered(&mut self) {
        (self.answered, self.closes) = (true, 0);
    }

    /// Another publish was acked.
    pub(crate) const fn other_acked(&mut self) {
        self.others = true;
    }

    /// The peer closed at a canary; true when that begins to look like the canary's own doing.
    pub(crate) const fn closed(&mut self) -> bool {
        self.closes = self.closes.saturating_add(1);
        self.closes == CLOSES
    }

    /// Whether no canary was answered yet, and it is not tried in vain: on MQTT 3.1.1 the first connection begins with one, so
    /// that it is known later, when the peer closes at it, whether its topic was allowed before.
    pub(crate) const fn is_unknown(&self) -> bool {
        !self.answered && self.closes < CLOSES
    }

    /// Whether the cloud closes at the canary and at it alone: it never took one, and took others. On MQTT 3.1.1 that is a policy
    /// that denies its topic, and it proves nothing.
    pub(crate) const fn is_useless(&self) -> bool {
        !self.answered && self.closes >= CLOSES && self.others
    }
}

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

impl Config {
    /// Whether a record is one of the canaries that come through the log.
    pub(crate) fn is_canary(&self, record: &Record) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.topic == record.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_useless_only_if_it_alone_is_closed_at() {
        let mut proofs = Proofs::default();
        assert!(proofs.is_unknown());
        assert_eq!(
            [proofs.closed(), proofs.closed(), proofs.closed(), proofs.closed()],
            [false, false, true, false]
        );
        assert!(!proofs.is_unknown() && !proofs.is_useless(), "the cloud closes at everything");
        proofs.other_acked();
        assert!(proofs.is_useless());
        proofs.answered();
        for _ in 0..10 {
            proofs.closed();
        }
        assert!(!proofs.is_useless(), "its topic was allowed: what closes now is the cloud");
    }
}
