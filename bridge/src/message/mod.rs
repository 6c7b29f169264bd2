//! From a record to the publish that the cloud gets.

pub(crate) mod item;
mod properties;
mod timestamp;

use std::time::Duration;

use bytes::Bytes;
use forebay_wal::{Record, Timestamp};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use self::timestamp::received_at;
use crate::{Mapped, Qos, Version};

/// Older than this at its first sending is late.
const LATE: Duration = Duration::from_secs(30);

/// A publish, ready for a connection.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) acked: bool,
    pub(crate) retain: bool,
    /// MQTT 5 only.
    pub(crate) properties: Option<PublishProperties>,
    /// Bytes of the whole packet.
    pub(crate) size: usize,
}

/// Whether the record was older than 30 s; a record that waited across a boot was, even if nobody can prove it.
pub(crate) fn is_late(received: &Timestamp, now: &Timestamp) -> bool {
    match received.age(now) {
        Some(age) => age > LATE,
        None => true,
    }
}

/// Seconds of its MQTT 5 expiry that the record has left; `Err` = expired. Nothing expires on an untrusted clock.
pub(crate) fn remaining_expiry(record: &Record, now: &Timestamp) -> Result<Option<u32>, ()> {
    let (Some(expiry), Some(age)) = (record.expiry, record.received.age(now)) else {
        return Ok(record.expiry);
    };
    let waited = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    match expiry.checked_sub(waited) {
        None | Some(0) => Err(()),
        left => Ok(left),
    }
}

/// What the sender knows beyond the record.
pub(crate) struct Context<'a> {
    pub(crate) version: Version,
    pub(crate) gateway: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) now: &'a Timestamp,
    pub(crate) expiry: Option<u32>,
    pub(crate) late: bool,
    pub(crate) again: bool,
}

/// Builds the publish.
pub(crate) fn compose(record: &Record, mapped: Mapped, context: &Context<'_>) -> Publish {
    let properties = (context.version == Version::V5).then(|| {
        let mut properties = properties::decode(&record.properties);
        properties.message_expiry_interval = context.expiry;
        let id = format!("{}/{}/{}/{}", context.gateway, record.id.epoch, context.stream, record.id.offset.0);
        let user = &mut properties.user_properties;
        user.push(("forebay-id".to_owned(), id));
        if let Some(at) = received_at(&record.received, context.now) {
            user.push(("forebay-received-at".to_owned(), at));
        }
        for (name, set) in [("forebay-late", context.late), ("forebay-retry", context.again)] {
            if set {
                user.push((name.to_owned(), "true".to_owned()));
            }
        }
        properties
    });
    let acked = mapped.qos == Qos::AtLeastOnce;
    Publish {
        retain: record.retain && mapped.keep_retain,
        ..sized(mapped.topic, record.payload.clone(), acked, properties)
    }
}

/// A publish that is not retained, with its size.
pub(crate) fn sized(topic: String, payload: Bytes, acked: bool, properties: Option<PublishProperties>) -> Publish {
    let with_length = |bytes: usize| bytes + variable_length(bytes);
    let properties_len = properties
        .as_ref()
        .map_or(0, |properties| with_length(properties::encoded_len(properties)));
    let remaining = 2 + topic.len() + if acked { 2 } else { 0 } + properties_len + payload.len();
    Publish {
        topic,
        payload,
        acked,
        retain: false,
        properties,
        size: 1 + with_length(remaining),
    }
}

const fn variable_length(value: usize) -> usize {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use forebay_wal::{BootId, Epoch, Offset, Partition, RecordId, StreamId};
    use rumqttc::v5::mqttbytes::{QoS, v5::Publish as Wire};

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp {
            wall_ms: 1_764_115_200_000 + seconds * 1000,
            boot: BootId(1),
            monotonic_ms: seconds * 1000,
            trusted: true,
        }
    }

    fn record(payload: usize, expiry: Option<u32>) -> Record {
        Record {
            id: RecordId {
                epoch: Epoch(0xabc),
                stream: StreamId(0),
                offset: Offset(42),
            },
            stream: StreamId(0),
            offset: Offset(42),
            partition: Partition::of("d1"),
            received: at(0),
            identity: "d1".to_owned(),
            route: "r".to_owned(),
            topic: "t".to_owned(),
            payload: vec![7; payload].into(),
            qos: 1,
            retain: true,
            expiry,
            properties: Bytes::from_static(b"\x01\x01\x03\x00\x04json"),
        }
    }

    fn build(record: &Record, version: Version, late: bool, again: bool) -> Publish {
        let mapped = Mapped {
            topic: "dt/plant/d1".to_owned(),
            qos: Qos::AtLeastOnce,
            keep_retain: false,
        };
        let context = Context {
            version,
            gateway: "plant",
            stream: "telemetry",
            now: &at(5),
            expiry: record.expiry,
            late,
            again,
        };
        compose(record, mapped, &context)
    }

    #[test]
    fn mqtt_5_carries_id_time_and_flags() {
        let publish = build(&record(3, Some(60)), Version::V5, true, false);
        let properties = publish.properties.unwrap();
        let user: Vec<_> = properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            user,
            [
                ("forebay-id", "plant/0000000000000abc/telemetry/42"),
                ("forebay-received-at", "2025-11-26T00:00:00.000Z"),
                ("forebay-late", "true")
            ]
        );
        assert_eq!(
            (properties.content_type.as_deref(), properties.message_expiry_interval),
            (Some("json"), Some(60))
        );
        assert!(!publish.retain, "only if the route keeps it");
        assert!(build(&record(3, None), Version::V311, true, true).properties.is_none());
    }

    #[test]
    fn the_size_is_that_of_the_packet() {
        for payload in [0, 1, 20, 100, 127, 128, 5000, 16_200, 16_384, 131_072] {
            let publish = build(&record(payload, None), Version::V5, false, true);
            let mut wire = Wire::new(publish.topic, QoS::AtLeastOnce, publish.payload, publish.properties);
            wire.pkid = 1;
            assert_eq!(publish.size, wire.size(), "{payload}");
        }
    }

    #[test]
    fn expiry_counts_what_can_be_proved() {
        assert_eq!(remaining_expiry(&record(0, Some(10)), &at(4)), Ok(Some(6)));
        assert_eq!(remaining_expiry(&record(0, Some(10)), &at(10)), Err(()));
        assert_eq!(remaining_expiry(&record(0, None), &at(10)), Ok(None));
        let other_boot = Timestamp {
            boot: BootId(2),
            trusted: false,
            ..at(1_000_000)
        };
        assert_eq!(remaining_expiry(&record(0, Some(10)), &other_boot), Ok(Some(10)));
        assert!(is_late(&at(0), &other_boot));
        assert!(!is_late(&at(0), &at(30)));
    }
}
