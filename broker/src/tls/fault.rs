//! Failed handshakes, by what an operator does about them.

use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use forebay_chain::Unbounded;
use forebay_topic::PeerText;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::verifier::{self, Presented};
use super::{PeerCertificate, causes, name_is_covered, utc_text};

/// Why a handshake failed.
///
/// The text has what happened and what to do. The peer is described by [`HandshakeFailure`]; the caller logs its address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFault {
    /// The peer spoke something else on the TLS port.
    #[error(
        "the peer does not speak TLS ({looks_like}); give it the device's certificate and key and turn TLS on, or use the plain listener"
    )]
    NotTls {
        /// What its first bytes look like.
        looks_like: &'static str,
    },
    /// The peer has only versions before TLS 1.2.
    #[error("the peer offers nothing newer than {offered}; the listener needs TLS 1.2 or 1.3: update the device's TLS library")]
    VersionTooOld {
        /// The newest version it offered.
        offered: &'static str,
    },
    /// No common version, cipher suite, group or signature scheme.
    #[error(
        "no TLS parameters in common: {detail}; the listener takes TLS 1.2 (ECDHE with AES-GCM or ChaCha20) and 1.3, groups X25519, P-256, P-384"
    )]
    Incompatible {
        /// What was missing.
        detail: String,
    },
    /// The peer can verify servers with one kind of key only, and ours is of another.
    #[error(
        "the peer takes only servers with {wanted} keys, and this listener's certificate has an {ours} key: turn {ours} on in the device, or give the listener a certificate with {wanted} keys (of RSA 2048 bits, made with openssl)"
    )]
    KeyKind {
        /// What the peer takes.
        wanted: &'static str,
        /// What ours is.
        ours: &'static str,
    },
    /// The peer presented no client certificate.
    #[error(
        "the peer presented no certificate; issue one with `forebay certs device NAME` (certificate and key). A device also sends none if its key is of a kind that is not taken here: P-256, P-384, Ed25519 and RSA of 2048 bits or more are, P-521 and Ed448 are not"
    )]
    NoCertificate,
    /// The certificate is from a CA that is not in `client_ca`.
    #[error("the peer's certificate is not from a CA in this listener's `client_ca`; issue one from your CA, or add its CA to that file")]
    UnknownCa,
    /// It names one of our CAs, but is signed with another key: a new CA with the name of an old one.
    #[error(
        "the peer's certificate names a CA of `client_ca` as issuer, but was signed with another key, probably that of an earlier CA of the same name: issue a new certificate, or keep the old CA in `client_ca` too"
    )]
    ForgedOrOldCa,
    /// Past its end.
    #[error("the peer's certificate expired at {not_after} (now: {judged}); issue a new one")]
    Expired {
        /// The end of its validity.
        not_after: String,
        /// The time it was judged by.
        judged: String,
    },
    /// A certificate between the peer's own and the CA is past its end.
    #[error(
        "the certificate of the CA \"{}\" between the peer's and ours expired at {not_after} (now: {judged}); renew that CA's, and give it to its devices: their own need no new one",
        PeerText::new(.subject)
    )]
    ExpiredIssuer {
        /// The CA.
        subject: String,
        /// The end of its validity.
        not_after: String,
        /// The time it was judged by.
        judged: String,
    },
    /// Before its start.
    #[error(
        "the peer's certificate is valid only from {not_before} (now: {judged}); set the gateway's clock, or issue one with an earlier start"
    )]
    NotYetValid {
        /// The start of its validity.
        not_before: String,
        /// The time it was judged by.
        judged: String,
    },
    /// Named by a revocation list.
    #[error("the peer's certificate is revoked; if the device may connect again, issue a new one")]
    Revoked,
    /// Not for client authentication, for instance a server's.
    #[error("the peer's certificate is not for clients (extended key usage lacks clientAuth); issue one with `forebay certs device NAME`")]
    WrongPurpose,
    /// The peer's key is not its certificate's.
    #[error("the peer does not hold the private key of the certificate it presented; give it the key made with that certificate")]
    KeyNotHeld,
    /// More or larger certificates than are looked at.
    #[error("the peer's certificates were not verified: {limit}")]
    LongChain {
        /// The limit that they exceed.
        limit: Unbounded,
    },
    /// Any other fault of the certificate.
    #[error("the peer's certificate cannot be used: {detail}; issue a new one")]
    BadCertificate {
        /// The reason.
        detail: String,
    },
    /// The peer's alert says that it does not accept *our* certificate.
    #[error("the peer refused our certificate (alert {alert})")]
    RefusedOurs {
        /// The alert's name in the TLS standard.
        alert: &'static str,
    },
    /// The peer gave up with another alert.
    #[error("the peer ended the handshake (alert {alert}); its own log should say why")]
    PeerAlert {
        /// The alert.
        alert: String,
    },
    /// The connection was opened and closed without a byte: a port scan or a health check.
    #[error("the peer closed without sending anything, as a port check does")]
    SilentClose,
    /// The peer closed in the middle of the handshake.
    #[error("the peer closed in the middle of the handshake without saying why; a device that does not accept our certificate may do that")]
    ClosedEarly,
    /// The deadline passed.
    #[error("the handshake did not finish in time ({heard}); look for a stalled link or a peer that only opens connections")]
    Timeout {
        /// How far it came.
        heard: &'static str,
    },
    /// Bytes that break the protocol.
    #[error("the peer broke the TLS protocol: {detail}; look for a faulty library or a tampering middlebox")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// The connection failed below TLS.
    #[error("the connection failed during the handshake: {kind}")]
    Io {
        /// The system's reason.
        kind: ErrorKind,
    },
    /// Our side failed.
    #[error("the handshake failed on our side: {detail}; please report this")]
    Internal {
        /// The library's reason.
        detail: String,
    },
}

