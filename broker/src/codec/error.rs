//! What can be wrong with a packet, and whose move it is.

use super::{PacketType, ReasonCode, Version};

/// The result of reading a part of a packet.
pub(super) type Found<T> = Result<T, Fault>;

/// A peer's packet that is refused. The connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{packet} refused: {fault}")]
pub struct DecodeError {
    /// The type its first byte claims.
    pub packet: PacketType,
    /// What is wrong with it.
    pub fault: Fault,
    version: Option<Version>,
}

impl DecodeError {
    pub(super) fn new(packet: PacketType, version: Option<Version>, fault: Fault) -> DecodeError {
        DecodeError { packet, fault, version }
    }

    /// The MQTT 5 reason code for the peer, in CONNACK or DISCONNECT.
    pub fn reason(&self) -> ReasonCode {
        self.fault.reason()
    }

    /// The version to answer in; `None` where a silent close is all there is: the peer's version is not known, or it is 3.1.1, which
    /// has no return code for a malformed CONNECT and wants none (MQTT-3.1.4-1).
    pub fn version(&self) -> Option<Version> {
        match self.fault {
            Fault::UnsupportedLevel(level) if level > 5 => Some(Version::V5),
            Fault::UnsupportedLevel(_) | Fault::BridgeLevel(_) => Some(Version::V311),
            _ if self.packet == PacketType::Connect && self.version == Some(Version::V311) => None,
            _ => self.version,
        }
    }
}

