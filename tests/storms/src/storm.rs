//! The storms.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_broker::codec::{self, Ack, Packet, PublishProperties, QoS, ReasonCode, Text, Unsubscribe, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};

use crate::pace::Pace;
use crate::peer::{self, Input, Output};

/// Publishes that one storm has in flight: the Receive Maximum that the gateway grants.
const IN_FLIGHT: u16 = 100;
/// Bytes of an ordinary payload.
const PAYLOAD: usize = 256;
/// Bytes of a large one.
const LARGE: usize = 120_000;
/// Connections that say nothing, held at a time.
const SILENT: usize = 100;
/// Topics that are retained, one after the other.
const RETAINED: u64 = 500;
/// SUBSCRIBEs and PINGREQs without an answer yet.
const UNANSWERED: usize = 20;
/// How soon a storm whose connection ended comes back.
const AGAIN: Duration = Duration::from_millis(20);

/// Where a storm goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// A plain listener.
    pub plain: SocketAddr,
    /// One with TLS.
    pub tls: SocketAddr,
}

/// What one device can do to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// Publishes at QoS 0.
    Qos0,
    /// Publishes at QoS 1, a whole window in flight.
    Qos1,
    /// Publishes at QoS 2, a whole window in flight.
    Qos2,
    /// Publishes of 120 KB at QoS 1.
    Large,
    /// Retained publishes at QoS 1.
    Retained,
    /// Publishes that no rule allows.
    Denied,
    /// Publishes that no route matches, each to a topic of its own.
    Unrouted,
    /// Connections, each of another client.
    Connects,
    /// SUBSCRIBE and UNSUBSCRIBE.
    Subscribes,
    /// Topic aliases, set again and again to long topics.
    Aliases,
    /// PINGREQ.
    Pings,
    /// A subscriber that hardly reads and publishes to itself.
    SlowReading,
    /// Connections that begin and say no more.
    HalfOpen,
    /// Bytes that are no TLS.
    TlsGarbage,
    /// Connections of one client that take over from each other.
    Reconnects,
}

impl Storm {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Qos0,
        Self::Qos1,
        Self::Qos2,
        Self::Large,
        Self::Retained,
        Self::Denied,
        Self::Unrouted,
        Self::Connects,
        Self::Subscribes,
        Self::Aliases,
        Self::Pings,
        Self::SlowReading,
        Self::HalfOpen,
        Self::TlsGarbage,
        Self::Reconnects,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qos0 => "QoS 0",
            Self::Qos1 => "QoS 1",
            Self::Qos2 => "QoS 2",
            Self::Large => "120 KB payloads",
            Self::Retained => "retained",
            Self::Denied => "denied",
            Self::Unrouted => "unrouted",
            Self::Connects => "connects",
            Self::Subscribes => "subscribes",
            Self::Aliases => "aliases",
            Self::Pings => "pings",
            Self::SlowReading => "slow reading",
            Self::HalfOpen => "half-open",
            Self::TlsGarbage => "TLS garbage",
            Self::Reconnects => "reconnects",
        }
    }

    /// Events per second that a debug build takes beside other work.
    #[must_use]
    pub fn modest(self) -> f64 {
        match self {
            Self::Qos0 | Self::Qos1 | Self::Denied | Self::Unrouted | Self::Pings => 1000.0,
            Self::Qos2 | Self::Retained | Self::Aliases | Self::SlowReading => 300.0,
            Self::Large | Self::Subscribes => 40.0,
            Self::HalfOpen => 200.0,
            Self::Connects | Self::TlsGarbage | Self::Reconnects => 50.0,
        }
    }

    /// Goes on until it is dropped. `identity` is its client id, or what its client ids begin with.
    pub async fn rage(self, target: Target, identity: &str, pace: &Pace) {
        let mut nth = 0;
        loop {
            // Whatever ends a connection, the next one follows.
            let ended = match self {
                Self::Connects => connects(target.plain, identity, pace, &mut nth).await,
                Self::Reconnects => reconnects(target.plain, identity, pace).await,
                Self::HalfOpen => half_open(target.plain, pace).await,
                Self::TlsGarbage => garbage(target.tls, pace, &mut nth).await,
                Self::Subscribes => subscribes(target.plain, identity, pace).await,
                Self::Pings => pings(target.plain, identity, pace).await,
                Self::SlowReading => slow_reading(target.plain, identity, pace).await,
                _ => self.publishes(target.plain, identity, pace).await,
            };
            if ended.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn publishes(self, address: SocketAddr, identity: &str, pace: &Pace) -> io::Result<()> {
        let (mut input, output) = peer::connect(address, identity, true).await?;
        let output = Mutex::new(output);
        let window = Semaphore::new(usize::from(IN_FLIGHT));
        tokio::select! {
            ended = answers(&mut input, &output, &window) => ended,
            ended = self.send(identity, pace, &output, &window) => ended,
        }
    }

    async fn send(self, identity: &str, pace: &Pace, output: &Mutex<Output>, window: &Semaphore) -> io::Result<()> {
        let payload = Bytes::from(vec![b's'; if self == Self::Large { LARGE } else { PAYLOAD }]);
        let qos = match self {
            Self::Qos0 | Self::Aliases => QoS::AtMostOnce,
            Self::Qos2 => QoS::ExactlyOnce,
            _ => QoS::AtLeastOnce,
        };
        for nth in 0_u64.. {
            pace.tick().await;
            if qos != QoS::AtMostOnce {
                window.acquire().await.map_err(io::Error::other)?.forget();
            }
            let id = (nth % u64::from(IN_FLIGHT)) as u16 + 1;
            let mut packet = peer::publish(self.topic(identity, nth), qos, id, self == Self::Retained, payload.clone());
            if let (Self::Aliases, Packet::Publish(publish)) = (self, &mut packet) {
                publish.properties = PublishProperties {
                    topic_alias: NonZeroU16::new((nth % 32) as u16 + 1),
                    ..PublishProperties::default()
                };
            }
            output.lock().await.send(&packet).await?;
        }
        Ok(())
    }

    fn topic(self, identity: &str, nth: u64) -> String {
        match self {
            Self::Retained => format!("devices/{identity}/state/{}", nth % RETAINED),
            Self::Denied => "devices/of-another/telemetry".to_owned(),
            Self::Unrouted => format!("devices/{identity}/nowhere/{nth}"),
            Self::Aliases => format!("devices/{identity}/nowhere/{:a<900}", nth % 1000),
            _ => format!("devices/{identity}/telemetry"),
        }
    }
}

/// Reads what comes back: each answer that ends a publish gives its place in the window back.
async fn answers(input: &mut Input, output: &Mutex<Output>, window: &Semaphore) -> io::Result<()> {
    loop {
        match input.next().await? {
            Packet::PubAck(_) | Packet::PubComp(_) => window.add_permits(1),
            Packet::PubRec(ack) if ack.reason.is_error() => window.add_permits(1),
            Packet::PubRec(ack) => {
                let release = Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::SUCCESS));
                output.lock().await.send(&release).await?;
            }
            Packet::Disconnect(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
    }
}

async fn connects(address: SocketAddr, identity: &str, pace: &Pace, nth: &mut u64) -> io::Result<()> {
    pace.tick().await;
    *nth += 1;
    peer::connect(address, &format!("{identity}-{nth}"), true).await.map(drop)
}

async fn reconnects(address: SocketAddr, identity: &str, pace: &Pace) -> io::Result<()> {
    // The one before is still there when the next one comes.
    let mut both = VecDeque::new();
    loop {
        pace.tick().await;
        both.push_back(peer::connect(address, identity, false).await?);
        if both.len() > 1 {
            both.pop_front();
        }
    }
}

async fn half_open(address: SocketAddr, pace: &Pace) -> io::Result<()> {
    let mut held = VecDeque::new();
    let mut connect = BytesMut::new();
    let packet = Packet::Connect(Box::new(peer::connect_packet("never-whole", true)));
    codec::encode(&packet, Version::V5, &mut connect).map_err(io::Error::other)?;
    for nth in 0_usize.. {
        pace.tick().await;
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&connect[..nth % connect.len()]).await?;
        held.push_back(stream);
        if held.len() > SILENT {
            held.pop_front();
        }
    }
    Ok(())
}

