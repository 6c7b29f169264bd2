//! One client's connection, from its CONNECT to its end. The steps of a publish stand numbered in [`Connection::on_publish`].

mod acks;
mod connect;
mod publish;
mod subscribe;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::StandinConfig,
    decode::{self, Connect, Packet, Version, Will},
    encode::{self, Granted, Message},
    faults::{Cut, Faults},
    hub::{Attached, Delivery, End, Hub},
    ledger::Ledger,
    rate::Bucket,
    stats::{Counters, add},
    violations::Violations,
};
use acks::Acks;
use connect::{Refusal, admit, read_connect};

/// How long a client may leave our answers unread.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a polite close waits for the peer's own end.
const LINGER: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: StandinConfig,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) faults: Faults,
    pub(crate) violations: Arc<Violations>,
    pub(crate) counters: Counters,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The peer closed, with or without DISCONNECT.
    Closed,
    /// We end it.
    Ours(End),
}

impl Ending {
    const FIN: Self = Self::Ours(End::Cut(Cut::Fin));
}

/// Serves one connection until it ends or `over` is cancelled, which resets it.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    stream: S,
    reset: Arc<AtomicBool>,
    over: CancellationToken,
) {
    let mut line = Line {
        stream,
        buffer: BytesMut::with_capacity(4096),
        out: Vec::new(),
    };
    let cut_off = over
        .run_until_cancelled(async {
            let ending = session(&shared, &mut line).await;
            match ending {
                Ending::Closed => {}
                Ending::Ours(End::Cut(Cut::Reset)) => reset.store(true, Ordering::Relaxed),
                Ending::Ours(End::Cut(Cut::Fin) | End::Disconnect(_)) => line.close().await,
            }
        })
        .await
        .is_none();
    if cut_off {
        reset.store(true, Ordering::Relaxed);
    }
}

/// The stream with what was read and not parsed, and what is to be written.
#[derive(Debug)]
struct Line<S> {
    stream: S,
    buffer: BytesMut,
    out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Reads some bytes; cancel safe.
    async fn read(&mut self) -> Result<(), Ending> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Ending::Closed),
            Ok(_) => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Ending> {
        if self.out.is_empty() {
            return Ok(());
        }
        let Self { stream, out, .. } = self;
        let write = async {
            stream.write_all(out).await?;
            stream.flush().await
        };
        let written = timeout(WRITE_DEADLINE, write).await;
        out.clear();
        if matches!(written, Ok(Ok(()))) {
            Ok(())
        } else {
            Err(Ending::Closed)
        }
    }

    /// Writes what is left, sends FIN and waits a little for the peer's, so that it reads our last words before any RST.
    async fn close(&mut self) {
        if self.flush().await.is_err() || self.stream.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            loop {
                self.buffer.clear();
                if self.read().await.is_err() {
                    break;
                }
            }
        };
        if timeout(LINGER, drain).await.is_err() {
            tracing::debug!("a peer did not close after our end");
        }
    }
}

/// Runs a connection and cleans up behind it.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(shared: &Arc<Shared>, line: &mut Line<S>) -> Ending {
    let limits = &shared.config.limits;
    let connect = match timeout(limits.handshake, read_connect(shared, line)).await {
        Ok(Ok(connect)) => connect,
        Ok(Err(ending)) => return ending,
        Err(_) => {
            shared.counters.refusal("no CONNECT in time".to_owned());
            return Ending::FIN;
        }
    };
    let close_at_once = match admit(shared, line, &connect).await {
        Ok(close) => close,
        Err(Refusal::Silence) => loop {
            line.buffer.clear();
            if let Err(ending) = line.read().await {
                return ending;
            }
        },
        Err(Refusal::Ending(ending)) => return ending,
        Err(Refusal::Code(code)) => {
            shared
                .counters
                .connect(&connect.client_id, connect.version, connect.keep_alive, false);
            line.out.extend(encode::connack_refused(connect.version, code).unwrap_or_default());
            return Ending::FIN;
        }
    };

    let (client_id, assigned) = match connect.client_id.as_str() {
        "" => (format!("$GEN/{:?}", Instant::now()), true),
        id => (id.to_owned(), false),
    };
    let longest = u32::try_from(limits.session_expiry.as_secs()).unwrap_or(u32::MAX);
    let session_expiry = connect.session_expiry.unwrap_or(longest).min(longest);
    let attached = shared
        .hub
        .attach(&client_id, connect.clean, Duration::from_secs(session_expiry.into()));
    let serial = attached.serial;
    let mut guard = Detach {
        shared: Arc::clone(shared),
        client_id: client_id.clone(),
        serial,
        will: connect.will.clone(),
    };

    let keep_alive = match connect.keep_alive {
        0 => *limits.keep_alive.end(),
        asked => asked.clamp(*limits.keep_alive.start(), *limits.keep_alive.end()),
    };
    shared
        .counters
        .connect(&connect.client_id, connect.version, connect.keep_alive, true);
    let granted = Granted {
        session_present: attached.session_present,
        keep_alive,
        session_expiry,
        assigned_client_id: assigned.then_some(client_id.as_str()),
    };
    line.out.extend(encode::connack(connect.version, limits, &granted));
    let mut connection = Connection::new(Arc::clone(shared), &connect, client_id, keep_alive, attached);
    let ending = if close_at_once { Ending::FIN } else { connection.run(line).await };
    if connection.graceful {
        guard.will = None;
    }
    if let Ending::Ours(End::Disconnect(code)) = ending {
        line.out.extend(encode::disconnect(connect.version, code).unwrap_or_default());
    }
    ending
}

