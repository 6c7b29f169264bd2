//! A string that shares the read buffer.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::error::{Fault, Found};

/// UTF-8 backed by [`Bytes`]: cloning and slicing out of a read buffer copy nothing.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// A string known at compile time.
    pub const fn from_static(text: &'static str) -> Text {
        Text(Bytes::from_static(text.as_bytes()))
    }

    /// The string. Prefer [`Text::as_bytes`] where bytes will do: this checks the UTF-8 again, some nanoseconds.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("every constructor checks the UTF-8")
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// A copy of the string, so that it no longer keeps a read buffer in memory.
    pub fn detached(&self) -> Text {
        Text(Bytes::copy_from_slice(&self.0))
    }

    /// Wraps what a reader cut out, if it is what MQTT calls a string.
    pub(super) fn checked(bytes: Bytes, field: &'static str) -> Found<Text> {
        check(&bytes, field)?;
        Ok(Text(bytes))
    }
}

/// Refuses what is not UTF-8 and the one character MQTT excludes.
pub(super) fn check(bytes: &[u8], field: &'static str) -> Found<()> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Fault::Utf8(field));
    }
    if bytes.contains(&0) {
        return Err(Fault::Nul(field));
    }
    Ok(())
}

/// Refuses wildcards, which only filters may hold.
pub(super) fn check_name(bytes: &[u8], field: &'static str) -> Found<()> {
    if bytes.iter().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Fault::TopicWildcard(field));
    }
    Ok(())
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Bytes::from(text))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = std::str::Utf8Error;
    fn try_from(bytes: Bytes) -> Result<Text, Self::Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Text(bytes))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
