//! Why a connection ended, in words for the operator.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use forebay_topic::PeerText;
use rumqttc::v5::{ConnectionError as Error5, StateError as State5};
use rumqttc::{ConnectionError as Error4, StateError as State4};
use rustls::{AlertDescription, CertificateError, Error as Rustls, InvalidMessage};

use super::connector::ConnectError;
use super::relay::End;
use super::tap::Reason;
use crate::link::reason_code::{self, Outcome};
use crate::{Config, Ended, Version};

/// What ended a connection, as far as a record may be why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The line, or we.
    Line,
    /// The peer closed of its own accord, or answered what cannot be read or makes no sense.
    Peer,
    /// The peer gave a reason that is its own, or acked nothing any more.
    PeersOwn,
}

/// The end of a connection, or of the try to make one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) ended: Ended,
    pub(crate) text: String,
    /// What the peer said about a message when it closed.
    pub(crate) blame: Option<Outcome>,
    /// What ended it, as far as a message in flight may be why.
    cause: Cause,
    /// Nothing was dialled: it waits for files of this machine.
    pub(crate) is_local: bool,
}

impl Failure {
    pub(crate) const fn new(ended: Ended, text: String) -> Self {
        let cause = match ended {
            Ended::PeerClosed | Ended::Message => Cause::Peer,
            Ended::TakenOver | Ended::ServerShutdown | Ended::Busy => Cause::PeersOwn,
            _ => Cause::Line,
        };
        Self {
            ended,
            text,
            blame: None,
            cause,
            is_local: false,
        }
    }

    /// `connected` = the cloud had accepted this connection.
    pub(crate) fn from_v5(error: Error5, config: &Config, connected: bool) -> Self {
        match error {
            Error5::Timeout(_) => connect_timeout(config),
            Error5::Io(error) => from_io(&error, config, connected),
            Error5::NotConnAck(_) => protocol("it answered CONNECT with another packet", config),
            Error5::MqttState(state) => match state {
                State5::ConnectionAborted => closed(config, connected),
                State5::AwaitPingResp => keep_alive(config),
                State5::Io(error) => from_io(&error, config, connected),
                State5::Deserialization(rumqttc::v5::mqttbytes::Error::Io(error)) => from_io(&error, config, connected),
                other => unreadable(&other.to_string(), config),
            },
            other => protocol(&other.to_string(), config),
        }
    }

    pub(crate) fn from_v4(error: Error4, config: &Config, connected: bool) -> Self {
        match error {
            Error4::NetworkTimeout => connect_timeout(config),
            Error4::FlushTimeout => Self::new(
                Ended::Network,
                format!("{} takes no data any more; the line is probably cut", peer(config)),
            ),
            Error4::Io(error) => from_io(&error, config, connected),
            Error4::NotConnAck(_) => protocol("it answered CONNECT with another packet", config),
            Error4::MqttState(state) => match state {
                State4::ConnectionAborted => closed(config, connected),
                State4::AwaitPingResp => keep_alive(config),
                State4::Io(error) => from_io(&error, config, connected),
                State4::Deserialization(rumqttc::mqttbytes::Error::Io(error)) => from_io(&error, config, connected),
                other => unreadable(&other.to_string(), config),
            },
            other => protocol(&other.to_string(), config),
        }
    }

    /// There is no connection.
    pub(crate) fn from_connect(error: &ConnectError, config: &Config) -> Self {
        match error {
            ConnectError::Files(why) => Self {
                is_local: true,
                ..Self::new(
                    Ended::Tls,
                    format!("the files of cloud.tls cannot be used: {why}; they are read again at the next try"),
                )
            },
            ConnectError::Resolve(error) => unresolved(&error.to_string(), config),
            ConnectError::ResolveTimeout(within) => {
                unresolved(&format!("the resolver has not answered within {} s", within.as_secs_f32()), config)
            }
            ConnectError::Tcp(failed, within) => unreachable(failed, *within, config),
            ConnectError::Tls(address, error) => tls(*address, error, config),
            ConnectError::TlsTimeout(address, within, is_suspect) => Self::new(
                Ended::ConnectTimeout,
                format!(
                    "{} ({address}) did not finish the TLS handshake within {} s; check that the port speaks TLS{}",
                    peer(config),
                    within.as_secs_f32(),
                    if *is_suspect {
                        ", and the path MTU: small packets pass and large ones seem to be lost, as behind a firewall that drops ICMP. Tries with \
                         smaller packets follow"
                    } else {
                        ""
                    }
                ),
            ),
        }
    }

