//! The identity of a connection: one topic level, derived by the listener's template.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use forebay_topic::{PeerText, unsafe_character};

use super::PeerCertificate;

/// The longest identity, in bytes of UTF-8.
pub const MAX_IDENTITY_BYTES: usize = 128;

/// The identity of a connection. Always exactly one topic level: not empty, no `/`, `+`, `#` or NUL, at most 128 bytes,
/// and no control, format or separator character other than the plain space.
///
/// So it can be part of a topic, an access rule and a metric as it is. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

impl Identity {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`IdentityError`] if it is not one topic level of at most [`MAX_IDENTITY_BYTES`].
    pub fn new(text: &str) -> Result<Self, IdentityError> {
        if text.is_empty() {
            return Err(IdentityError::Empty);
        }
        if let Some(found) = text.chars().find(|c| matches!(c, '/' | '+' | '#' | '\0')) {
            return Err(IdentityError::NotOneLevel {
                text: PeerText::new(text).to_string(),
                found,
            });
        }
        if let Some(found) = unsafe_character(text) {
            return Err(IdentityError::NotPlain {
                text: PeerText::new(text).to_string(),
                found,
            });
        }
        if text.len() > MAX_IDENTITY_BYTES {
            return Err(IdentityError::TooLong { bytes: text.len() });
        }
        Ok(Self(text.into()))
    }
}

impl Deref for Identity {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Identity {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why a connection has no identity; it is refused with this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The field that the template reads is empty.
    #[error("the identity is empty; the listener's `identity` template must yield at least one character for this peer")]
    Empty,
    /// A character that would make it more than one topic level, or a wildcard.
    #[error("the identity \"{text}\" contains {found:?}; it must be one topic level, without / + # and NUL: give the device another name")]
    NotOneLevel {
        /// The identity, escaped.
        text: String,
        /// The first offending character.
        found: char,
    },
    /// A character that could forge a log line or make it look like another identity.
    #[error(
        "the identity \"{text}\" contains {found:?}; it must have no control, format or separator characters (the plain space may be in it): give the device another name"
    )]
    NotPlain {
        /// The identity, escaped.
        text: String,
        /// The first offending character.
        found: char,
    },
    /// Longer than [`MAX_IDENTITY_BYTES`].
    #[error("the identity is {bytes} bytes long; the limit is {MAX_IDENTITY_BYTES}: give the device a shorter name")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The template needs a certificate and the listener has no TLS.
    #[error("the template reads {field} and this listener has no TLS; use a fixed word or {{client_id}} there")]
    NoCertificate {
        /// The placeholder.
        field: &'static str,
    },
    /// The certificate lacks the field, or has several common names.
    #[error(
        "the template reads {field} and the certificate of \"{subject}\" has none (or several common names); issue a new one with exactly one"
    )]
    NoField {
        /// The placeholder.
        field: &'static str,
        /// The certificate's subject.
        subject: String,
    },
}

/// Why a template is refused when the configuration is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder we do not know.
    #[error("unknown placeholder {{{name}}}; known placeholders: {{cn}}, {{san_uri}}, {{san_dns}}, {{client_id}}")]
    UnknownPlaceholder {
        /// The name between the braces.
        name: String,
    },
    /// `{` without `}`, or the reverse.
    #[error("unbalanced brace in \"{template}\"; a placeholder is written {{cn}}")]
    UnbalancedBrace {
        /// The template.
        template: String,
    },
    /// The fixed text alone is not a valid part of an identity.
    #[error("the fixed text of the template can never be part of an identity")]
    Text(#[source] IdentityError),
}

/// How a listener derives identities: `{cn}`, `{san_uri}`, `{san_dns}`, `{client_id}`, each alone or within text, or a fixed word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    CommonName,
    SanUri,
    SanDns,
    ClientId,
}

impl IdentityTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] for unknown placeholders, loose braces and text that can be no part of an identity.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let unbalanced = || TemplateError::UnbalancedBrace {
            template: template.to_owned(),
        };
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, tail) = rest.split_at(open);
            let tail = tail.strip_prefix('{').ok_or_else(unbalanced)?;
            let (name, after) = tail.split_once('}').ok_or_else(unbalanced)?;
            push_text(&mut parts, text);
            parts.push(Part::Field(Field::named(name)?));
            rest = after;
        }
        push_text(&mut parts, rest);
        if parts.is_empty() {
            return Err(TemplateError::Text(IdentityError::Empty));
        }
        for part in &parts {
            if let Part::Text(text) = part {
                Identity::new(text).map_err(TemplateError::Text)?;
            }
        }
        Ok(Self { parts })
    }

    /// The word, if this template is one: every connection of the listener then has this identity.
    pub fn fixed_word(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(word)] => Some(word),
            _ => None,
        }
    }

    /// True if it reads a certificate, so that a listener without TLS could never satisfy it.
    pub fn needs_certificate(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Field(field) if *field != Field::ClientId))
    }

    /// The identity of a peer with this certificate (none on a plain listener) and MQTT client id.
    ///
    /// # Errors
    /// [`IdentityError`] when a field is missing or the outcome is not one topic level.
    pub fn identity(&self, peer: Option<&PeerCertificate>, client_id: &str) -> Result<Identity, IdentityError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Field(field) => text.push_str(field.value(peer, client_id)?),
            }
        }
        Identity::new(&text)
    }
}

impl Field {
    fn named(name: &str) -> Result<Self, TemplateError> {
        match name {
            "cn" => Ok(Self::CommonName),
            "san_uri" => Ok(Self::SanUri),
            "san_dns" => Ok(Self::SanDns),
            "client_id" => Ok(Self::ClientId),
            _ => Err(TemplateError::UnknownPlaceholder { name: name.to_owned() }),
        }
    }

