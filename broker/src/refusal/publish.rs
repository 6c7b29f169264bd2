//! Why a PUBLISH is refused.

use forebay_topic::PeerText;
use forebay_wal::AppendError;

use crate::codec::{QoS, ReasonCode, Version};
use crate::context::Context;
use crate::observe::{Disconnection, Refusal, Stats};
use crate::policy::{OverBound, Undeliverable};

/// Why a publish is not accepted. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedPublish {
    #[error("its topic is not valid UTF-8")]
    InvalidTopic,
    #[error("its topic is refused: {0}")]
    OverBound(OverBound),
    #[error("no access rule of this identity allows the topic; correct the topic, or `access` in the configuration")]
    NotAuthorized,
    /// It would go round for ever.
    #[error(
        "it was sent to the cloud by this gateway and has come back: its user property `forebay-id` is ours; a broker behind `cloud` sends here what it gets from here: end that bridge, or bridge other topics"
    )]
    Loop,
    /// The cloud can never accept it.
    #[error("{}", .0.detail)]
    Undeliverable(Undeliverable),
    #[error("{0}")]
    TooLarge(AppendError),
    /// Its stream or the disk is full, or too many changes of retained messages wait for the checkpoint.
    #[error("the log is full")]
    LogFull,
    #[error("the log cannot write at the moment")]
    LogUnavailable,
    /// It was appended, and its commit failed: it is not in the log.
    #[error("the commit failed")]
    CommitFailed,
}

/// What the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishAnswer {
    /// At QoS 0 there is no answer.
    Nothing,
    Code(ReasonCode),
    /// The same, late: a device that sends again at once must not spin.
    DelayedCode(ReasonCode),
    /// None yet: MQTT 3.1.1 has no code for it, so the publish waits for room.
    Park,
    /// The ack of an accepted publish. MQTT 3.1.1 has no code for a refusal, and allows the ack (MQTT-3.3.5-2). Closing would be
    /// worse: clients send a refused publish first after each reconnect, so nothing behind it would ever arrive.
    AckAndDrop,
    /// MQTT 3.1.1 has no answer that would be true but the end of the connection (MQTT-3.3.5-2).
    Close(Disconnection),
}

impl RefusedPublish {
    pub(crate) fn answer(&self, version: Version, qos: QoS) -> PublishAnswer {
        match (qos, version) {
            (QoS::AtMostOnce, _) => PublishAnswer::Nothing,
            (_, Version::V5) if self.is_temporary() => PublishAnswer::DelayedCode(self.code()),
            (_, Version::V5) => PublishAnswer::Code(self.code()),
            (_, Version::V311) if self.is_temporary() => PublishAnswer::Park,
            (_, Version::V311) if self.is_promised_nothing() => PublishAnswer::AckAndDrop,
            (_, Version::V311) => PublishAnswer::Close(self.disconnection()),
        }
    }

