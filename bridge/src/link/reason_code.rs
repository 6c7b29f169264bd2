//! What the cloud's answers mean for a record.

/// What becomes of a record after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The cloud has it.
    Delivered,
    /// Not now: its device waits until it is in.
    Retry,
    /// The cloud does not say why: like `Retry`, and after [`UNCLEAR_TRIES`] like `Denied`.
    Unclear,
    /// Not allowed, for now: its pair of route and device is suspended; never a dead letter.
    Denied,
    /// Wrong in itself: a dead letter with this reason.
    Wrong(&'static str),
}

/// How often a record is tried again that the cloud refuses without a usable reason, or whose device fills the read-ahead
/// while it waits; about ten seconds.
pub(crate) const UNCLEAR_TRIES: u32 = 8;

/// The verdict of an MQTT 5 PUBACK. MQTT 3.1.1 knows success only.
pub(crate) const fn puback(code: u8) -> Outcome {
    match code {
        0x00 | 0x10 => Outcome::Delivered,
        0x87 => Outcome::Denied,
        0x90 => Outcome::Wrong("topic-refused"),
        0x95 => Outcome::Wrong("packet-too-large"),
        0x99 => Outcome::Wrong("payload-refused"),
        0x91 | 0x97 => Outcome::Retry,
        _ => Outcome::Unclear,
    }
}

/// What an MQTT 5 DISCONNECT says about a message, if it says anything: some clouds close where they could refuse.
pub(crate) const fn disconnect(code: u8) -> Option<Outcome> {
    match code {
        0x87 => Some(Outcome::Denied),
        0x90 => Some(Outcome::Wrong("topic-refused")),
        0x95 => Some(Outcome::Wrong("packet-too-large")),
        0x99 => Some(Outcome::Wrong("payload-refused")),
        0x81 | 0x82 | 0x9A | 0x9B => Some(Outcome::Wrong("message-refused")),
        _ => None,
    }
}

/// A reason code in words, as MQTT 5 §2.4 names them; below 0x80 also those of a CONNACK of MQTT 3.1.1.
pub(crate) const fn words(code: u8) -> &'static str {
    match code {
        0x00 => "normal",
        0x01 => "unacceptable protocol version",
        0x02 => "identifier rejected",
        0x03 => "server unavailable",
        0x04 => "bad user name or password",
        0x05 => "not authorized",
        0x10 => "no matching subscribers",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "banned",
        0x8B => "server shutting down",
        0x8C => "bad authentication method",
        0x8D => "keep alive timeout",
        0x8E => "session taken over",
        0x8F => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x92 => "packet identifier not found",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9C => "use another server",
        0x9D => "server moved",
        0x9E => "shared subscriptions not supported",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        0xA1 => "subscription identifiers not supported",
        0xA2 => "wildcard subscriptions not supported",
        _ => "a code that MQTT does not have",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_mqtt_5_defines_for_puback_has_its_verdict() {
        for (code, expected) in [
            (0x00, Outcome::Delivered),
            (0x10, Outcome::Delivered),
            (0x80, Outcome::Unclear),
            (0x83, Outcome::Unclear),
            (0x87, Outcome::Denied),
            (0x90, Outcome::Wrong("topic-refused")),
            (0x91, Outcome::Retry),
            (0x97, Outcome::Retry),
            (0x99, Outcome::Wrong("payload-refused")),
        ] {
            assert_eq!(puback(code), expected, "{code:#04x}");
        }
    }

    #[test]
    fn a_disconnect_for_reasons_of_the_server_blames_no_message() {
        for code in [0x00, 0x80, 0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x96, 0x97, 0x98, 0x9C, 0x9D, 0x9F, 0xA0] {
            assert_eq!(disconnect(code), None, "{code:#04x}");
        }
    }

    #[test]
    fn every_dead_reason_is_in_the_catalogue() {
        for code in 0..=255 {
            if let Outcome::Wrong(reason) = puback(code) {
                assert!(crate::DEAD_REASONS.contains(&reason));
            }
            if let Some(Outcome::Wrong(reason)) = disconnect(code) {
                assert!(crate::DEAD_REASONS.contains(&reason));
            }
        }
    }
}