    fn placeholder(self) -> &'static str {
        match self {
            Self::CommonName => "{cn}",
            Self::SanUri => "{san_uri}",
            Self::SanDns => "{san_dns}",
            Self::ClientId => "{client_id}",
        }
    }

    /// An empty field is an error even inside other text: two devices with no name must not become one identity.
    fn value<'a>(self, peer: Option<&'a PeerCertificate>, client_id: &'a str) -> Result<&'a str, IdentityError> {
        if self == Self::ClientId {
            return if client_id.is_empty() {
                Err(IdentityError::Empty)
            } else {
                Ok(client_id)
            };
        }
        let field = self.placeholder();
        let peer = peer.ok_or(IdentityError::NoCertificate { field })?;
        let value = match self {
            Self::CommonName => &peer.cn,
            Self::SanUri => &peer.san_uri,
            Self::SanDns | Self::ClientId => &peer.san_dns,
        };
        value
            .as_deref()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| IdentityError::NoField {
                field,
                subject: PeerText::new(&peer.subject).to_string(),
            })
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(cn: Option<&str>) -> PeerCertificate {
        PeerCertificate {
            cn: cn.map(str::to_owned),
            san_uri: Some("urn:dev:ops:32473-7".into()),
            san_dns: Some("board-7.plant.local".into()),
            subject: "CN=board-7".into(),
            issuer: "CN=ca".into(),
            serial: "01".into(),
            not_before: 0,
            not_after: 1,
        }
    }

    fn identity(template: &str, cn: &str, client_id: &str) -> Result<Identity, IdentityError> {
        IdentityTemplate::parse(template)
            .unwrap()
            .identity(Some(&peer(Some(cn))), client_id)
    }

    #[test]
    fn each_placeholder_yields_its_field_alone_and_within_text() {
        assert_eq!(&*identity("{cn}", "board-7", "x").unwrap(), "board-7");
        assert_eq!(&*identity("{san_uri}", "board-7", "x").unwrap(), "urn:dev:ops:32473-7");
        assert_eq!(&*identity("{san_dns}", "board-7", "x").unwrap(), "board-7.plant.local");
        assert_eq!(&*identity("{client_id}", "board-7", "x").unwrap(), "x");
        assert_eq!(&*identity("hall-2.{cn}.{client_id}", "board-7", "x").unwrap(), "hall-2.board-7.x");
    }

    #[test]
    fn a_fixed_word_needs_neither_certificate_nor_client_id() {
        let template = IdentityTemplate::parse("local").unwrap();
        assert_eq!(template.fixed_word(), Some("local"));
        assert!(!template.needs_certificate());
        assert_eq!(&*template.identity(None, "").unwrap(), "local");
    }

    #[test]
    fn an_identity_holds_no_character_that_forges_or_hides() {
        for hidden in [
            '\n', '\u{1b}', '\u{7f}', '\u{85}', '\u{202e}', '\u{200b}', '\u{feff}', '\u{2028}', '\u{a0}', '\u{3000}',
        ] {
            let text = format!("board{hidden}1");
            let refused = Identity::new(&text).unwrap_err();
            assert!(
                matches!(&refused, IdentityError::NotPlain { found, .. } if *found == hidden),
                "{refused}"
            );
            assert!(!refused.to_string().contains(hidden), "the refusal shows it escaped: {refused}");
        }
        for plain in ["board 1", "Präge-7", "温度計"] {
            assert_eq!(&*Identity::new(plain).unwrap(), plain);
        }
    }

    #[test]
    fn an_identity_is_one_topic_level() {
        for bad in ["+", "#", "a/b", "a+", "a#b", "a\0b"] {
            assert!(
                matches!(identity("{cn}", bad, "x"), Err(IdentityError::NotOneLevel { .. })),
                "{bad:?}"
            );
        }
        assert_eq!(Identity::new(""), Err(IdentityError::Empty));
        assert!(Identity::new(&"x".repeat(128)).is_ok());
        assert_eq!(Identity::new(&"é".repeat(65)), Err(IdentityError::TooLong { bytes: 130 }));
        assert_eq!(identity("x{cn}", &"y".repeat(128), ""), Err(IdentityError::TooLong { bytes: 129 }));
    }

    #[test]
    fn a_missing_field_is_refused_and_not_left_empty() {
        let template = IdentityTemplate::parse("dev-{cn}").unwrap();
        assert!(matches!(
            template.identity(Some(&peer(None)), "x"),
            Err(IdentityError::NoField { field: "{cn}", .. })
        ));
        assert!(matches!(
            template.identity(Some(&peer(Some(""))), "x"),
            Err(IdentityError::NoField { .. })
        ));
        assert_eq!(template.identity(None, "x"), Err(IdentityError::NoCertificate { field: "{cn}" }));
        assert_eq!(
            IdentityTemplate::parse("c-{client_id}").unwrap().identity(None, ""),
            Err(IdentityError::Empty)
        );
    }

    #[test]
    fn a_template_that_could_never_work_is_refused_when_read() {
        assert_eq!(
            IdentityTemplate::parse("{CN}"),
            Err(TemplateError::UnknownPlaceholder { name: "CN".into() })
        );
        assert!(matches!(IdentityTemplate::parse("{cn"), Err(TemplateError::UnbalancedBrace { .. })));
        assert!(matches!(IdentityTemplate::parse("cn}"), Err(TemplateError::UnbalancedBrace { .. })));
        assert!(matches!(
            IdentityTemplate::parse(""),
            Err(TemplateError::Text(IdentityError::Empty))
        ));
        assert!(matches!(IdentityTemplate::parse("a/{cn}"), Err(TemplateError::Text(_))));
    }
}