/// What is wrong with a packet. The text ends with the rule of the MQTT 5 specification that forbids it (or its section).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    // Not MQTT, or not a version we serve: the device's software.
    /// The first packet is something else: another protocol, or a connection joined midway.
    #[error("the first packet must be CONNECT; is this an MQTT client on the right port? [MQTT-3.1.0-1]")]
    FirstNotConnect,
    /// The protocol name in CONNECT.
    #[error("the protocol name is not MQTT [MQTT-3.1.2-1]")]
    ProtocolName,
    /// The protocol level in CONNECT.
    #[error("protocol level {0} is not served, levels 4 (3.1.1) and 5 are: update the device's MQTT library [MQTT-3.1.2-2]")]
    UnsupportedLevel(u8),

    /// Level 3 or 4 with the highest bit set, by which a Mosquitto asks whether it may connect as a bridge. Refused in 3.1.1's form it
    /// connects again as a client.
    #[error(
        "protocol level {0:#04x} is a Mosquitto's as a bridge, which comes again as a client at once; `try_private false` in its configuration saves it the try [MQTT-3.1.2-2]"
    )]
    BridgeLevel(u8),
    /// The first bytes are those of a TLS handshake.
    #[error("it speaks TLS; this listener is plain: let the device dial the listener with `tls`, or turn TLS off in the device")]
    SpeaksTls,

    // Over a limit: the device's payload or the operator's limit.
    /// Larger than the configured limit.
    #[error("{size} bytes, the limit is {limit}: raise limits.max_packet if the device may send that [MQTT-3.2.2-15]")]
    TooLarge {
        /// The whole packet in bytes.
        size: usize,
        /// The largest accepted.
        limit: usize,
    },

    // Damaged: the bytes are not a packet.
    /// A type that this version does not have.
    #[error("this packet type is reserved [MQTT 2.1.2]")]
    ReservedType,
    /// Flags in the fixed header.
    #[error("flags {0:#06b} in the fixed header are not allowed [MQTT-2.1.3-1]")]
    Flags(u8),
    /// A length field of more than four bytes.
    #[error("a length field is longer than four bytes [MQTT 1.5.5]")]
    LengthField,
    /// A length field with padding.
    #[error("a length field is longer than needed [MQTT-1.5.5-1]")]
    PaddedLength,
    /// The packet ends within a field.
    #[error("the packet ends within its {0} [MQTT 1.5]")]
    Truncated(&'static str),
    /// The packet has bytes after its last field.
    #[error("{0} bytes are left over after the last field [MQTT 2.1.4]")]
    Trailing(usize),
    /// A string is not UTF-8.
    #[error("the {0} is not valid UTF-8 [MQTT-1.5.4-1]")]
    Utf8(&'static str),
    /// A string contains U+0000.
    #[error("the {0} contains a NUL character [MQTT-1.5.4-2]")]
    Nul(&'static str),
    /// A publish's QoS bits.
    #[error("QoS 3 does not exist [MQTT-3.3.1-4]")]
    QoS3,
    /// The reserved bit in CONNECT.
    #[error("the reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectFlag,
    /// Will QoS or retain that do not fit.
    #[error("the will flags {0:#010b} contradict each other [MQTT-3.1.2-11, -12, -13]")]
    WillFlags(u8),
    /// A property that does not exist.
    #[error("property {0:#04x} does not exist [MQTT 2.2.2.2]")]
    PropertyUnknown(u32),
    /// A property of another packet.
    #[error("property {0:#04x} is not allowed in this packet [MQTT 2.2.2.2]")]
    PropertyMisplaced(u8),
    /// Reserved bits in a subscription's options.
    #[error("subscription options {0:#010b} set reserved bits or a level that does not exist [MQTT-3.8.3-5]")]
    SubscriptionOptions(u8),
    /// The flags byte of CONNACK.
    #[error("acknowledge flags {0:#010b} set reserved bits [MQTT-3.2.2-1]")]
    AcknowledgeFlags(u8),

    // Readable but against the protocol.
    /// A packet only the other side sends.
    #[error("only the other side of a connection sends this packet [MQTT 2.1.2]")]
    WrongDirection,
    /// CONNECT on a connection that has one.
    #[error("the connection already had its CONNECT [MQTT-3.1.0-2]")]
    SecondConnect,
    /// Packet id 0.
    #[error("the packet id is 0 [MQTT-2.2.1-3]")]
    PacketIdZero,
    /// DUP without acknowledgement.
    #[error("DUP is set at QoS 0 [MQTT-3.3.1-2]")]
    DupAtQoS0,
    /// No topic and no alias.
    #[error("the {0} is empty and no alias replaces it [MQTT-4.7.3-1]")]
    TopicEmpty(&'static str),
    /// `+` or `#` where a name is due.
    #[error("the {0} contains a wildcard, which is allowed in filters only [MQTT-3.3.2-2]")]
    TopicWildcard(&'static str),
    /// Topic alias 0.
    #[error("topic alias 0 is not permitted [MQTT-3.3.2-8]")]
    TopicAliasZero,
    /// A subscription identifier from a client.
    #[error("a client's PUBLISH cannot carry a subscription identifier [MQTT-3.3.4-6]")]
    SubscriptionIdFromClient,
    /// The same property twice.
    #[error("property {0:#04x} is given twice [MQTT 2.2.2.2]")]
    PropertyRepeated(u8),
    /// A value outside a property's range.
    #[error("property {id:#04x} cannot be {value} [MQTT 2.2.2.2]")]
    PropertyValue {
        /// The property.
        id: u8,
        /// Its value.
        value: u32,
    },
    /// SUBSCRIBE or UNSUBSCRIBE of nothing, or its answer.
    #[error("the list is empty [MQTT-3.8.3-2, MQTT-3.10.3-2]")]
    NothingListed,
    /// No-local on a shared subscription.
    #[error("a shared subscription cannot be no-local [MQTT-3.8.3-4]")]
    SharedNoLocal,
    /// A password alone, in 3.1.1.
    #[error("a password without a user name, which 3.1.1 does not allow [MQTT-3.1.2-22 of 3.1.1]")]
    PasswordAlone,
    /// Authentication data without the method.
    #[error("authentication data without a method [MQTT 3.1.2.11.9, 3.15.2.2.2]")]
    AuthenticationMethod,
    /// A reason code the packet does not have.
    #[error("reason code {0:#04x} does not belong to this packet [MQTT 2.4]")]
    Reason(u8),
}

impl Fault {
    fn reason(self) -> ReasonCode {
        match self {
            Fault::ProtocolName | Fault::UnsupportedLevel(_) | Fault::BridgeLevel(_) => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            Fault::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            Fault::TopicWildcard(_) => ReasonCode::TOPIC_NAME_INVALID,
            Fault::TopicAliasZero => ReasonCode::TOPIC_ALIAS_INVALID,
            Fault::FirstNotConnect
            | Fault::SpeaksTls
            | Fault::WrongDirection
            | Fault::SecondConnect
            | Fault::PacketIdZero
            | Fault::TopicEmpty(_)
            | Fault::SubscriptionIdFromClient
            | Fault::PropertyRepeated(_)
            | Fault::PropertyValue { .. }
            | Fault::NothingListed
            | Fault::SharedNoLocal
            | Fault::PasswordAlone
            | Fault::AuthenticationMethod
            | Fault::Reason(_) => ReasonCode::PROTOCOL_ERROR,
            Fault::ReservedType
            | Fault::Flags(_)
            | Fault::LengthField
            | Fault::PaddedLength
            | Fault::Truncated(_)
            | Fault::Trailing(_)
            | Fault::Utf8(_)
            | Fault::Nul(_)
            | Fault::QoS3
            | Fault::DupAtQoS0
            | Fault::ConnectFlag
            | Fault::WillFlags(_)
            | Fault::PropertyUnknown(_)
            | Fault::PropertyMisplaced(_)
            | Fault::SubscriptionOptions(_)
            | Fault::AcknowledgeFlags(_) => ReasonCode::MALFORMED_PACKET,
        }
    }
}

/// A packet of ours that cannot be put on the wire. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field above 65,535 bytes.
    #[error("the {field} has {size} bytes, MQTT carries at most 65535 in such a field")]
    FieldTooLong {
        /// Which one.
        field: &'static str,
        /// Its length in bytes.
        size: usize,
    },
    /// A whole packet above what the length field can say.
    #[error("the packet has {size} bytes after its fixed header, MQTT carries at most 268435455")]
    PacketTooLong {
        /// Its remaining length in bytes.
        size: usize,
    },
    /// A value that has no form on the wire.
    #[error("{0}")]
    Unsayable(&'static str),
}
