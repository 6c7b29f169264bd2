//! A gateway in memory, a network that fails on demand, and a device between them, all on tokio's paused clock.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use forebay_device_core::{
    Clock, Exit, Lost, Network, Parts, Probe, Random as Jitter, Reading, Secure, Settings, Socket, State, Uptime, WallTime, Watchdog, run,
};
use forebay_flash::PAGE;
use forebay_flash::sim::{Random, Sim};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, sleep_until, timeout_at};

pub const BUILD: Duration = Duration::from_secs(1_790_000_000);

#[derive(Clone, Copy)]
pub struct PausedClock(pub Instant);

impl Clock for PausedClock {
    fn now(&self) -> Uptime {
        Uptime::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }

    async fn wait_until(&self, moment: Uptime) {
        sleep_until(self.0 + Duration::from_millis(moment.as_millis())).await;
    }
}

/// What the world does to the device, and what the gateway got of it.
pub struct World {
    pub began: Instant,
    pub is_up: Cell<bool>,
    /// Each restart is another life of the gateway.
    pub life: Cell<u32>,
    /// The gateway answers nothing any more, and closes nothing.
    pub is_silent: Cell<bool>,
    /// What joining and opening end with, if not well.
    pub join: Cell<Option<Lost>>,
    pub open: Cell<Option<Lost>>,
    /// The reason that PUBACKs give.
    pub puback: Cell<u8>,
    pub keeps_sessions: Cell<bool>,
    pub time: Cell<Option<Duration>>,
    pub dials: RefCell<Vec<Instant>>,
    pub joins: Cell<u32>,
    pub resets: Cell<u32>,
    pub connects: RefCell<Vec<bool>>,
    session: Cell<bool>,
    /// Telemetry by (boot, seq): how often it came.
    pub got: RefCell<BTreeMap<(u64, u64), u32>>,
    pub order: RefCell<Vec<(u64, u64)>>,
    pub acked: RefCell<BTreeSet<(u64, u64)>>,
    pub payloads: RefCell<Vec<Value>>,
    pub health: RefCell<Vec<Value>>,
    pub pings: Cell<u32>,
    /// The next so many publishes are taken and their line is cut before the ack.
    pub cut_before_ack: Cell<u32>,
    /// A sensor, or the radio's driver, never comes back, whatever its deadline.
    pub sensors_hang: Cell<bool>,
    pub radio_hangs: Cell<bool>,
    pub fed: Cell<u32>,
}

