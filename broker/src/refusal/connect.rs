//! Why a CONNECT is refused.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_topic::PeerText;

use crate::budget::Exceeded;
use crate::codec::{DecodeError, ReasonCode};
use crate::context::Context;
use crate::observe::Disconnection;
use crate::policy::OverBound;
use crate::session::AttachError;
use crate::tls::{Identity, IdentityError};

/// Why a connection is not accepted. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedConnect {
    #[error("{0}")]
    Undecodable(DecodeError),
    #[error("its client id has {bytes} bytes; the limit is {limit}")]
    ClientIdTooLong { bytes: usize, limit: usize },
    #[error("an empty client id needs clean session (MQTT-3.1.3-8)")]
    NoClientId,
    #[error("no client id could be made: {0}")]
    NoRandomness(getrandom::Error),
    #[error("its identity cannot be used: {0}")]
    BadIdentity(IdentityError),
    #[error("it claims the identity `{0}`, which another listener gives as a fixed word; give this device another name")]
    ClaimedIdentity(Identity),
    #[error("{0} asks for enhanced authentication, which is not in this version; a certificate is enough")]
    EnhancedAuthentication(Identity),
    #[error("the access rules do not let {identity} publish its will to `{}`{}", PeerText::new(.topic), of_a_bridge(.topic))]
    WillNotAuthorized { identity: Identity, topic: String },
    #[error("the topic of {identity}'s will is refused: {error}")]
    WillOverBound { identity: Identity, error: OverBound },
    #[error("the will of {identity} is not kept: {exceeded}")]
    WillOverBudget { identity: Identity, exceeded: Exceeded },
    #[error("{identity} takes packets of at most {limit} bytes (Maximum Packet Size), and its CONNACK is larger; raise that in the device")]
    PacketSize { identity: Arc<str>, limit: usize },
    #[error("{identity}: {error}")]
    Session { identity: Identity, error: AttachError },
}

/// What a Mosquitto that connects as a bridge leaves unless it is told not to.
fn of_a_bridge(will: &str) -> &'static str {
    if will.starts_with("$SYS/broker/connection/") {
        "; it is a Mosquitto's as a bridge: allow `$SYS/broker/connection/#` (`#` does not match it), or set `notifications false` there"
    } else {
        ""
    }
}

impl RefusedConnect {
    /// The code of CONNACK; on 3.1.1 the codec says the nearest one.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::Undecodable(error) => error.reason(),
            Self::ClientIdTooLong { .. } | Self::NoClientId | Self::NoRandomness(_) => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            Self::BadIdentity(_) | Self::ClaimedIdentity(_) | Self::WillNotAuthorized { .. } => ReasonCode::NOT_AUTHORIZED,
            Self::WillOverBound { .. } => ReasonCode::TOPIC_NAME_INVALID,
            Self::WillOverBudget { .. } => ReasonCode::QUOTA_EXCEEDED,
            Self::PacketSize { .. } => ReasonCode::PACKET_TOO_LARGE,
            Self::EnhancedAuthentication(_) => ReasonCode::BAD_AUTHENTICATION_METHOD,
            Self::Session { error, .. } => match error {
                AttachError::OverBound(_) => ReasonCode::QUOTA_EXCEEDED,
                AttachError::NotCommitted => ReasonCode::SERVER_UNAVAILABLE,
                AttachError::Superseded | AttachError::Late => ReasonCode::SERVER_BUSY,
            },
        }
    }

    /// What the end of the connection is counted as.
    pub(crate) fn disconnection(&self) -> Disconnection {
        match self {
            Self::Undecodable(error) => super::undecodable(error),
            Self::ClientIdTooLong { .. } | Self::NoClientId | Self::NoRandomness(_) => Disconnection::BadClientId,
            Self::BadIdentity(_) | Self::ClaimedIdentity(_) => Disconnection::BadIdentity,
            Self::WillOverBudget { .. } => Disconnection::OverBudget,
            Self::PacketSize { .. } => Disconnection::PacketTooLarge,
            Self::EnhancedAuthentication(_) | Self::WillNotAuthorized { .. } | Self::WillOverBound { .. } => Disconnection::NotAuthorized,
            Self::Session { error, .. } => match error {
                AttachError::OverBound(_) => Disconnection::TooManyConnections,
                AttachError::NotCommitted => Disconnection::LogFailed,
                AttachError::Superseded => Disconnection::TakenOver,
                AttachError::Late => Disconnection::ConnectTimeout,
            },
        }
    }

    /// Says so in the log, once for each address and reason.
    pub(crate) fn log(&self, peer: SocketAddr, context: &Context) {
        if context.is_first_from(peer.ip(), self.disconnection().label()) {
            tracing::warn!(%peer, "a connection was refused: {self}");
        }
    }
}