    /// The cloud's side of the connection ended. `connected` = the cloud had accepted it.
    pub(crate) fn from_end(end: &End, config: &Config, connected: bool) -> Self {
        match end {
            End::Closed => closed(config, connected),
            End::Broken(error) => from_io(error, config, connected),
            End::Refused(reason) => refused(reason, config),
            End::Disconnected(reason) => disconnected(reason, config),
            End::Unreadable(what) => unreadable(&format!("it sent {what}"), config),
        }
    }

    /// rumqttc's side of the connection cannot be made.
    pub(crate) fn from_relay(error: &io::Error) -> Self {
        Self::new(
            Ended::Network,
            format!(
                "the bridge's own Unix socket cannot be made ({error}); check the limit of open files and whether a sandbox forbids AF_UNIX"
            ),
        )
    }

    /// Whether what was in flight may be why. `is_silent` = no ack came for long before the end.
    pub(crate) const fn cause(&self, is_silent: bool) -> Cause {
        match self.ended {
            Ended::KeepAlive | Ended::AckTimeout if is_silent => Cause::PeersOwn,
            _ => self.cause,
        }
    }
}

pub(crate) fn connect_timeout(config: &Config) -> Failure {
    let text = format!(
        "{} did not answer within {} s; check the route, the firewall and that it is an MQTT port",
        peer(config),
        config.connect_timeout.as_secs()
    );
    Failure::new(Ended::ConnectTimeout, text)
}

fn peer(config: &Config) -> String {
    format!("{}:{}", config.host, config.port)
}

fn unresolved(why: &str, config: &Config) -> Failure {
    let text = format!(
        "the name {} cannot be resolved ({why}); check cloud.endpoint and this machine's DNS",
        config.host
    );
    Failure::new(Ended::Dns, text)
}

fn protocol(what: &str, config: &Config) -> Failure {
    let text = format!(
        "{} broke the protocol: {what}; check that it is a broker for the configured version of MQTT",
        peer(config)
    );
    Failure::new(Ended::Protocol, text)
}

fn unreadable(what: &str, config: &Config) -> Failure {
    Failure {
        cause: Cause::Peer,
        ..protocol(what, config)
    }
}

fn keep_alive(config: &Config) -> Failure {
    Failure::new(
        Ended::KeepAlive,
        format!(
            "{} left a ping unanswered for {} s; the line is probably cut",
            peer(config),
            config.keep_alive.as_secs()
        ),
    )
}

fn closed(config: &Config, connected: bool) -> Failure {
    let text = if connected {
        format!("{} closed the connection without a reason", peer(config))
    } else {
        format!(
            "{} closed the connection instead of answering CONNECT; check that its policy allows iot:Connect for client/{}, that the \
             certificate is active, and the version of MQTT",
            peer(config),
            config.client_id
        )
    };
    Failure::new(Ended::PeerClosed, text)
}

fn from_io(error: &io::Error, config: &Config, connected: bool) -> Failure {
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>()) {
        // After CONNACK an alert, or what is no TLS, is an answer to what was sent.
        let cause = if connected { Cause::Peer } else { Cause::Line };
        return Failure {
            cause,
            ..from_rustls(inner, config)
        };
    }
    let peer = peer(config);
    let (ended, text) = match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
            return closed(config, connected);
        }
        io::ErrorKind::TimedOut => (Ended::Network, format!("{peer} does not answer any more: {error}")),
        _ => (Ended::Network, format!("the connection to {peer} failed: {error}")),
    };
    Failure::new(ended, text)
}

fn unreachable(failed: &[(SocketAddr, io::Error)], within: Duration, config: &Config) -> Failure {
    let all = |kind| failed.iter().all(|(_, error)| error.kind() == kind);
    let (ended, advice) = if all(io::ErrorKind::ConnectionRefused) {
        (Ended::Refused, "check that the broker runs and the port is right")
    } else if failed.iter().any(|(_, error)| error.kind() == io::ErrorKind::TimedOut) {
        (Ended::ConnectTimeout, "check the route, the firewall and the port")
    } else {
        (Ended::Network, "check this machine's network")
    };
    let each: Vec<_> = failed
        .iter()
        .map(|(address, error)| match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("{address} refused the connection"),
            io::ErrorKind::TimedOut => format!("{address} did not answer within {} s", within.as_secs_f32()),
            _ => format!("{address}: {error}"),
        })
        .collect();
    Failure::new(ended, format!("{} cannot be reached ({}); {advice}", peer(config), each.join(", ")))
}

