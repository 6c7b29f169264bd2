//! Topic names, as a PUBLISH has them.

/// Longest topic name or filter in bytes (MQTT-4.7.3-3).
pub(crate) const MAX_BYTES: usize = 65_535;

/// Why a string is not a topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Topic names have at least one character (MQTT-4.7.3-1).
    #[error("the topic is empty")]
    Empty,
    /// Wildcards are for filters (MQTT-3.3.2-2).
    #[error("the topic contains the wildcard `{0}`, which is allowed in filters only")]
    Wildcard(char),
    /// U+0000 is forbidden (MQTT-4.7.3-2).
    #[error("the topic contains the character U+0000")]
    Nul,
    /// Longer than its length field allows (MQTT-4.7.3-3).
    #[error("the topic has {0} bytes; the limit is 65535")]
    TooLong(usize),
}

/// Checks that `topic` is allowed in a PUBLISH.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_name(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > MAX_BYTES {
        return Err(TopicError::TooLong(topic.len()));
    }
    for byte in topic.bytes() {
        match byte {
            b'+' | b'#' => return Err(TopicError::Wildcard(char::from(byte))),
            0 => return Err(TopicError::Nul),
            _ => {}
        }
    }
    Ok(())
}