/// Leaves the hub and publishes the will, however the connection's task ends.
struct Detach {
    shared: Arc<Shared>,
    client_id: String,
    serial: u64,
    will: Option<Will>,
}

impl Drop for Detach {
    fn drop(&mut self) {
        self.shared.hub.detach(&self.client_id, self.serial);
        if let Some(Will { topic, payload, qos }) = self.will.take() {
            self.shared.hub.publish(&Arc::new(Message {
                topic,
                payload,
                qos,
                user_properties: Vec::new(),
            }));
        }
    }
}

/// An established connection.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    version: Version,
    client_id: String,
    /// The client said DISCONNECT and wants no will.
    graceful: bool,
    silence: Duration,
    attached: Attached,
    /// QoS 1 publishes we have not acked, as the client sees it.
    unacked: HashSet<u16>,
    acks: Acks,
    aliases: HashMap<u16, String>,
    publishes: Option<Bucket>,
    bytes: Option<Bucket>,
    backlog: VecDeque<Delivery>,
    /// Deliveries the client has not acked: packet id to key in the session's store.
    outbound: HashMap<u16, u64>,
    outbound_limit: usize,
    outbound_packet: usize,
    next_packet_id: u16,
}

impl Connection {
    fn new(shared: Arc<Shared>, connect: &Connect, client_id: String, keep_alive: u16, mut attached: Attached) -> Self {
        let now = Instant::now();
        let rates = &shared.config.rates;
        Self {
            version: connect.version,
            client_id,
            graceful: false,
            silence: Duration::from_millis(u64::from(keep_alive) * 1500),
            backlog: std::mem::take(&mut attached.backlog).into(),
            attached,
            unacked: HashSet::new(),
            acks: Acks::default(),
            aliases: HashMap::new(),
            publishes: rates.publishes.map(|rate| Bucket::new(rate, now)),
            bytes: rates.bytes.map(|rate| Bucket::new(rate, now)),
            outbound: HashMap::new(),
            outbound_limit: usize::from(connect.receive_maximum.min(shared.config.limits.receive_maximum)),
            outbound_packet: connect
                .max_packet
                .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX)),
            next_packet_id: 0,
            shared,
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, line: &mut Line<S>) -> Ending {
        match self.turn(line).await {
            Ok(never) => match never {},
            Err(ending) => ending,
        }
    }

    async fn turn<S: AsyncRead + AsyncWrite + Unpin>(&mut self, line: &mut Line<S>) -> Result<std::convert::Infallible, Ending> {
        let mut heard = Instant::now();
        loop {
            let parsed = self.on_bytes(line).await;
            line.flush().await?;
            parsed?;
            let room = self.outbound.len() < self.outbound_limit;
            if room && let Some(delivery) = self.backlog.pop_front() {
                self.deliver(line, &delivery);
                continue;
            }
            let due = self.acks.due();
            tokio::select! {
                biased;
                _ = self.attached.end.changed() => {
                    let end = *self.attached.end.borrow_and_update();
                    // The sender is dropped without a word only after a newer connection took the place.
                    return Err(Ending::Ours(end.unwrap_or(End::Disconnect(0x8E))));
                }
                () = at(due) => self.acks.release(Instant::now(), &mut line.out, &mut self.unacked),
                read = line.read() => {
                    read?;
                    heard = Instant::now();
                }
                delivery = self.attached.deliveries.recv(), if room => {
                    if let Some(delivery) = delivery {
                        self.deliver(line, &delivery);
                    }
                }
                () = tokio::time::sleep_until(heard + self.silence) => {
                    heard = Instant::now();
                    if !self.shared.faults.stalled() {
                        add(&self.shared.counters.keep_alive_timeouts);
                        return Err(Ending::Ours(End::Disconnect(0x8D)));
                    }
                }
            }
        }
    }

    /// Handles every complete packet that was read.
    async fn on_bytes<S: AsyncRead + AsyncWrite + Unpin>(&mut self, line: &mut Line<S>) -> Result<(), Ending> {
        let max_packet = self.shared.config.limits.packet;
        loop {
            let packet = match decode::frame(&mut line.buffer, max_packet) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => decode::packet(self.version, &frame),
                Err(malformed) => Err(malformed),
            };
            let packet = packet.map_err(|malformed| self.violate(malformed.code, &malformed.text))?;
            if self.shared.faults.stalled() {
                add(&self.shared.counters.swallowed);
                continue;
            }
            match packet {
                Packet::Publish(publish) => self.on_publish(line, publish).await?,
                Packet::Puback(packet_id) => self.on_puback(packet_id),
                Packet::Subscribe(subscribe) => self.on_subscribe(line, &subscribe)?,
                Packet::Unsubscribe { packet_id, filters } => self.on_unsubscribe(line, packet_id, &filters),
                Packet::Pingreq => line.out.extend(encode::PINGRESP),
                Packet::Disconnect { with_will } => {
                    self.graceful = !with_will;
                    return Err(Ending::FIN);
                }
            }
        }
    }

    /// Logs a violation and names the end it leads to.
    fn violate(&self, code: u8, why: &str) -> Ending {
        self.note_violation(why);
        Ending::Ours(End::Disconnect(code))
    }

    fn note_violation(&self, why: &str) {
        self.shared.violations.add(format!("client {:?}: {why}", self.client_id));
    }
}

/// Sleeps until then, or for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