fn tls(address: SocketAddr, error: &io::Error, config: &Config) -> Failure {
    if error.kind() == io::ErrorKind::InvalidInput {
        let text = format!("`{}` is no name that a certificate can be for; check cloud.endpoint", config.host);
        return Failure::new(Ended::Tls, text);
    }
    let failure = from_io(error, config, false);
    if failure.ended == Ended::PeerClosed {
        let text = format!(
            "{} ({address}) closed the connection during the TLS handshake; check that the port speaks TLS",
            peer(config)
        );
        return Failure::new(Ended::Tls, text);
    }
    failure
}

fn from_rustls(error: &Rustls, config: &Config) -> Failure {
    let peer = peer(config);
    // The library's text names what the cloud's certificate holds.
    let said = error.to_string();
    let said = PeerText::new(&said);
    let text = match error {
        Rustls::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(
                "the certificate of {peer} is from an authority that is not trusted here; check cloud.tls.ca, or whether something intercepts TLS"
            )
        }
        Rustls::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            format!("the certificate of {peer} is for another name ({said}); check cloud.endpoint")
        }
        Rustls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {peer} has expired ({said}); check this machine's clock, then tell its operator")
        }
        Rustls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!("the certificate of {peer} is not valid yet ({said}); check this machine's clock")
        }
        Rustls::AlertReceived(AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown) => {
            format!("{peer} does not accept our certificate ({said}); register it there and check that it is active")
        }
        Rustls::AlertReceived(AlertDescription::CertificateExpired) => {
            format!("{peer} says that our certificate has expired; make a new one")
        }
        Rustls::AlertReceived(AlertDescription::CertificateRevoked) => {
            format!("{peer} says that our certificate is revoked; make a new one")
        }
        Rustls::AlertReceived(AlertDescription::CertificateRequired) => {
            format!("{peer} wants a client certificate; set cloud.tls.certificate and cloud.tls.key")
        }
        Rustls::AlertReceived(AlertDescription::UnrecognisedName) => {
            format!("{peer} does not serve the name {}; check cloud.endpoint", config.host)
        }
        Rustls::AlertReceived(AlertDescription::NoApplicationProtocol) | Rustls::NoApplicationProtocol => {
            format!("{peer} wants another ALPN name; AWS needs port 8883, or 443 with `x-amzn-mqtt-ca`")
        }
        Rustls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!(
                "{peer} does not answer in TLS: check that the port speaks TLS, and whether a login page (captive portal) or a proxy answers in its place"
            )
        }
        _ => format!("TLS with {peer} failed: {said}"),
    };
    Failure::new(Ended::Tls, text)
}

/// The answer to CONNECT. MQTT 5 §3.2.2.2, MQTT 3.1.1 §3.2.2.3; brokers without MQTT 5 answer with the codes of 3.1.1.
fn refused(reason: &Reason, config: &Config) -> Failure {
    let other_client_id = || format!("it does not take the client id `{}`; check cloud.client_id", config.client_id);
    let other_version = || match config.version {
        Version::V5 => "it does not speak MQTT 5; choose version 3.1.1".to_owned(),
        Version::V311 => "it does not speak MQTT 3.1.1; choose version 5".to_owned(),
    };
    let (ended, advice) = match reason.code {
        0x01 | 0x84 => (Ended::Protocol, other_version()),
        0x02 | 0x85 => (Ended::Denied, other_client_id()),
        0x04 | 0x05 | 0x87 => (Ended::Denied, allow_connect(config)),
        0x86 | 0x8C => (
            Ended::Denied,
            "it wants other credentials; check the client certificate and its policy".to_owned(),
        ),
        0x8A => (Ended::Denied, "it has banned this client; ask its operator".to_owned()),
        0x03 | 0x88 | 0x89 | 0x97 | 0x9F => (
            Ended::Busy,
            "it is busy or a quota is used up; this is tried again by itself".to_owned(),
        ),
        0x9C | 0x9D => (Ended::ServerShutdown, "it has moved; check cloud.endpoint".to_owned()),
        _ => (Ended::Protocol, "ask its operator, or try the other version of MQTT".to_owned()),
    };
    Failure::new(ended, format!("{} refused CONNECT ({}): {advice}", peer(config), said(reason)))
}

fn allow_connect(config: &Config) -> String {
    format!(
        "check that the certificate is active and that the IoT policy allows iot:Connect for client/{}",
        config.client_id
    )
}

