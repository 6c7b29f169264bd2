//! Why a connection ended, in words for the operator.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode as Code5, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError as Error5, StateError as State5};
use rumqttc::{ConnectReturnCode as Code4, ConnectionError as Error4, StateError as State4};
use rustls::{AlertDescription, CertificateError, Error as Rustls};

use super::connector::ConnectError;
use super::relay::End;
use crate::link::reason_code::{self, Outcome};
use crate::{Config, Ended};

/// The end of a connection, or of the try to make one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) ended: Ended,
    pub(crate) text: String,
    /// What the peer said about a message when it closed.
    pub(crate) blame: Option<Outcome>,
}

impl Failure {
    pub(crate) const fn new(ended: Ended, text: String) -> Self {
        Self { ended, text, blame: None }
    }

    /// `connected` = the cloud had accepted this connection.
    pub(crate) fn from_v5(error: Error5, config: &Config, connected: bool) -> Self {
        match error {
            Error5::Timeout(_) => connect_timeout(config),
            Error5::Io(error) => from_io(&error, config, connected),
            Error5::ConnectionRefused(code) => refused_v5(code, config),
            Error5::NotConnAck(_) => protocol("it answered CONNECT with another packet", config),
            Error5::MqttState(state) => match state {
                State5::ServerDisconnect {
                    reason_code,
                    reason_string,
                } => disconnected(reason_code, reason_string, config),
                State5::ConnectionAborted => closed(config, connected),
                State5::AwaitPingResp => keep_alive(config),
                State5::Io(error) => from_io(&error, config, connected),
                State5::Deserialization(rumqttc::v5::mqttbytes::Error::Io(error)) => from_io(&error, config, connected),
                // How rumqttc reads a DISCONNECT of two bytes, which means "normal disconnection".
                State5::Deserialization(rumqttc::v5::mqttbytes::Error::PayloadRequired) => closed(config, connected),
                other => protocol(&other.to_string(), config),
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
            Error4::ConnectionRefused(code) => refused_v4(code, config),
            Error4::NotConnAck(_) => protocol("it answered CONNECT with another packet", config),
            Error4::MqttState(state) => match state {
                State4::ConnectionAborted => closed(config, connected),
                State4::AwaitPingResp => keep_alive(config),
                State4::Io(error) => from_io(&error, config, connected),
                State4::Deserialization(rumqttc::mqttbytes::Error::Io(error)) => from_io(&error, config, connected),
                other => protocol(&other.to_string(), config),
            },
            other => protocol(&other.to_string(), config),
        }
    }

    /// There is no connection.
    pub(crate) fn from_connect(error: &ConnectError, config: &Config) -> Self {
        match error {
            ConnectError::Resolve(error) => unresolved(&error.to_string(), config),
            ConnectError::ResolveTimeout(within) => {
                unresolved(&format!("the resolver has not answered within {} s", within.as_secs_f32()), config)
            }
            ConnectError::Tcp(failed, within) => unreachable(failed, *within, config),
            ConnectError::Tls(address, error) => tls(*address, error, config),
            ConnectError::TlsTimeout(address, within) => Self::new(
                Ended::ConnectTimeout,
                format!(
                    "{} ({address}) did not finish the TLS handshake within {} s; check that the port speaks TLS",
                    peer(config),
                    within.as_secs_f32()
                ),
            ),
        }
    }

    /// The cloud's side of the connection ended. `connected` = the cloud had accepted it.
    pub(crate) fn from_end(end: &End, config: &Config, connected: bool) -> Self {
        match end {
            End::Closed => closed(config, connected),
            End::Broken(error) => from_io(error, config, connected),
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

    /// Whether the peer ended the connection of its own accord, without a reason that is the server's.
    pub(crate) const fn by_peer(&self) -> bool {
        matches!(self.ended, Ended::PeerClosed | Ended::Message)
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
        return from_rustls(inner, config);
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
    let text = match error {
        Rustls::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(
                "the certificate of {peer} is from an authority that is not trusted here; check cloud.tls.ca, or whether something intercepts TLS"
            )
        }
        Rustls::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            format!("the certificate of {peer} is for another name ({error}); check cloud.endpoint")
        }
        Rustls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {peer} has expired ({error}); check this machine's clock, then tell its operator")
        }
        Rustls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!("the certificate of {peer} is not valid yet ({error}); check this machine's clock")
        }
        Rustls::AlertReceived(AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown) => {
            format!("{peer} does not accept our certificate ({error}); register it there and check that it is active")
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
        other => format!("TLS with {peer} failed: {other}"),
    };
    Failure::new(Ended::Tls, text)
}

fn refused_v5(code: Code5, config: &Config) -> Failure {
    let (ended, advice) = match code {
        Code5::NotAuthorized => (Ended::Denied, allow_connect(config)),
        Code5::BadUserNamePassword | Code5::BadAuthenticationMethod => (
            Ended::Denied,
            "it wants other credentials; check the client certificate and its policy".to_owned(),
        ),
        Code5::Banned => (Ended::Denied, "it has banned this client; ask its operator".to_owned()),
        Code5::ClientIdentifierNotValid | Code5::BadClientId => (
            Ended::Denied,
            format!("it does not take the client id `{}`; check cloud.client_id", config.client_id),
        ),
        Code5::ServerBusy | Code5::ServerUnavailable | Code5::ServiceUnavailable | Code5::QuotaExceeded | Code5::ConnectionRateExceeded => {
            (
                Ended::Busy,
                "it is busy or a quota is used up; this is tried again by itself".to_owned(),
            )
        }
        Code5::UseAnotherServer | Code5::ServerMoved => (Ended::ServerShutdown, "it has moved; check cloud.endpoint".to_owned()),
        Code5::UnsupportedProtocolVersion | Code5::RefusedProtocolVersion => {
            (Ended::Protocol, "it does not speak MQTT 5; choose version 3.1.1".to_owned())
        }
        _ => (Ended::Protocol, "ask its operator, or try version 3.1.1".to_owned()),
    };
    Failure::new(ended, format!("{} refused CONNECT ({code:?}): {advice}", peer(config)))
}

fn refused_v4(code: Code4, config: &Config) -> Failure {
    let (ended, advice) = match code {
        Code4::NotAuthorized | Code4::BadUserNamePassword => (Ended::Denied, allow_connect(config)),
        Code4::BadClientId => (
            Ended::Denied,
            format!("it does not take the client id `{}`; check cloud.client_id", config.client_id),
        ),
        Code4::ServiceUnavailable => (Ended::Busy, "it is busy; this is tried again by itself".to_owned()),
        Code4::RefusedProtocolVersion | Code4::Success => (Ended::Protocol, "it does not speak MQTT 3.1.1; choose version 5".to_owned()),
    };
    Failure::new(ended, format!("{} refused CONNECT ({code:?}): {advice}", peer(config)))
}

fn allow_connect(config: &Config) -> String {
    format!(
        "check that the certificate is active and that the IoT policy allows iot:Connect for client/{}",
        config.client_id
    )
}

fn disconnected(code: DisconnectReasonCode, reason: Option<String>, config: &Config) -> Failure {
    use DisconnectReasonCode as Code;
    let peer = peer(config);
    let blame = reason_code::disconnect(code as u8);
    let (ended, advice) = match code {
        _ if blame.is_some() => (Ended::Message, "a message causes it; it will be found and become a dead letter"),
        Code::SessionTakenOver => (
            Ended::TakenOver,
            "another client has connected with our client id; give each gateway its own cloud.client_id",
        ),
        Code::ServerShuttingDown | Code::AdministrativeAction | Code::UseAnotherServer | Code::ServerMoved | Code::MaximumConnectTime => {
            (Ended::ServerShutdown, "this is the cloud's own doing")
        }
        Code::ServerBusy | Code::QuotaExceeded | Code::MessageRateTooHigh | Code::ConnectionRateExceeded => {
            (Ended::Busy, "a quota is used up; the lane slows down by itself")
        }
        Code::KeepAliveTimeout => (Ended::KeepAlive, "our pings did not arrive; check the line"),
        Code::NormalDisconnection | Code::UnspecifiedError | Code::ImplementationSpecificError => (Ended::PeerClosed, "it gives no reason"),
        _ => (Ended::Protocol, "this should not happen; please report it"),
    };
    let said = reason.map_or_else(String::new, |text| format!(", `{text}`"));
    Failure {
        ended,
        text: format!("{peer} disconnected ({code:?}{said}): {advice}"),
        blame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::mqtt("plant-7", "broker.example")
    }

    #[test]
    fn refusals_say_what_to_do() {
        let failure = Failure::from_v5(Error5::ConnectionRefused(Code5::NotAuthorized), &config(), false);
        assert_eq!(failure.ended, Ended::Denied);
        assert!(failure.text.contains("iot:Connect for client/plant-7"), "{}", failure.text);
        let failure = Failure::from_v4(Error4::ConnectionRefused(Code4::NotAuthorized), &config(), false);
        assert!(failure.text.contains("iot:Connect"), "{}", failure.text);
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
        let taken = disconnected(DisconnectReasonCode::SessionTakenOver, None, &config());
        assert_eq!((taken.ended, taken.blame, taken.by_peer()), (Ended::TakenOver, None, false));
        let topic = disconnected(DisconnectReasonCode::TopicNameInvalid, Some("too deep".to_owned()), &config());
        assert_eq!((topic.blame, topic.by_peer()), (Some(Outcome::Wrong("topic-refused")), true));
        assert!(topic.text.contains("too deep"));
    }
}