    /// The reason code of MQTT 5.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            Self::InvalidTopic | Self::OverBound(_) => ReasonCode::TOPIC_NAME_INVALID,
            // PUBACK has no code for a size (MQTT 5, table 3-4).
            Self::Undeliverable(why) if why.reason == "payload-too-large" => ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
            Self::Undeliverable(_) => ReasonCode::TOPIC_NAME_INVALID,
            Self::Loop | Self::TooLarge(_) | Self::CommitFailed => ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
            Self::LogFull | Self::LogUnavailable => ReasonCode::QUOTA_EXCEEDED,
        }
    }

    /// What the end of a 3.1.1 connection is counted as.
    pub(crate) fn disconnection(&self) -> Disconnection {
        match self {
            Self::InvalidTopic | Self::OverBound(_) | Self::NotAuthorized | Self::Loop | Self::Undeliverable(_) => {
                Disconnection::NotAuthorized
            }
            Self::TooLarge(_) => Disconnection::PacketTooLarge,
            Self::LogFull | Self::LogUnavailable | Self::CommitFailed => Disconnection::LogFailed,
        }
    }

    /// Whether the same publish may be accepted later. Until then local subscribers get it at QoS 0.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::LogFull | Self::LogUnavailable)
    }

    /// Whether the topic can never be accepted from this identity, so that acking it breaks no promise.
    fn is_promised_nothing(&self) -> bool {
        matches!(self, Self::InvalidTopic | Self::OverBound(_) | Self::NotAuthorized | Self::Loop)
    }

    pub(crate) fn count(&self, qos: QoS, stats: &Stats) {
        stats.refuse(self.counter(), qos == QoS::AtMostOnce);
    }

    /// Says so in the log, unless the log's own state is the reason: that is reported once, not with every publish.
    /// Once for each identity and reason.
    pub(crate) fn log(&self, identity: &str, topic: &[u8], context: &Context) {
        let reason = match self {
            Self::LogFull | Self::LogUnavailable | Self::CommitFailed => return,
            Self::Undeliverable(why) => why.reason,
            _ => self.counter().label(),
        };
        if context.is_first(identity, reason) {
            let topic = String::from_utf8_lossy(topic);
            let (identity, topic) = (PeerText::new(identity), PeerText::new(&topic));
            tracing::warn!(?identity, ?topic, reason, "a publish was refused: {self}");
        }
    }

    /// A will is refused in silence by the protocol, and no device sends it again: the log says so whatever the reason.
    pub(crate) fn log_will(&self, identity: &str, topic: &[u8], context: &Context) {
        if context.is_first(identity, "will") {
            let topic = String::from_utf8_lossy(topic);
            let (identity, topic) = (PeerText::new(identity), PeerText::new(&topic));
            tracing::warn!(?identity, ?topic, reason = self.counter().label(), "a will was refused: {self}");
        }
    }

    fn counter(&self) -> Refusal {
        match self {
            Self::InvalidTopic | Self::NotAuthorized => Refusal::NotAuthorized,
            Self::OverBound(_) => Refusal::TopicBounds,
            Self::Loop => Refusal::Loop,
            Self::Undeliverable(_) | Self::TooLarge(_) => Refusal::Undeliverable,
            Self::LogFull => Refusal::LogFull,
            Self::LogUnavailable => Refusal::LogUnavailable,
            Self::CommitFailed => Refusal::CommitFailed,
        }
    }
}

/// Everything but a full log: that needs no code of its own here.
impl From<AppendError> for RefusedPublish {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::StreamFull { .. } | AppendError::DiskFull => Self::LogFull,
            AppendError::TooLarge { .. } => Self::TooLarge(error),
            _ => Self::LogUnavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_one_answer_for_each_version_and_qos() {
        use PublishAnswer::{AckAndDrop, Close, Code, DelayedCode, Nothing, Park};
        let undeliverable = |reason| {
            RefusedPublish::Undeliverable(Undeliverable {
                reason,
                detail: String::new(),
            })
        };
        let cases = [
            (RefusedPublish::Loop, Code(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR), AckAndDrop),
            (RefusedPublish::NotAuthorized, Code(ReasonCode::NOT_AUTHORIZED), AckAndDrop),
            (RefusedPublish::InvalidTopic, Code(ReasonCode::TOPIC_NAME_INVALID), AckAndDrop),
            (
                RefusedPublish::OverBound(OverBound::Levels { levels: 33, limit: 32 }),
                Code(ReasonCode::TOPIC_NAME_INVALID),
                AckAndDrop,
            ),
            (
                undeliverable("topic-too-long"),
                Code(ReasonCode::TOPIC_NAME_INVALID),
                Close(Disconnection::NotAuthorized),
            ),
            (
                undeliverable("payload-too-large"),
                Code(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR),
                Close(Disconnection::NotAuthorized),
            ),
            (RefusedPublish::LogFull, DelayedCode(ReasonCode::QUOTA_EXCEEDED), Park),
            (RefusedPublish::LogUnavailable, DelayedCode(ReasonCode::QUOTA_EXCEEDED), Park),
            (
                RefusedPublish::CommitFailed,
                Code(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR),
                Close(Disconnection::LogFailed),
            ),
        ];
        for (refused, v5, v311) in cases {
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                assert_eq!(refused.answer(Version::V5, qos), v5, "{refused:?}");
                assert_eq!(refused.answer(Version::V311, qos), v311, "{refused:?}");
            }
            assert_eq!(refused.answer(Version::V5, QoS::AtMostOnce), Nothing, "{refused:?}");
            assert_eq!(refused.answer(Version::V311, QoS::AtMostOnce), Nothing, "{refused:?}");
        }
    }
}