/// MQTT 5 §3.14.2.1. A code that is not the server's own affair counts as a close without a reason.
fn disconnected(reason: &Reason, config: &Config) -> Failure {
    let blame = reason_code::disconnect(reason.code);
    let (ended, advice) = match reason.code {
        _ if blame.is_some() => (Ended::Message, "it does not take a message; the bridge finds out which one"),
        0x8E => (
            Ended::TakenOver,
            "another client has connected with our client id; give each gateway its own cloud.client_id",
        ),
        0x8B | 0x98 | 0x9C | 0x9D | 0xA0 => (Ended::ServerShutdown, "this is the cloud's own doing"),
        0x89 | 0x96 | 0x97 | 0x9F => (Ended::Busy, "a quota is used up; the lane slows down by itself"),
        0x8D => (Ended::KeepAlive, "our pings did not arrive; check the line"),
        _ => (Ended::PeerClosed, "it gives no reason that helps"),
    };
    let cause = if reason.code == 0x8D {
        Cause::PeersOwn
    } else {
        Failure::new(ended, String::new()).cause
    };
    Failure {
        blame,
        cause,
        ..Failure::new(ended, format!("{} disconnected ({}): {advice}", peer(config), said(reason)))
    }
}

/// A reason code and its words, for a text.
fn said(reason: &Reason) -> String {
    let words = reason
        .words
        .as_ref()
        .map_or_else(String::new, |words| format!(", `{}`", PeerText::new(words)));
    format!("{:#04x} {}{words}", reason.code, reason_code::words(reason.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::mqtt("plant-7", "broker.example")
    }

    const fn code(code: u8) -> Reason {
        Reason { code, words: None }
    }

    #[test]
    fn refusals_say_what_to_do() {
        for denied in [0x87, 0x05] {
            let failure = refused(&code(denied), &config());
            assert_eq!(failure.ended, Ended::Denied);
            assert!(failure.text.contains("iot:Connect for client/plant-7"), "{}", failure.text);
        }
        assert!(refused(&code(0x01), &config()).text.contains("choose version 3.1.1"));
        assert_eq!(refused(&code(0x97), &config()).ended, Ended::Busy);
    }

    #[test]
    fn no_code_of_a_disconnect_leaves_a_record_that_causes_it_in_flight_for_ever() {
        for number in 0..=0xFF {
            let failure = disconnected(&code(number), &config());
            assert_ne!(failure.cause(false), Cause::Line, "{number:#04x}");
        }
    }

    #[test]
    fn no_end_of_tls_on_an_accepted_connection_is_taken_for_the_lines() {
        for error in [
            Rustls::AlertReceived(AlertDescription::InternalError),
            Rustls::InvalidMessage(InvalidMessage::InvalidContentType),
            Rustls::DecryptError,
        ] {
            let io = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let accepted = Failure::from_end(&End::Broken(io(error.clone())), &config(), true);
            assert_eq!((accepted.ended, accepted.cause(false)), (Ended::Tls, Cause::Peer));
            let refused = Failure::from_end(&End::Broken(io(error)), &config(), false);
            assert_eq!(refused.cause(false), Cause::Line);
        }
    }

    #[test]
    fn tls_faults_are_told_apart() {
        for (error, word) in [
            (CertificateError::UnknownIssuer, "not trusted"),
            (CertificateError::Expired, "expired"),
            (CertificateError::NotValidForName, "another name"),
            (CertificateError::NotValidYet, "clock"),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, Rustls::InvalidCertificate(error));
            let failure = Failure::from_connect(&ConnectError::Tls(([192, 0, 2, 1], 8883).into(), error), &config());
            assert_eq!(failure.ended, Ended::Tls);
            assert!(failure.text.contains(word), "{}", failure.text);
        }
    }

    #[test]
    fn a_takeover_blames_no_message_and_a_refused_topic_does() {
        let taken = disconnected(&code(0x8E), &config());
        assert_eq!(
            (taken.ended, taken.blame, taken.cause(false)),
            (Ended::TakenOver, None, Cause::PeersOwn)
        );
        let words = Some("too deep".to_owned());
        let topic = disconnected(&Reason { code: 0x90, words }, &config());
        assert_eq!(
            (topic.blame, topic.cause(false)),
            (Some(Outcome::Wrong("topic-refused")), Cause::Peer)
        );
        assert!(topic.text.contains("too deep"));
    }
}