impl HandshakeFault {
    /// All labels that [`HandshakeFault::label`] can yield, for registering counters.
    pub const LABELS: [&'static str; 19] = [
        "not_tls",
        "tls_version",
        "incompatible",
        "no_certificate",
        "unknown_ca",
        "old_ca",
        "expired",
        "not_yet_valid",
        "revoked",
        "wrong_purpose",
        "key_not_held",
        "long_chain",
        "bad_certificate",
        "refused_ours",
        "peer_alert",
        "closed",
        "timeout",
        "protocol",
        "internal",
    ];

    /// The metric label: one of [`HandshakeFault::LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotTls { .. } => "not_tls",
            Self::VersionTooOld { .. } => "tls_version",
            Self::Incompatible { .. } | Self::KeyKind { .. } => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::ForgedOrOldCa => "old_ca",
            Self::Expired { .. } | Self::ExpiredIssuer { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::WrongPurpose => "wrong_purpose",
            Self::KeyNotHeld => "key_not_held",
            Self::LongChain { .. } => "long_chain",
            Self::BadCertificate { .. } => "bad_certificate",
            Self::RefusedOurs { .. } => "refused_ours",
            Self::PeerAlert { .. } => "peer_alert",
            Self::SilentClose | Self::ClosedEarly | Self::Io { .. } => "closed",
            Self::Timeout { .. } => "timeout",
            Self::Protocol { .. } => "protocol",
            Self::Internal { .. } => "internal",
        }
    }

    /// True if it happens to any open port and needs no action.
    pub fn is_noise(&self) -> bool {
        *self == Self::SilentClose
    }
}

/// A failed handshake with all that is known of the peer but its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeFailure {
    /// What went wrong.
    pub fault: HandshakeFault,
    /// The name the peer connected to (SNI); `None` if it sent none, as clients do that connect to an address.
    pub sni: Option<String>,
    /// The certificate the peer presented, if it came so far.
    pub presented: Option<Box<PeerCertificate>>,
    /// The names our certificate is for.
    pub names: Arc<[String]>,
    /// When our certificate ended, in seconds since 1970; `None` if it has not.
    pub ours_ended: Option<i64>,
}

