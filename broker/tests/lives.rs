//! Whole lives of devices, by a seed: they connect with either version, subscribe, publish, take over from each other, are cut and
//! come back, under bounds so small that all of them are reached. After every step each bound holds; a canary is served all along;
//! when all have gone, everything is given back.
//!
//! `FOREBAY_FIRST_SEED` and `FOREBAY_SEEDS` say which lives are lived; a failure names its seed.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use forebay_broker::codec::{
    Ack, Connect, ConnectProperties, Disconnect, Packet, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeOptions,
    Subscription, Text, Unsubscribe, Version, Will, WillProperties,
};
use forebay_broker::{Bound, Limits};
use support::{Bench, Client, Dice, Setup, connect_5, connect_311, publish, until, within};

/// Lives in the suite, some seconds each.
const SEEDS: u64 = 8;
const STEPS: usize = 500;
/// Devices; those from `LOCAL` on are clients of one fixed word.
const DEVICES: usize = 9;
const LOCAL: usize = 6;
/// What a step waits for a peer that is not read: it is cut then.
const PATIENCE: Duration = Duration::from_millis(100);
/// Answers cannot be dropped: a connection may go over the bound of what is not read by what it is charged at once, and an answer.
const OVER: u64 = 16 << 10;

fn setup() -> Setup {
    Setup {
        identities: vec!["{client_id}", "local"],
        limits: Limits {
            max_connections: 8,
            max_packet: 32 << 10,
            max_in_flight: 5,
            max_topics: 40,
            max_retained_bytes: 150_000,
            max_session_bytes: 2_000,
            max_session_pool: 6_000,
            max_pending: 8,
            max_uncommitted_bytes: 64 << 10,
            max_parked_bytes: 32 << 10,
            max_output_bytes: 96 << 10,
            max_alias_bytes: 1_500,
            ..Limits::default()
        },
        // So that publishes are parked and refused, too.
        max_bytes: 80_000,
        ..Setup::default()
    }
}

/// One life of all devices.
struct Lives {
    dice: Dice,
    bench: Bench,
    canary: Client,
    clients: BTreeMap<usize, Client>,
    steps: usize,
    /// A publish was parked at some time.
    has_parked: bool,
}

