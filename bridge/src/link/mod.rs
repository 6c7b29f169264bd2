//! One connection to the cloud, MQTT 5 or 3.1.1, over rumqttc. Its client and event loop live and die with the connection:
//! rumqttc's own queue of pending publishes is never used.
//!
//! `connector` makes the connection, `relay` carries its bytes to and from rumqttc, `tap` reads what the cloud says in them.

pub(crate) mod backoff;
pub(crate) mod connector;
pub(crate) mod failure;
mod metered;
pub(crate) mod reason_code;
mod relay;
mod send_queue;
mod tap;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet as Packet5, PubAckReason};
use rumqttc::v5::{AsyncClient as Client5, Event as Event5, EventLoop as Loop5, MqttOptions as Options5};
use rumqttc::{
    AsyncClient as Client4, Event as Event4, EventLoop as Loop4, MqttOptions as Options4, NetworkOptions, Outgoing, Packet as Packet4,
    QoS as QoS4, Transport,
};

use self::connector::Stream;
use self::failure::Failure;
pub(crate) use self::relay::Relay;
use self::tap::MAX_INCOMING;
pub(crate) use self::tap::{Reasons, Tap};
use crate::message::Publish;
use crate::{Config, Ended, Version};

const MIN_KEEP_ALIVE_SECONDS: u64 = 5;
const SUCCESS: u8 = 0x00;
const UNSPECIFIED_ERROR: u8 = 0x80;
/// Requests that rumqttc may hold: its throughput grows with the channel, and with the connection it is thrown away.
const CHANNEL: usize = 100;
/// A lane with a rate limit keeps the channel short, so that its publishes are not bunched again behind it.
const PACED_CHANNEL: usize = 4;
/// Packet ids before they come round: many windows, so that one missing ack does not stop the rest at once.
const WINDOWS_OF_IDS: u16 = 16;
const MIN_IDS: u16 = 1024;

/// Publishes on a connection.
pub(crate) enum Client {
    V5(Client5),
    V4(Client4),
}

/// Drives a connection. [`Link::poll`] is not cancel safe: keep its future until it is done, or drop the link with it.
pub(crate) struct Link {
    wire: Wire,
    relay: Relay,
    reasons: Reasons,
    config: Arc<Config>,
    connected: bool,
}

enum Wire {
    V5(Box<Loop5>),
    V4(Box<Loop4>),
}

/// What happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The cloud accepted us, on these terms.
    Connected(Terms),
    /// The oldest queued publish was written under this packet id; 0 = QoS 0.
    Written(u16),
    /// The cloud acked a packet id, with a reason code and perhaps words.
    Acked(u16, u8, Option<String>),
    /// Our DISCONNECT was written.
    DisconnectWritten,
    /// Pings and the like.
    Other,
}

/// What the cloud granted in its CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: usize,
    pub(crate) retain: bool,
    pub(crate) qos_1: bool,
}

/// How many requests may wait in the channel.
pub(crate) fn channel_len(rate_limited: bool) -> usize {
    if rate_limited { PACED_CHANNEL } else { CHANNEL }
}

/// How many packet ids are used before they come round, on these terms.
pub(crate) fn packet_ids(config: &Config, terms: &Terms) -> u16 {
    id_limit(config).min(terms.receive_maximum)
}

fn id_limit(config: &Config) -> u16 {
    config.in_flight.saturating_mul(WINDOWS_OF_IDS).max(MIN_IDS)
}

/// A fresh client and event loop for a connection. Nothing is sent before the first poll. Runs in a Tokio runtime.
pub(crate) fn open(config: &Arc<Config>, cloud: Box<dyn Stream>) -> io::Result<(Client, Link)> {
    let reasons = Reasons::default();
    let (relay, socket) = Relay::start(cloud, Tap::new(config.version, reasons.clone()))?;
    let (client, wire) = match config.version {
        Version::V5 => {
            let (client, wire) = Client5::new(options_v5(config, socket), CHANNEL + 1);
            (Client::V5(client), Wire::V5(Box::new(wire)))
        }
        Version::V311 => {
            let (client, mut wire) = Client4::new(options_v4(config, socket), CHANNEL + 1);
            wire.set_network_options(network(config));
            (Client::V4(client), Wire::V4(Box::new(wire)))
        }
    };
    Ok((
        client,
        Link {
            wire,
            relay,
            reasons,
            config: Arc::clone(config),
            connected: false,
        },
    ))
}