impl World {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            began: Instant::now(),
            is_up: Cell::new(true),
            life: Cell::new(0),
            is_silent: Cell::new(false),
            join: Cell::new(None),
            open: Cell::new(None),
            puback: Cell::new(0),
            keeps_sessions: Cell::new(true),
            time: Cell::new(None),
            dials: RefCell::default(),
            joins: Cell::new(0),
            resets: Cell::new(0),
            connects: RefCell::default(),
            session: Cell::new(false),
            got: RefCell::default(),
            order: RefCell::default(),
            acked: RefCell::default(),
            payloads: RefCell::default(),
            health: RefCell::default(),
            pings: Cell::new(0),
            cut_before_ack: Cell::new(0),
            sensors_hang: Cell::new(false),
            radio_hangs: Cell::new(false),
            fed: Cell::new(0),
        })
    }

    pub fn go_down(&self) {
        self.is_up.set(false);
        self.life.set(self.life.get() + 1);
    }

    async fn serve(self: Rc<Self>, mut stream: DuplexStream) {
        let life = self.life.get();
        let mut buffer = Vec::new();
        loop {
            let mut chunk = [0; 2048];
            // A gateway that dies drops its sockets at once; here within a tick of a second.
            let tick = Instant::now() + Duration::from_millis(200);
            match timeout_at(tick, stream.read(&mut chunk)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(count)) => buffer.extend_from_slice(&chunk[..count]),
                Err(_) => {}
            }
            if self.life.get() != life {
                return;
            }
            if self.is_silent.get() {
                continue;
            }
            while let Some(packet) = first_packet(&mut buffer) {
                let Some(answer) = self.answer(&packet) else { return };
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let body = &packet[packet.iter().skip(1).position(|byte| byte & 0x80 == 0).unwrap() + 2..];
        match packet[0] >> 4 {
            1 => {
                let clean = body[7] & 2 != 0;
                self.connects.borrow_mut().push(clean);
                let present = !clean && self.session.get();
                self.session.set(true);
                let mut properties = vec![0x21, 0, 100];
                if let Some(time) = self.time.get() {
                    let value = (time + self.began.elapsed()).as_millis().to_string();
                    properties.extend(b"\x26\x00\x0cforebay-time\x00");
                    properties.push(u8::try_from(value.len()).unwrap());
                    properties.extend(value.as_bytes());
                }
                let mut answer = vec![0x20, 3 + properties.len() as u8, u8::from(present), 0, properties.len() as u8];
                answer.extend(properties);
                Some(answer)
            }
            3 => {
                assert_eq!(packet[0] & 0x7, 2, "QoS 1, not retained");
                let (topic, rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
                let id = [rest[0], rest[1]];
                let value: Value = serde_json::from_slice(&rest[3..]).unwrap();
                let code = self.puback.get();
                let key = (value["boot"].as_u64().unwrap(), value["seq"].as_u64().unwrap_or(0));
                if code < 0x80 {
                    if topic.ends_with(b"/health") {
                        self.health.borrow_mut().push(value);
                    } else {
                        assert_eq!(topic, b"devices/board-1/telemetry/env");
                        *self.got.borrow_mut().entry(key).or_default() += 1;
                        self.order.borrow_mut().push(key);
                        self.payloads.borrow_mut().push(value);
                    }
                    let cuts = self.cut_before_ack.get();
                    if cuts > 0 {
                        self.cut_before_ack.set(cuts - 1);
                        return None;
                    }
                    self.acked.borrow_mut().insert(key);
                }
                Some(vec![0x40, 4, id[0], id[1], code, 0])
            }
            12 => {
                self.pings.set(self.pings.get() + 1);
                Some(vec![0xd0, 0])
            }
            14 => None,
            other => panic!("packet type {other}"),
        }
    }
}

fn first_packet(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let digits = buffer.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
    let length = (0..digits).fold(0, |sum, at| sum | usize::from(buffer[1 + at] & 0x7f) << (7 * at));
    let end = 1 + digits + length;
    (buffer.len() >= end).then(|| buffer.drain(..end).collect())
}

pub struct Air(pub Rc<World>);

impl Network for Air {
    type Socket<'a> = Line;

    async fn join(&mut self, until: Uptime) -> Result<(), Lost> {
        self.0.joins.set(self.0.joins.get() + 1);
        if self.0.radio_hangs.get() {
            std::future::pending::<()>().await;
        }
        match self.0.join.get() {
            Some(Lost::TimedOut) => {
                PausedClock(self.0.began).wait_until(until).await;
                Err(Lost::TimedOut)
            }
            Some(lost) => Err(lost),
            None => Ok(()),
        }
    }

    async fn open(&mut self, until: Uptime) -> Result<Line, Lost> {
        self.0.dials.borrow_mut().push(Instant::now());
        match self.0.open.get() {
            Some(Lost::TimedOut) => {
                PausedClock(self.0.began).wait_until(until).await;
                return Err(Lost::TimedOut);
            }
            Some(lost) => return Err(lost),
            None if !self.0.is_up.get() => return Err(Lost::Unreachable),
            None => {}
        }
        let (ours, theirs) = tokio::io::duplex(1 << 14);
        tokio::task::spawn_local(self.0.clone().serve(theirs));
        Ok(Line {
            stream: ours,
            began: self.0.began,
        })
    }

    async fn reset(&mut self, _until: Uptime) {
        self.0.resets.set(self.0.resets.get() + 1);
    }

    fn signal_dbm(&self) -> Option<i8> {
        Some(-61)
    }
}

pub struct Line {
    stream: DuplexStream,
    began: Instant,
}

impl Socket for Line {
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost> {
        let deadline = self.began + Duration::from_millis(until.as_millis());
        match timeout_at(deadline, self.stream.read(buffer)).await {
            Err(_) => Ok(0),
            Ok(Ok(0) | Err(_)) => Err(Lost::Closed),
            Ok(Ok(count)) => Ok(count),
        }
    }

    async fn write_all(&mut self, bytes: &[u8], _until: Uptime) -> Result<(), Lost> {
        self.stream.write_all(bytes).await.map_err(|_| Lost::Closed)
    }

    async fn close(&mut self, _until: Uptime) {
        self.stream.shutdown().await.ok();
    }
}

/// No TLS: it is proved elsewhere, and would cost hours here.
pub struct Plain;

impl Secure for Plain {
    type Stream<'a, S: Socket> = S;

    async fn secure<S: Socket>(&mut self, socket: S, _now: WallTime, _until: Uptime) -> Result<S, Lost> {
        Ok(socket)
    }

    fn valid_until<S: Socket>(_stream: &S) -> Option<u64> {
        None
    }
}

pub struct Draws(pub Random);

impl Jitter for Draws {
    fn draw(&mut self) -> u32 {
        (self.0.draw() >> 32) as u32
    }
}

pub struct Sensors(pub Rc<World>);

impl Probe for Sensors {
    async fn read(&mut self) -> Reading {
        if self.0.sensors_hang.get() {
            std::future::pending::<()>().await;
        }
        Reading {
            temperature: Some(2150),
            die: Some(3125),
            ..Reading::default()
        }
    }
}

pub struct Dog(pub Rc<World>);

impl Watchdog for Dog {
    fn feed(&mut self) {
        self.0.fed.set(self.0.fed.get() + 1);
    }
}

pub fn settings() -> Settings<'static> {
    Settings {
        device: "board-1",
        sample_every: Duration::from_secs(10),
        health_every: Duration::from_secs(3600),
        build_time: BUILD,
        version: "1.0.0",
        slot: "A",
        reset_cause: "power-on",
    }
}