impl Lives {
    async fn new(seed: u64) -> Self {
        let bench = Bench::start(setup()).await;
        let canary = canary(&bench).await;
        Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            bench,
            canary,
            clients: BTreeMap::new(),
            steps: 0,
            has_parked: false,
        }
    }

    async fn step(&mut self) -> &'static str {
        self.steps += 1;
        let device = self.dice.below(DEVICES);
        let what = self.dice.below(100);
        if !self.clients.contains_key(&device) || what < 2 {
            return self.connect(device).await;
        }
        let packet = match what {
            2..62 => self.publish(device),
            62..68 => self.subscribe(),
            68..72 => self.unsubscribe(),
            72..80 => Packet::PubRel(Ack::new(self.packet_id(), ReasonCode::SUCCESS)),
            80..83 => Packet::PingReq,
            83..85 => Packet::PubRec(Ack::new(self.packet_id(), ReasonCode::SUCCESS)),
            85..94 | 96..98 => return self.read(device).await,
            94 => {
                self.clients.remove(&device);
                return "cut";
            }
            95 => return self.half_a_packet(device).await,
            98 => {
                self.bench.deliver_all().await;
                return "the cloud takes all";
            }
            _ => return self.goodbye(device).await,
        };
        self.send(device, &packet).await;
        "packet"
    }

    async fn connect(&mut self, device: usize) -> &'static str {
        let dice = &mut self.dice;
        let will = dice.is_one_in(3).then(|| Will {
            topic: Text::from(format!("here/{}", dice.below(60))),
            payload: Bytes::from(vec![b'w'; dice.below(3000)]),
            qos: QoS::from_level(dice.below(3) as u8).unwrap(),
            retain: dice.is_one_in(2),
            properties: WillProperties::default(),
        });
        let client_id = format!("d{device}");
        let mut connect = Connect {
            clean_start: dice.is_one_in(3),
            keep_alive: 60,
            will,
            ..if dice.is_one_in(2) {
                connect_5(&client_id)
            } else {
                connect_311(&client_id)
            }
        };
        if connect.version == Version::V5 {
            connect.properties = ConnectProperties {
                session_expiry: dice.one_of(&[None, Some(0), Some(600)]),
                maximum_packet_size: dice.one_of(&[None, NonZeroU32::new(500)]),
                ..ConnectProperties::default()
            };
            if let Some(will) = &mut connect.will {
                will.properties.delay = dice.one_of(&[None, Some(300)]);
            }
        }
        let listener = usize::from(device >= LOCAL);
        let mut client = Client::opened(self.bench.addresses[listener], connect.version).await;
        let is_sent = client.try_send(&Packet::Connect(Box::new(connect))).await;
        // The one before is taken over from while it is still there, or it was cut a moment ago.
        if is_sent
            && let Some(Packet::ConnAck(connack)) = client.receive().await
            && !connack.code.is_error()
        {
            self.clients.insert(device, client);
            return "connected";
        }
        "refused"
    }

    fn publish(&mut self, device: usize) -> Packet {
        let is_5 = self.clients[&device].version == Version::V5;
        let packet_id = self.packet_id();
        let dice = &mut self.dice;
        let qos = QoS::from_level(dice.below(3) as u8).unwrap();
        let topic = match dice.below(6) {
            0..3 => format!("cloud/{device}"),
            3 => format!("here/{}", dice.below(60)),
            4 => format!("here/{}/{:x<300}", device, dice.below(60)),
            _ => format!("nowhere/{}", dice.below(1000)),
        };
        let size = dice.one_of(&[0, 1, 100, 100, 2_000, 9_000, 30_000]);
        Packet::Publish(Publish {
            dup: qos != QoS::AtMostOnce && dice.is_one_in(5),
            qos,
            retain: dice.is_one_in(4),
            topic: Text::from(topic),
            packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
            properties: PublishProperties {
                topic_alias: NonZeroU16::new(dice.below(33) as u16).filter(|_| is_5 && dice.is_one_in(2)),
                ..PublishProperties::default()
            },
            payload: Bytes::from(vec![b'p'; size]),
        })
    }

    fn packet_id(&mut self) -> NonZeroU16 {
        NonZeroU16::new(self.dice.below(14) as u16 + 1).unwrap()
    }

    fn filter(&mut self) -> Text {
        let dice = &mut self.dice;
        let place = dice.below(40);
        Text::from(match dice.below(5) {
            0 => format!("here/{place}"),
            1 => "here/#".to_owned(),
            2 => format!("here/+/{place:x<200}"),
            3 => "cloud/+".to_owned(),
            _ => format!("$share/g/{place}"),
        })
    }

    fn subscribe(&mut self) -> Packet {
        let count = 1 + self.dice.below(8);
        let filters = (0..count).map(|_| Subscription {
            filter: self.filter(),
            options: SubscribeOptions::default(),
        });
        Packet::Subscribe(Subscribe {
            filters: filters.collect(),
            packet_id: NonZeroU16::MIN,
            subscription_id: None,
            user: Vec::new(),
        })
    }

    fn unsubscribe(&mut self) -> Packet {
        let filters = (0..3).map(|_| self.filter()).collect();
        Packet::Unsubscribe(Unsubscribe {
            packet_id: NonZeroU16::MIN,
            user: Vec::new(),
            filters,
        })
    }

    /// Sends; a device that is not read any more, or that is closed, is cut.
    async fn send(&mut self, device: usize, packet: &Packet) {
        let client = self.clients.get_mut(&device).unwrap();
        if tokio::time::timeout(PATIENCE, client.try_send(packet)).await != Ok(true) {
            self.clients.remove(&device);
        }
    }

    /// Reads what has come; not all do so, or soon.
    async fn read(&mut self, device: usize) -> &'static str {
        let client = self.clients.get_mut(&device).unwrap();
        while let Ok(packet) = tokio::time::timeout(Duration::ZERO, client.receive()).await {
            if packet.is_none() {
                self.clients.remove(&device);
                return "was closed";
            }
        }
        "read"
    }

    async fn half_a_packet(&mut self, device: usize) -> &'static str {
        let mut client = self.clients.remove(&device).unwrap();
        let bytes: Vec<u8> = (0..1 + self.dice.below(60)).map(|_| self.dice.next() as u8).collect();
        tokio::time::timeout(PATIENCE, client.send_raw(&bytes)).await.ok();
        "half a packet"
    }

    async fn goodbye(&mut self, device: usize) -> &'static str {
        let mut client = self.clients.remove(&device).unwrap();
        let reason = self.dice.one_of(&[ReasonCode::SUCCESS, ReasonCode::DISCONNECT_WITH_WILL]);
        let reason = if client.version == Version::V5 {
            reason
        } else {
            ReasonCode::SUCCESS
        };
        tokio::time::timeout(PATIENCE, client.try_send(&Packet::Disconnect(Disconnect::new(reason))))
            .await
            .ok();
        "goodbye"
    }

    fn assert_bounds(&self, after: &str) {
        let (view, limits) = (&self.bench.view, &self.bench.setup.limits);
        for status in view.budget().status() {
            let Some((taken, whole)) = status.taken else { continue };
            let over = if status.bound == Bound::OutputBytes {
                OVER * DEVICES as u64
            } else {
                0
            };
            assert!(taken <= whole + over, "after {after}: {taken} of {whole} {}", status.bound.label());
        }
        let stats = view.stats();
        let is_within = |what: &str, now: u64, most: u64| assert!(now <= most, "after {after}: {now} {what}, at most {most}");
        let connections = limits.max_connections as u64;
        is_within("sessions", view.sessions() as u64, 4 * connections);
        is_within(
            "retained messages",
            stats.retained.load(Ordering::Relaxed),
            limits.max_topics as u64,
        );
        is_within(
            "retained bytes",
            stats.retained_bytes.load(Ordering::Relaxed),
            limits.max_retained_bytes,
        );
        let parked = (connections + 1) * u64::from(limits.max_in_flight);
        is_within("parked publishes", stats.parked.load(Ordering::Relaxed), parked);
        assert!(
            view.fault().is_none() && view.fanout_is_alive(),
            "after {after}: {:?}",
            view.fault()
        );
    }

    async fn assert_served(&mut self) {
        self.canary.send(&publish("here/canary", 1, Some(1))).await;
        self.canary.expect_ack(1, ReasonCode::SUCCESS).await;
    }

    /// The gateway is killed and starts again, with what it left.
    async fn again(self) -> Self {
        let (directory, setup) = self.bench.kill();
        let bench = Bench::start_in(directory, setup).await;
        Self {
            canary: canary(&bench).await,
            bench,
            clients: BTreeMap::new(),
            ..self
        }
    }

    /// All go; their sessions are ended and what they retained is cleared. Nothing is left.
    async fn end(mut self) {
        self.clients.clear();
        // A connection with parked publishes is not read, so its end is seen once there is room for all that it sent.
        within("only the canary is connected", async {
            let stats = self.bench.view.stats();
            while stats.connected.load(Ordering::Relaxed) > 1 || stats.parked.load(Ordering::Relaxed) > 0 {
                self.bench.deliver_all().await;
            }
            self.bench.deliver_all().await;
        })
        .await;
        for device in 0..DEVICES {
            let listener = usize::from(device >= LOCAL);
            let mut client = Client::connected(self.bench.addresses[listener], connect_5(&format!("d{device}"))).await;
            client.send(&Packet::Disconnect(Disconnect::default())).await;
            assert_eq!(client.receive().await, None);
        }
        let mut sweeper = Client::connected(self.bench.addresses[1], connect_5("sweeper")).await;
        let mut topics = vec!["cloud/canary".to_owned()];
        topics.extend((0..60).map(|place| format!("here/{place}")));
        topics.extend((0..DEVICES).map(|device| format!("cloud/{device}")));
        topics.extend((0..1000).map(|place| format!("nowhere/{place}")));
        topics.extend((0..DEVICES).flat_map(|device| (0..60).map(move |place| format!("here/{device}/{place:x<300}"))));
        for topic in topics {
            let clear = Publish {
                retain: true,
                topic: Text::from(topic),
                ..Publish::default()
            };
            sweeper.send(&Packet::Publish(clear)).await;
        }
        sweeper.ping().await;
        drop((sweeper, self.canary));
        let view = &self.bench.view;
        until("all is given back", || {
            let is_free = view
                .budget()
                .status()
                .iter()
                .all(|status| status.taken.is_none_or(|(taken, _)| taken == 0));
            let stats = view.stats();
            let left = [&stats.connected, &stats.parked, &stats.retained, &stats.retained_bytes];
            is_free && view.sessions() == 0 && left.iter().all(|left| left.load(Ordering::Relaxed) == 0)
        })
        .await;
        self.bench.stop().await;
    }
}