impl Client {
    /// Puts a publish into the request channel. False = the channel is full or closed; nothing was sent.
    pub(crate) fn publish(&self, publish: Publish) -> bool {
        let Publish {
            topic,
            payload,
            acked,
            retain,
            properties,
            ..
        } = publish;
        match self {
            Self::V5(client) => {
                let qos = if acked { QoS5::AtLeastOnce } else { QoS5::AtMostOnce };
                client
                    .try_publish_with_properties(topic, qos, retain, payload, properties.unwrap_or_default())
                    .is_ok()
            }
            Self::V4(client) => {
                let qos = if acked { QoS4::AtLeastOnce } else { QoS4::AtMostOnce };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
        }
    }

    /// Asks for a DISCONNECT.
    pub(crate) fn disconnect(&self) -> bool {
        match self {
            Self::V5(client) => client.try_disconnect().is_ok(),
            Self::V4(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Link {
    /// The next event, or the end: never poll after an error, rumqttc would connect again.
    pub(crate) async fn poll(&mut self) -> Result<Event, Failure> {
        let event = match &mut self.wire {
            Wire::V5(wire) => match wire.poll().await {
                Ok(event) => from_v5(event, &self.reasons),
                Err(error) => return Err(self.failed(Failure::from_v5(error, &self.config, self.connected))),
            },
            Wire::V4(wire) => match wire.poll().await {
                Ok(event) => from_v4(event),
                Err(error) => return Err(self.failed(Failure::from_v4(error, &self.config, self.connected))),
            },
        };
        if matches!(event, Event::Connected(_)) {
            self.connected = true;
            self.keep_own_pings();
        }
        Ok(event)
    }

    /// What the cloud said counts first, then how its side of the connection ended; that rumqttc's side ended too is a consequence.
    fn failed(&self, of_the_client: Failure) -> Failure {
        let is_consequence = matches!(of_the_client.ended, Ended::PeerClosed | Ended::Network);
        match self.relay.take_end() {
            Some(end) if is_consequence => Failure::from_end(&end, &self.config, self.connected),
            _ => of_the_client,
        }
    }

    /// Ends the connection after our DISCONNECT: what is written is sent, then the cloud's side is closed in order.
    pub(crate) async fn close(self, grace: Duration) {
        drop(self.wire);
        self.relay.finish(grace).await;
    }

    /// A server keep-alive of 0 means that the server does not watch; rumqttc would ping without pause and take each answer
    /// that is not there yet for a cut line. We go on watching the line at our own interval.
    fn keep_own_pings(&mut self) {
        if let Wire::V5(wire) = &mut self.wire
            && wire.options.keep_alive().is_zero()
        {
            wire.options.set_keep_alive(keep_alive(&self.config));
        }
    }

    /// What the peer had still sent when the connection broke. It belongs to this connection's packet ids only.
    pub(crate) fn leftovers(&mut self) -> Vec<Event> {
        match &mut self.wire {
            Wire::V5(wire) => wire.state.events.drain(..).map(|event| from_v5(event, &self.reasons)).collect(),
            Wire::V4(wire) => wire.state.events.drain(..).map(from_v4).collect(),
        }
    }
}

fn from_v5(event: Event5, reasons: &Reasons) -> Event {
    match event {
        Event5::Incoming(Packet5::ConnAck(connack)) if connack.code == ConnectReturnCode::Success => {
            let properties = connack.properties.as_ref();
            Event::Connected(Terms {
                receive_maximum: properties.and_then(|granted| granted.receive_max).unwrap_or(u16::MAX),
                max_packet: properties
                    .and_then(|granted| granted.max_packet_size)
                    .map_or(usize::MAX, |size| size as usize),
                retain: properties.and_then(|granted| granted.retain_available) != Some(0),
                qos_1: properties.and_then(|granted| granted.max_qos) != Some(0),
            })
        }
        Event5::Incoming(Packet5::PubAck(ack)) => {
            // Only a plain success has no reason of its own.
            let (code, words) = match (reasons.take(ack.pkid), ack.reason) {
                (Some(reason), _) => (reason.code, reason.words),
                (None, PubAckReason::Success) => (SUCCESS, None),
                (None, _) => (UNSPECIFIED_ERROR, None),
            };
            Event::Acked(ack.pkid, code, words)
        }
        Event5::Outgoing(Outgoing::Publish(id)) => Event::Written(id),
        Event5::Outgoing(Outgoing::Disconnect) => Event::DisconnectWritten,
        _ => Event::Other,
    }
}

fn from_v4(event: Event4) -> Event {
    match event {
        Event4::Incoming(Packet4::ConnAck(_)) => Event::Connected(Terms {
            receive_maximum: u16::MAX,
            max_packet: usize::MAX,
            retain: true,
            qos_1: true,
        }),
        Event4::Incoming(Packet4::PubAck(ack)) => Event::Acked(ack.pkid, 0, None),
        Event4::Outgoing(Outgoing::Publish(id)) => Event::Written(id),
        Event4::Outgoing(Outgoing::Disconnect) => Event::DisconnectWritten,
        _ => Event::Other,
    }
}

fn options_v5(config: &Config, socket: String) -> Options5 {
    let mut options = Options5::new(config.client_id.as_str(), socket, config.port);
    options
        .set_keep_alive(keep_alive(config))
        .set_clean_start(true)
        .set_connection_timeout(config.connect_timeout.as_secs().max(1))
        .set_max_packet_size(Some(MAX_INCOMING))
        .set_outgoing_inflight_upper_limit(id_limit(config))
        .set_transport(Transport::Unix);
    options
}

fn options_v4(config: &Config, socket: String) -> Options4 {
    let mut options = Options4::new(config.client_id.as_str(), socket, config.port);
    options
        .set_keep_alive(keep_alive(config))
        .set_clean_session(true)
        .set_max_packet_size(MAX_INCOMING as usize, usize::MAX)
        .set_inflight(id_limit(config))
        .set_transport(Transport::Unix);
    options
}

fn keep_alive(config: &Config) -> Duration {
    // rumqttc panics below five seconds; MQTT has 16 bits for it.
    config.keep_alive.clamp(
        Duration::from_secs(MIN_KEEP_ALIVE_SECONDS),
        Duration::from_secs(u64::from(u16::MAX)),
    )
}

/// Only the time that a flush may take.
fn network(config: &Config) -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(config.connect_timeout.as_secs().max(1));
    network
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::connector::Connector;
    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_watch_the_keep_alive_is_not_flooded_with_pings() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut config = Config::mqtt("plant-7", "127.0.0.1");
        config.port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
            // CONNACK with a server keep-alive of 0.
            socket.write_all(&[0x20, 6, 0, 0, 3, 0x13, 0, 0]).await.unwrap();
            socket
        };
        let cloud = Connector::new().connect(&config).await.unwrap();
        let (_client, mut link) = open(&Arc::new(config), cloud).unwrap();
        let (_socket, connected) = tokio::join!(server, link.poll());
        assert!(matches!(connected, Ok(Event::Connected(_))));
        assert_eq!(
            link.poll().await.unwrap(),
            Event::Other,
            "one ping, which rumqttc had planned already"
        );
        let next = tokio::time::timeout(Duration::from_millis(200), link.poll()).await;
        assert!(next.is_err(), "{next:?}");
    }
}