/// What the device keeps over boots.
pub struct Flash {
    pub queue: Sim,
    pub notes: Sim,
}

impl Flash {
    pub fn new(seed: u64) -> Self {
        Self {
            queue: Sim::new(24 * PAGE, seed),
            notes: Sim::new(4 * PAGE, seed),
        }
    }
}

pub type DeviceState<'f> = State<&'f mut Sim, &'f mut Sim>;

/// One boot, while `story` goes on. When the story ends the device is stopped, and must send what waits; if `cut`, its power
/// is cut instead.
pub async fn boot<'f, F: Future<Output = ()>>(
    world: &Rc<World>,
    flash: &'f mut Flash,
    seed: u64,
    cut: bool,
    story: impl FnOnce(Rc<RefCell<DeviceState<'f>>>) -> F,
) -> Option<Exit> {
    let settings = settings();
    let clock = PausedClock(world.began);
    let state = Rc::new(RefCell::new(State::new(&mut flash.queue, &mut flash.notes, &settings, clock.now())));
    let story = story(Rc::clone(&state));
    let parts = Parts {
        network: &mut Air(Rc::clone(world)),
        secure: &mut Plain,
        clock: &clock,
        random: &mut Draws(Random(seed)),
        probe: &mut Sensors(Rc::clone(world)),
        watchdog: &mut Dog(Rc::clone(world)),
    };
    let device = run(parts, &state, &settings);
    let mut device = std::pin::pin!(device);
    tokio::select! {
        exit = &mut device => return Some(exit),
        () = story => {}
    }
    if cut {
        return None;
    }
    state.borrow_mut().stop();
    Some(device.await)
}

pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