async fn garbage(address: SocketAddr, pace: &Pace, nth: &mut u64) -> io::Result<()> {
    pace.tick().await;
    *nth += 1;
    // Plain noise, a record that never ends, and a ClientHello that is none.
    let start: &[u8] = [&[][..], &[22, 3, 1, 0x3f, 0xff], &[22, 3, 1, 0, 40, 1, 0, 0, 36, 3, 3]][(*nth % 3) as usize];
    let noise = (0..300).map(|at: u64| (at.wrapping_mul(*nth).wrapping_mul(0x9e37_79b9) >> 7) as u8);
    let bytes: Vec<u8> = start.iter().copied().chain(noise).collect();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn subscribes(address: SocketAddr, identity: &str, pace: &Pace) -> io::Result<()> {
    let (mut input, mut output) = peer::connect(address, identity, true).await?;
    let window = Semaphore::new(UNANSWERED);
    let answered = async {
        loop {
            match input.next().await? {
                Packet::SubAck(_) | Packet::UnsubAck(_) => window.add_permits(1),
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    };
    let send = async {
        for nth in 0_u64.. {
            pace.tick().await;
            window.acquire().await.map_err(io::Error::other)?.forget();
            let id = (nth % 60_000) as u16 + 1;
            let filters = (0..10).map(|filter| format!("devices/{identity}/commands/{}/+/{filter}", nth / 2 % 20));
            let packet = if nth % 2 == 0 {
                peer::subscribe(id, filters)
            } else {
                Packet::Unsubscribe(Unsubscribe {
                    packet_id: NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN),
                    user: Vec::new(),
                    filters: filters.map(Text::from).collect(),
                })
            };
            output.send(&packet).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = answered => ended,
        ended = send => ended,
    }
}

async fn pings(address: SocketAddr, identity: &str, pace: &Pace) -> io::Result<()> {
    let (mut input, mut output) = peer::connect(address, identity, true).await?;
    let window = Semaphore::new(UNANSWERED);
    let answered = async {
        loop {
            input.next().await?;
            window.add_permits(1);
        }
    };
    let send = async {
        loop {
            pace.tick().await;
            window.acquire().await.map_err(io::Error::other)?.forget();
            output.send(&Packet::PingReq).await?;
        }
    };
    tokio::select! {
        ended = answered => ended,
        ended = send => ended,
    }
}

async fn slow_reading(address: SocketAddr, identity: &str, pace: &Pace) -> io::Result<()> {
    let (mut slow, mut output) = peer::connect(address, identity, true).await?;
    output.send(&peer::subscribe(1, [format!("devices/{identity}/commands/#")])).await?;
    slow.next().await?;
    let payload = Bytes::from(vec![b's'; 2000]);
    let topic = format!("devices/{identity}/commands/x");
    let reading = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            slow.skip(1000).await?;
        }
    };
    let send = async {
        loop {
            pace.tick().await;
            // On its own connection: it publishes to itself and does not read.
            output
                .send(&peer::publish(topic.clone(), QoS::AtMostOnce, 0, false, payload.clone()))
                .await?;
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = send => ended,
    }
}