impl fmt::Display for HandshakeFailure {
    /// One line: the fault with its advice, the names where the peer refused ours, the certificate it presented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault)?;
        if matches!(self.fault, HandshakeFault::RefusedOurs { .. } | HandshakeFault::ClosedEarly) {
            self.write_names(f)?;
        }
        if let Some(certificate) = &self.presented {
            let PeerCertificate {
                subject, issuer, serial, ..
            } = &**certificate;
            write!(
                f,
                "; it presented \"{}\" by \"{}\", serial {}",
                PeerText::new(subject),
                PeerText::new(issuer),
                PeerText::new(serial)
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for HandshakeFailure {}

impl HandshakeFailure {
    /// The names that the peer used: the one it connected to, and the one of its certificate. Nothing of it is proved.
    pub(crate) fn claimed(&self) -> String {
        let subject = self.presented.as_ref().map_or("", |certificate| &certificate.subject);
        format!("{} {subject}", self.sni.as_deref().unwrap_or_default())
    }

    fn write_names(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = if self.names.is_empty() {
            "no name at all".to_owned()
        } else {
            self.names.join(", ")
        };
        if let Some(ended) = self.ours_ended {
            let ended = utc_text(ended);
            return write!(
                f,
                "; our certificate, for {ours}, expired at {ended}: make a new one with `forebay certs server`"
            );
        }
        match &self.sni {
            None => write!(
                f,
                "; it sent no name (SNI), so it connected to an address, and our certificate is for {ours}: that address must be among them, and the peer must trust our CA"
            ),
            Some(sni) if name_is_covered(&self.names, sni) => {
                write!(
                    f,
                    "; it connected to {sni} and our certificate is for {ours}, so the name is right: give the peer the CA that signed our certificate, and check its clock"
                )
            }
            Some(sni) => write!(
                f,
                "; it connected to {sni} and our certificate is for {ours}: make one with `forebay certs server --name {sni}` and list it under `names`"
            ),
        }
    }
}

/// The fault behind an error of a handshake's read or write; it contains rustls' own error, if there is one.
pub(super) fn of_io(error: &std::io::Error, presented: Option<&Presented>) -> HandshakeFault {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return of_tls(tls, presented);
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => HandshakeFault::ClosedEarly,
        ErrorKind::InvalidData => HandshakeFault::Protocol {
            detail: error.source().map_or_else(|| error.to_string(), ToString::to_string),
        },
        kind => HandshakeFault::Io { kind },
    }
}

/// The fault behind an error of rustls.
pub(super) fn of_tls(error: &Error, presented: Option<&Presented>) -> HandshakeFault {
    match error {
        Error::NoCertificatesPresented => HandshakeFault::NoCertificate,
        Error::InvalidCertificate(CertificateError::BadSignature) if presented.is_some_and(|peer| peer.trusted) => {
            match presented.and_then(|peer| causes::short_rsa_key(&peer.der)) {
                Some(bits) => HandshakeFault::BadCertificate {
                    detail: format!("its key is RSA of {bits} bits, and 2048 are the least"),
                },
                None => HandshakeFault::KeyNotHeld,
            }
        }
        Error::InvalidCertificate(cause) => of_certificate(cause, presented),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => HandshakeFault::VersionTooOld {
            offered: "a version before TLS 1.2",
        },
        Error::PeerIncompatible(cause) => HandshakeFault::Incompatible {
            detail: shown(&format!("{cause:?}")),
        },
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => HandshakeFault::Protocol {
            detail: shown(&error.to_string()),
        },
        other => HandshakeFault::Internal {
            detail: shown(&other.to_string()),
        },
    }
}

fn of_certificate(cause: &CertificateError, presented: Option<&Presented>) -> HandshakeFault {
    let peer = || presented.and_then(|peer| PeerCertificate::from_der(&peer.der).ok());
    let unknown = || "an unknown time".to_owned();
    if let Some(limit) = verifier::unbounded(cause) {
        return HandshakeFault::LongChain { limit };
    }
    match cause {
        CertificateError::UnknownIssuer => HandshakeFault::UnknownCa,
        CertificateError::BadSignature => HandshakeFault::ForgedOrOldCa,
        CertificateError::ExpiredContext { time, not_after } => {
            let (not_after, judged) = (seconds_text(not_after.as_secs()), seconds_text(time.as_secs()));
            let is_own = peer().is_none_or(|peer| utc_text(peer.not_after) == not_after);
            match presented.and_then(|peer| causes::ended_at(&peer.intermediates, &not_after)) {
                Some(subject) if !is_own => HandshakeFault::ExpiredIssuer {
                    subject,
                    not_after,
                    judged,
                },
                _ => HandshakeFault::Expired { not_after, judged },
            }
        }
        CertificateError::Expired => HandshakeFault::Expired {
            not_after: peer().map_or_else(unknown, |peer| utc_text(peer.not_after)),
            judged: unknown(),
        },
        CertificateError::NotValidYetContext { time, not_before } => HandshakeFault::NotYetValid {
            not_before: seconds_text(not_before.as_secs()),
            judged: seconds_text(time.as_secs()),
        },
        CertificateError::NotValidYet => HandshakeFault::NotYetValid {
            not_before: peer().map_or_else(unknown, |peer| utc_text(peer.not_before)),
            judged: unknown(),
        },
        CertificateError::Revoked => HandshakeFault::Revoked,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => HandshakeFault::WrongPurpose,
        other => {
            let of_intermediates = |peer: &Presented| peer.intermediates.iter().find_map(|der| causes::of_intermediate(der));
            let known = presented.and_then(|peer| causes::of_leaf(&peer.der).or_else(|| of_intermediates(peer)));
            HandshakeFault::BadCertificate {
                detail: known.unwrap_or_else(|| shown(&other.to_string())),
            }
        }
    }
}

/// Alerts about a certificate can only mean ours: a server has no other part in the handshake that they are sent for.
fn of_alert(alert: AlertDescription) -> HandshakeFault {
    let name = match alert {
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::ProtocolVersion => {
            return HandshakeFault::VersionTooOld {
                offered: "a version the listener does not speak",
            };
        }
        other => {
            return HandshakeFault::PeerAlert {
                alert: format!("{other:?}"),
            };
        }
    };
    HandshakeFault::RefusedOurs { alert: name }
}

/// The library's text about a peer holds what the peer sent.
fn shown(text: &str) -> String {
    PeerText::new(text).to_string()
}

fn seconds_text(seconds: u64) -> String {
    utc_text(i64::try_from(seconds).unwrap_or(i64::MAX))
}
