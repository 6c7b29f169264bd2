//! Refusals: how a refused CONNECT, PUBLISH or SUBSCRIBE is answered, counted and logged. It is decided here only.
//!
//! | refused | MQTT 5 | MQTT 3.1.1 |
//! |---|---|---|
//! | CONNECT | CONNACK with the code | CONNACK with the nearest return code |
//! | PUBLISH at QoS 0 | nothing, there is no answer | nothing |
//! | PUBLISH to a topic that is not allowed, or over a bound | PUBACK or PUBREC with the code | PUBACK or PUBREC, and it is dropped and counted (MQTT-3.3.5-2 allows it) |
//! | PUBLISH that the log can never take | PUBACK or PUBREC with the code | the connection ends (MQTT-3.3.5-2) |
//! | PUBLISH while the log is full or cannot write | PUBACK or PUBREC with 0x97, late | nothing yet: the publish is parked |
//! | PUBLISH whose commit failed | PUBACK or PUBREC with 0x83 | the connection ends unanswered |
//! | SUBSCRIBE | SUBACK with the code, for this filter | SUBACK with 0x80, for this filter |

mod connect;
mod publish;
mod subscription;

use crate::codec::{DecodeError, Fault};
use crate::observe::Disconnection;

pub(crate) use connect::RefusedConnect;
pub(crate) use publish::{PublishAnswer, RefusedPublish};
pub(crate) use subscription::RefusedSubscription;

/// What a packet that cannot be decoded is counted as.
pub(crate) fn undecodable(error: &DecodeError) -> Disconnection {
    match error.fault {
        Fault::UnsupportedLevel(_) | Fault::BridgeLevel(_) => Disconnection::UnsupportedVersion,
        Fault::TooLarge { .. } => Disconnection::PacketTooLarge,
        _ => Disconnection::Protocol,
    }
}