async fn canary(bench: &Bench) -> Client {
    Client::connected(bench.addresses[1], connect_5("canary")).await
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_any_life_every_bound_holds_after_each_step_and_all_is_given_back() {
    let first = from_environment("FOREBAY_FIRST_SEED").unwrap_or(1);
    let mut reached = BTreeMap::<&str, u64>::new();
    let mut has_parked = false;
    for seed in first..first + from_environment("FOREBAY_SEEDS").unwrap_or(SEEDS) {
        println!("a failure here is replayed by FOREBAY_FIRST_SEED={seed} FOREBAY_SEEDS=1 cargo test -p forebay-broker --test lives");
        let mut lives = Lives::new(seed).await;
        while lives.steps < STEPS {
            let what = lives.step().await;
            lives.assert_bounds(what);
            lives.has_parked |= lives.bench.view.stats().parked.load(Ordering::Relaxed) > 0;
            if lives.steps.is_multiple_of(25) {
                lives.assert_served().await;
            }
            if lives.steps == STEPS / 2 {
                note(&lives, &mut reached);
                lives = lives.again().await;
            }
        }
        note(&lives, &mut reached);
        has_parked |= lives.has_parked;
        lives.end().await;
    }
    println!("bounds reached: {reached:?}");
    assert!(has_parked, "no publish was ever parked");
    // Which of them a life comes to is also a matter of the machine's pace.
    assert!(
        reached.len() >= 6,
        "few bounds were ever reached, so these lives prove little: {reached:?}"
    );
}

fn note(lives: &Lives, reached: &mut BTreeMap<&str, u64>) {
    for bound in Bound::ALL {
        let times = lives.bench.view.budget().reached(*bound);
        if times > 0 {
            *reached.entry(bound.label()).or_default() += times;
        }
    }
}
