//! The reader: bytes to packets to decisions.

mod publishing;
mod retained_later;
mod retaining;
mod subscribing;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_topic::PeerText;
use forebay_wal::{Batch, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::connect::Open;
use super::deliveries::Deliveries;
use super::input::{Input, LOOK, RETRY, SILENCE};
use super::outbox::{Closing, Outbox};
use super::outgoing::Receiver;
use super::turn::give_way;
use super::will::HeldWill;
use crate::budget::{Charge, Owner};
use crate::codec::{Ack, Disconnect, Packet, ReasonCode, Role, Version, decode, encode};
use crate::delivery::{Overdue, Received};
use crate::ingress::{Inbound, Ingress};
use crate::observe::{Disconnection, add};
use crate::refusal;
use crate::session::Attached;
use publishing::FULL_DELAY;
pub(super) use publishing::forget_failed;
use retained_later::RetainedLater;

/// For keep-alive 0.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
/// How long a closing connection goes on reading, so that a reset does not discard what was sent last.
const LINGER: Duration = Duration::from_secs(2);

/// How often it is looked whether the peer owes an answer for too long, as a part of how long it may take.
const ACK_CHECKS: u32 = 6;

/// One connection's reading half.
pub(super) struct Reader {
    version: Version,
    outbox: Arc<Outbox>,
    ingress: Ingress,
    attached: Attached,
    deliveries: Deliveries,
    keep_alive: Option<Duration>,
    will: Option<Box<HeldWill>>,
    has_fixed_identity: bool,
    /// The peer's Maximum Packet Size.
    peer_limit: Option<usize>,
    receiver: Receiver,
    owner: Owner,
    /// Topic aliases that the peer may use.
    alias_maximum: u16,
    alias_bytes: Charge,
    /// The topics of a version 5 peer's aliases, up to the highest it has used.
    aliases: Vec<Option<Bytes>>,
    /// Publishes of a 3.1.1 peer that wait for room in the log, in order.
    parked: VecDeque<(Inbound, Instant)>,
    /// When the first parked publish is tried again.
    retry_at: Instant,
    /// The batches of this connection's QoS 2 publishes: one that is sent twice is not acked before it is committed.
    qos2_batches: HashMap<u16, Batch>,
    full_delay: Duration,
    /// Retained messages that wait until the peer's window has room.
    retained_later: RetainedLater,
}

/// What the reader leaves when it has ended.
pub(super) struct Ended {
    pub(super) ingress: Ingress,
    pub(super) attached: Attached,
    pub(super) deliveries: Deliveries,
    /// The will, if it is to be published.
    pub(super) will: Option<Box<HeldWill>>,
}

impl Reader {
    pub(super) fn new(open: Open, deliveries: Deliveries) -> Self {
        let Open {
            version,
            outbox,
            ingress,
            attached,
            will,
            keep_alive,
            peer_limit,
            receiver,
            has_fixed_identity,
            owner,
            alias_maximum,
            window: _,
        } = open;
        let alias_bytes = ingress.context.budget.alias_bytes.open(owner.clone());
        Self {
            version,
            outbox,
            ingress,
            attached,
            deliveries,
            keep_alive,
            will,
            has_fixed_identity,
            peer_limit,
            receiver,
            owner,
            alias_maximum,
            alias_bytes,
            aliases: Vec::new(),
            parked: VecDeque::new(),
            retry_at: Instant::now(),
            qos2_batches: HashMap::new(),
            full_delay: FULL_DELAY,
            retained_later: RetainedLater::default(),
        }
    }

    /// Reads until the connection is to end, and returns why.
    pub(super) async fn run<R: AsyncRead + Unpin + Send + 'static>(&mut self, mut stream: R, mut input: Input) -> Closing {
        self.restore_subscriptions();
        let closing = self.read(&mut stream, &mut input).await;
        while let Some((inbound, _)) = self.parked.pop_front() {
            self.unparked(&inbound);
        }
        if closing.cause.is_some_and(|cause| cause != Disconnection::ConnectionLost) {
            // In its own task: the next connection of the session must not wait for this peer.
            tokio::spawn(linger(stream));
        }
        closing
    }

    pub(super) fn end(self) -> Ended {
        Ended {
            ingress: self.ingress,
            attached: self.attached,
            deliveries: self.deliveries,
            will: self.will,
        }
    }

    async fn read<R: AsyncRead + Unpin>(&mut self, stream: &mut R, input: &mut Input) -> Closing {
        let ending = self.outbox.ending();
        let mut ended = std::pin::pin!(ending.cancelled());
        let mut heard = Instant::now();
        let mut is_heard = true;
        // One timer for the whole connection: it is reset only when it has fired, not with every packet.
        let mut silence = std::pin::pin!(sleep_until(heard + self.keep_alive.unwrap_or(NEVER)));
        let ack_check = self.ingress.context.limits.ack_timeout / ACK_CHECKS;
        // Boxed with its first use: most connections are owed nothing.
        let mut answers: Option<Pin<Box<Sleep>>> = None;
        loop {
            if let Err(closing) = self.drain(stream, input).await {
                return closing;
            }
            if self.deliveries.wants_room() {
                self.deliveries.resume();
            }
            if !self.retained_later.is_empty() {
                Box::pin(self.send_retained_later()).await;
            }
            let may_owe = self.deliveries.may_owe();
            if may_owe && answers.is_none() {
                answers = Some(Box::pin(sleep_until(Instant::now() + ack_check)));
            }
            let waits_for_room = self.deliveries.wants_room() || !self.retained_later.is_empty();
            // Only now: while the connection waited for its commits, its socket was not read.
            if is_heard {
                heard = Instant::now();
                is_heard = false;
            }
            let has_room = input.has_room();
            let is_reading = !self.is_backed_up() && has_room;
            let look_at = match has_room {
                false => Instant::now() + RETRY,
                true => (heard + SILENCE).max(Instant::now() + LOOK),
            };
            tokio::select! {
                biased;
                () = &mut ended => return self.why_ended(),
                () = sleep_until(self.retry_at), if !self.parked.is_empty() => {
                    // While its socket is not read, the peer's silence is not its fault.
                    is_heard = self.is_backed_up();
                    if let Err(closing) = self.retry_parked() {
                        return closing;
                    }
                }
                () = self.outbox.room.notified(), if waits_for_room => {}
                () = self.deliveries.woken(), if may_owe => {}
                () = or_never(&mut answers) => {
                    if let Some(closing) = self.overdue() {
                        return closing;
                    }
                    self.deliveries.resume();
                    answers = None;
                }
                read = input.read(stream), if is_reading => match read {
                    Ok(0) | Err(_) => return Closing::silently(Disconnection::ConnectionLost),
                    Ok(_) => is_heard = true,
                },
                () = sleep_until(look_at), if !has_room || input.holds_room() => {
                    // A peer that is not read is not silent.
                    is_heard = !is_reading;
                    if is_reading && heard + SILENCE <= Instant::now() && input.is_in_the_way() {
                        return self.in_the_way();
                    }
                }
                () = &mut silence, if is_reading => {
                    let end = heard + self.keep_alive.unwrap_or(NEVER);
                    if end <= Instant::now() {
                        if self.is_first("keep_alive") {
                            let identity = PeerText::new(&self.ingress.key.identity);
                            tracing::info!(?identity, "no packet within 1.5 times the keep-alive; the connection is closed");
                        }
                        return Closing::because(Disconnection::KeepAlive, ReasonCode::KEEP_ALIVE_TIMEOUT);
                    }
                    silence.as_mut().reset(end);
                }
            }
        }
    }

    /// The end of a connection that is silent in the middle of a packet whose room others wait for.
    fn in_the_way(&self) -> Closing {
        if self.is_first("input_bytes") {
            let identity = PeerText::new(&self.ingress.key.identity);
            tracing::warn!(
                ?identity,
                "the connection is closed: it was silent for 10 s in the middle of a packet, and others wait for the room that it takes (gateway.max_memory)"
            );
        }
        Closing::because(Disconnection::OverBudget, ReasonCode::QUOTA_EXCEEDED)
    }

    /// Why the connection ends from this side: its writer, shutdown, or a takeover.
    fn why_ended(&self) -> Closing {
        match self.outbox.closing() {
            Some(closing) => closing,
            None if self.ingress.context.shutdown.is_cancelled() => {
                Closing::because(Disconnection::Shutdown, ReasonCode::SERVER_SHUTTING_DOWN)
            }
            None if self.attached.is_dropped() => Closing::because(Disconnection::SessionDropped, ReasonCode::ADMINISTRATIVE_ACTION),
            None => Closing::because(Disconnection::TakenOver, ReasonCode::SESSION_TAKEN_OVER),
        }
    }

    /// The end of a connection whose peer does not answer: what it is owed can be sent again on another one only (MQTT-4.4.0-1).
    fn overdue(&self) -> Option<Closing> {
        let Overdue { packet_id, topic } = self.deliveries.overdue()?;
        if self.is_first("ack_timeout") {
            let (identity, client_id) = (
                PeerText::new(&self.ingress.key.identity),
                PeerText::new(&self.ingress.key.client_id),
            );
            let (topic, limit) = (PeerText::new(&topic), self.ingress.context.limits.ack_timeout);
            tracing::warn!(
                ?identity,
                ?client_id,
                ?topic,
                packet_id,
                "the connection is closed: the client has not acknowledged a message for {limit:?}; look what it does with messages of this topic"
            );
        }
        Some(Closing::because(
            Disconnection::AckTimeout,
            ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
        ))
    }

    /// Decodes and handles all whole packets in the buffer.
    async fn drain<R: AsyncRead + Unpin>(&mut self, stream: &mut R, input: &mut Input) -> Result<(), Closing> {
        let since = Instant::now();
        let now = self.ingress.context.clock.now();
        let mut handled = 0;
        while !self.is_backed_up() {
            let packet = decode(
                &mut input.buffer,
                self.version,
                Role::Server,
                self.ingress.context.limits.max_packet,
            )
            .map_err(|error| {
                if self.is_first("protocol") {
                    let identity = PeerText::new(&self.ingress.key.identity);
                    tracing::warn!(?identity, "the connection is closed: {error}");
                }
                Closing::because(refusal::undecodable(&error), error.reason())
            })?;
            let Some(packet) = packet else { break };
            handled += 1;
            if self.outbox.is_clogged() {
                self.until(|outbox| !outbox.is_clogged()).await?;
            }
            match packet {
                // They may take long, and end with the connection. Boxed, because they are rare.
                Packet::Subscribe(_) | Packet::Unsubscribe(_) => {
                    Box::pin(unless_lost(stream, input, self.handle(packet, since, now))).await?;
                }
                packet => self.handle(packet, since, now).await?,
            }
            give_way().await;
        }
        if handled > 0 {
            add(&self.ingress.context.stats.packets_received, handled);
            self.ingress.device.seen(now.wall_ms);
            self.ingress.handled();
        }
        Ok(())
    }

    async fn handle(&mut self, packet: Packet, since: Instant, now: Timestamp) -> Result<(), Closing> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, since, now).await,
            Packet::PubRel(ack) => self.pubrel(ack.packet_id, since, now).await,
            Packet::PingReq => {
                self.reply(&Packet::PingResp);
                Ok(())
            }
            // Boxed, because they are rare: a connection keeps the memory of everything that may be awaited here.
            Packet::Subscribe(subscribe) => Box::pin(self.subscribe(subscribe, now)).await,
            Packet::Unsubscribe(unsubscribe) => Box::pin(self.unsubscribe(unsubscribe, now)).await,
            Packet::Disconnect(disconnect) => Err(self.disconnect(&disconnect)),
            Packet::PubAck(ack) => {
                self.deliveries.acked(ack.packet_id, ack.reason);
                Ok(())
            }
            Packet::PubRec(ack) => {
                let release = |reason| self.reply(&Packet::PubRel(Ack::new(ack.packet_id, reason)));
                match self.deliveries.received(ack.packet_id, ack.reason) {
                    Received::Release => release(ReasonCode::SUCCESS),
                    // A refused message is not released (MQTT-4.3.3-4), not even if it is refused twice.
                    Received::Unknown if ack.reason.is_error() => {}
                    Received::Unknown => release(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND),
                    Received::Refused => {}
                }
                Ok(())
            }
            Packet::PubComp(ack) => {
                self.deliveries.completed(ack.packet_id);
                Ok(())
            }
            _ => Err(Closing::because(Disconnection::Protocol, ReasonCode::PROTOCOL_ERROR)),
        }
    }

    /// Waits until the writer has made the condition true.
    async fn until(&self, is_met: impl Fn(&Outbox) -> bool) -> Result<(), Closing> {
        loop {
            let room = self.outbox.room.notified();
            if is_met(&self.outbox) {
                return Ok(());
            }
            self.outbox.wake();
            tokio::select! {
                () = room => {}
                () = self.outbox.closed() => return Err(self.why_ended()),
            }
        }
    }

    /// The peer's DISCONNECT. Its will is not published unless it asks for it (MQTT-3.14.4-3). It may change its session
    /// expiry, but not from 0 (MQTT 5, 3.14.2.2.2).
    fn disconnect(&mut self, disconnect: &Disconnect) -> Closing {
        if let Some(expiry) = disconnect.properties.session_expiry {
            if self.attached.state.expiry_seconds == 0 && expiry > 0 {
                return Closing::because(Disconnection::Protocol, ReasonCode::PROTOCOL_ERROR);
            }
            let limit = u32::try_from(self.ingress.context.limits.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
            self.attached.state.expiry_seconds = expiry.min(limit);
        }
        if disconnect.reason != ReasonCode::DISCONNECT_WITH_WILL
            && let Some(will) = self.will.take()
        {
            will.forget(&self.ingress.key, &self.ingress.context);
        }
        Closing { cause: None, say: None }
    }

    /// Whether a line about this peer and for this reason is written in full.
    fn is_first(&self, reason: &'static str) -> bool {
        self.ingress.context.is_first(&self.ingress.key.identity, reason)
    }

    fn reply(&self, packet: &Packet) {
        let version = self.version;
        self.outbox.send(|out| {
            if let Err(error) = encode(packet, version, out) {
                tracing::error!(%error, "an answer could not be encoded");
            }
        });
    }
}

/// Does this work until the peer closes. What the peer sends meanwhile waits in `input`; it may end with a DISCONNECT, so its packets
/// are handled in any case.
async fn unless_lost<R: AsyncRead + Unpin>(
    stream: &mut R,
    input: &mut Input,
    work: impl Future<Output = Result<(), Closing>>,
) -> Result<(), Closing> {
    let lost = async {
        while input.may_look_ahead() {
            if matches!(input.read(stream).await, Ok(0) | Err(_)) {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        done = work => done,
        () = lost => Ok(()),
    }
}

async fn linger<R: AsyncRead + Unpin>(mut input: R) {
    let mut sink = [0; 4096];
    let until_closed = async { while matches!(input.read(&mut sink).await, Ok(n) if n > 0) {} };
    // Either the peer has closed or the time is over.
    timeout(LINGER, until_closed).await.ok();
}

/// Waits for the timer, for ever if there is none.
async fn or_never(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
