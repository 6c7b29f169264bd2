//! The reader: bytes to packets to decisions.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_topic::TopicFilter;
use forebay_wal::{Batch, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::TOPIC_ALIAS_MAXIMUM;
use super::deliveries::Deliveries;
use super::outbox::{Answer, Closing, Outbox, Pending, Ready};
use crate::codec::{
    Ack, AckProperties, Disconnect, Fault, Packet, Publish, QoS, ReasonCode, Role, SubAck, Subscribe, UnsubAck, Unsubscribe, Version, Will,
    decode, encode,
};
use crate::ingress::{Inbound, Ingress, Taken};
use crate::session::durable::{self, Change};
use crate::session::{Attached, SubscriptionOptions};
use crate::stats::{Disconnection, Refusal, add, sub};

/// Bytes read from the socket at once.
pub(super) const READ_BYTES: usize = 16 << 10;
/// A keep-alive of 0 has no end.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
/// How often a parked publish is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// First and longest delay of a 0x97 while the log is full: a device that resends at once must not spin.
const FULL_DELAY: Duration = Duration::from_millis(100);
const FULL_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long a closing connection goes on reading, so that what was sent last is not destroyed by a reset.
const LINGER: Duration = Duration::from_secs(2);
/// Subscriptions of one session; one more is answered with 0x97.
const MAX_SUBSCRIPTIONS: usize = 100;
/// Bytes that may be parked by all connections together; beyond it those that have something parked are not read.
const MAX_PARKED_BYTES: usize = 16 << 20;
/// Bytes that a publish is charged besides topic and payload.
const OVERHEAD: usize = 256;

/// One connection's reading half.
pub(super) struct Reader {
    version: Version,
    outbox: Arc<Outbox>,
    ingress: Ingress,
    attached: Attached,
    deliveries: Deliveries,
    keep_alive: Option<Duration>,
    will: Option<Will>,
    has_fixed_identity: bool,
    aliases: Vec<Option<Bytes>>,
    /// Publishes of a 3.1.1 peer that wait for room in the log, in order.
    parked: VecDeque<(Inbound, Instant)>,
    /// When the first of them is tried again.
    retry_at: Instant,
    /// The batches of QoS 2 publishes that this connection took in: one sent twice is not acked before it is durable.
    qos2_batches: HashMap<u16, Batch>,
    full_delay: Duration,
}

/// What is left when the reader has ended.
pub(super) struct Ended {
    pub(super) ingress: Ingress,
    pub(super) attached: Attached,
    pub(super) deliveries: Deliveries,
    /// The will, if it is to be published.
    pub(super) will: Option<Will>,
}

impl Reader {
    #[allow(clippy::too_many_arguments, reason = "a connection's parts, once")]
    pub(super) fn new(
        version: Version,
        outbox: Arc<Outbox>,
        ingress: Ingress,
        attached: Attached,
        deliveries: Deliveries,
        keep_alive: Option<Duration>,
        will: Option<Will>,
        has_fixed_identity: bool,
    ) -> Self {
        let aliases = vec![None; usize::from(TOPIC_ALIAS_MAXIMUM)];
        let parked = VecDeque::new();
        Self {
            version,
            outbox,
            ingress,
            attached,
            deliveries,
            keep_alive,
            will,
            has_fixed_identity,
            aliases,
            parked,
            retry_at: Instant::now(),
            qos2_batches: HashMap::new(),
            full_delay: FULL_DELAY,
        }
    }

    /// Reads until the connection is to end; says why.
    pub(super) async fn run<R: AsyncRead + Unpin + Send + 'static>(&mut self, mut input: R, mut buffer: BytesMut) -> Closing {
        let closing = match self.restore_subscriptions().await {
            Ok(()) => self.read(&mut input, &mut buffer).await,
            Err(closing) => closing,
        };
        while let Some((inbound, _)) = self.parked.pop_front() {
            self.unparked(&inbound);
        }
        if closing.cause.is_some_and(|cause| cause != Disconnection::ConnectionLost) {
            // In a task of its own: the next connection of the session must not wait for a peer that is gone.
            tokio::spawn(linger(input));
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

    async fn read<R: AsyncRead + Unpin>(&mut self, input: &mut R, buffer: &mut BytesMut) -> Closing {
        let ending = self.outbox.ending();
        let mut ended = std::pin::pin!(ending.cancelled());
        let mut heard = Instant::now();
        let mut is_heard = true;
        // One timer for the connection's life: set anew only when it has fired, not with every packet.
        let mut silence = std::pin::pin!(sleep_until(heard + self.keep_alive.unwrap_or(NEVER)));
        loop {
            if let Err(closing) = self.drain(buffer).await {
                return closing;
            }
            // Not before: while the connection waited for its commits, nobody listened.
            if is_heard {
                heard = Instant::now();
                is_heard = false;
            }
            let is_reading = !self.is_backed_up();
            buffer.reserve(READ_BYTES);
            tokio::select! {
                biased;
                () = &mut ended => return self.why_ended(),
                () = sleep_until(self.retry_at), if !self.parked.is_empty() => {
                    // While its socket is not read, a peer cannot be blamed for silence.
                    is_heard = self.is_backed_up();
                    if let Err(closing) = self.retry_parked() {
                        return closing;
                    }
                }
                read = input.read_buf(buffer), if is_reading => match read {
                    Ok(0) | Err(_) => return Closing::silently(Disconnection::ConnectionLost),
                    Ok(_) => is_heard = true,
                },
                () = &mut silence, if is_reading => {
                    let end = heard + self.keep_alive.unwrap_or(NEVER);
                    if end <= Instant::now() {
                        tracing::info!(identity = %self.ingress.key.identity, "nothing heard for 1.5 times the keep-alive; the connection is closed");
                        return Closing::because(Disconnection::KeepAlive, ReasonCode::KEEP_ALIVE_TIMEOUT);
                    }
                    silence.as_mut().reset(end);
                }
            }
        }
    }

    /// Why somebody else ends the connection: this side's writer or router, shutdown, or a takeover.
    fn why_ended(&self) -> Closing {
        match self.outbox.closing() {
            Some(closing) => closing,
            None if self.ingress.context.shutdown.is_cancelled() => {
                Closing::because(Disconnection::Shutdown, ReasonCode::SERVER_SHUTTING_DOWN)
            }
            None => Closing::because(Disconnection::TakenOver, ReasonCode::SESSION_TAKEN_OVER),
        }
    }

    /// Whether as much is parked as the peer may have in flight, or as all peers together may have.
    fn is_backed_up(&self) -> bool {
        let context = &self.ingress.context;
        self.parked.len() >= usize::from(context.limits.max_in_flight)
            || (!self.parked.is_empty() && context.parked_bytes.load(Ordering::Relaxed) > MAX_PARKED_BYTES)
    }

    /// Decodes and handles all whole packets in the buffer.
    async fn drain(&mut self, buffer: &mut BytesMut) -> Result<(), Closing> {
        let since = Instant::now();
        let now = self.ingress.context.clock.now();
        let mut handled = false;
        while !self.is_backed_up() {
            let packet = decode(buffer, self.version, Role::Server, self.ingress.context.limits.max_packet).map_err(|error| {
                tracing::warn!(identity = %self.ingress.key.identity, "the connection is closed: {error}");
                let cause = if matches!(error.fault, Fault::TooLarge { .. }) {
                    Disconnection::PacketTooLarge
                } else {
                    Disconnection::Protocol
                };
                Closing::because(cause, error.reason())
            })?;
            let Some(packet) = packet else { break };
            handled = true;
            if self.outbox.is_clogged() {
                self.until(|outbox| !outbox.is_clogged()).await?;
            }
            self.handle(packet, since, now).await?;
        }
        if handled {
            self.ingress.device.seen(now.wall_ms);
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
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, now).await,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, now).await,
            Packet::Disconnect(disconnect) => Err(self.disconnect(&disconnect)),
            // Nothing is sent at QoS 1 or 2, so there is nothing that these could answer; harmless.
            Packet::PubAck(_) | Packet::PubComp(_) => Ok(()),
            Packet::PubRec(ack) => {
                let gone = Ack {
                    packet_id: ack.packet_id,
                    reason: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                    properties: AckProperties::default(),
                };
                self.reply(&Packet::PubRel(gone));
                Ok(())
            }
            _ => Err(Closing::because(Disconnection::Protocol, ReasonCode::PROTOCOL_ERROR)),
        }
    }

    async fn publish(&mut self, publish: Publish, since: Instant, now: Timestamp) -> Result<(), Closing> {
        let inbound = self.resolve_alias(publish)?;
        let budget = self.wait_for_room(&inbound).await?;
        let refused = if self.parked.is_empty() {
            self.take(inbound, since, now, budget)?
        } else {
            Some(inbound)
        };
        if let Some(inbound) = refused {
            self.ingress.context.budget.add_permits(budget);
            self.ingress.context.parked_bytes.fetch_add(charge(&inbound), Ordering::Relaxed);
            add(&self.ingress.context.stats.parked, 1);
            if self.parked.is_empty() {
                self.retry_at = Instant::now() + RETRY;
            }
            self.parked.push_back((inbound, since));
        }
        Ok(())
    }

    /// Takes a publish in and gives it its place in the order, or gives it back: it must be parked.
    fn take(&mut self, inbound: Inbound, since: Instant, now: Timestamp, budget: usize) -> Result<Option<Inbound>, Closing> {
        forget_lost(&self.outbox, &mut self.attached.state.qos2);
        let taken = self.ingress.take(&inbound, &mut self.attached.state.qos2, now);
        let answer = |reason| answer(&inbound.publish, reason);
        let id = inbound.publish.packet_id.map_or(0, NonZeroU16::get);
        let (ready, answer, fanout) = match taken {
            Taken::Stored(batch, message) => {
                if inbound.publish.qos == QoS::ExactlyOnce {
                    self.qos2_batches.insert(id, batch);
                }
                (Ready::After(batch), answer(ReasonCode::SUCCESS), message)
            }
            Taken::Passed(message) => (Ready::Now, answer(ReasonCode::SUCCESS), message),
            Taken::Again => {
                let batch = self.qos2_batches.get(&id).copied();
                (batch.map_or(Ready::Now, Ready::After), answer(ReasonCode::SUCCESS), None)
            }
            Taken::Refused(reason, refusal) => match self.refuse(&inbound, reason, refusal) {
                Ok(answer) => (Ready::Now, answer, None),
                Err(closing) => {
                    self.ingress.context.budget.add_permits(budget);
                    return Err(closing);
                }
            },
            Taken::Full(refusal) if inbound.publish.qos == QoS::AtMostOnce => {
                self.count_refusal(refusal, true);
                (Ready::Now, Answer::Nothing, self.ingress.message(&inbound))
            }
            Taken::Full(refusal) if self.version == Version::V5 => {
                self.count_refusal(refusal, false);
                let at = Instant::now() + self.full_delay;
                self.full_delay = (self.full_delay * 2).min(FULL_DELAY_MAX);
                (Ready::At(at), answer(ReasonCode::QUOTA_EXCEEDED), None)
            }
            Taken::Full(_) => return Ok(Some(inbound)),
        };
        if matches!(ready, Ready::After(_)) {
            self.full_delay = FULL_DELAY;
        }
        self.outbox.push(Pending {
            ready,
            answer,
            fanout,
            since,
            budget,
        });
        Ok(None)
    }

    /// What a refused publish is answered with: a reason code on MQTT 5, on 3.1.1 the end of the connection
    /// (MQTT-3.3.5-2), for QoS 0 nothing.
    fn refuse(&self, inbound: &Inbound, reason: ReasonCode, refusal: Refusal) -> Result<Answer, Closing> {
        let qos0 = inbound.publish.qos == QoS::AtMostOnce;
        self.count_refusal(refusal, qos0);
        if refusal == Refusal::NotAuthorized {
            let topic = String::from_utf8_lossy(&inbound.topic);
            tracing::warn!(identity = %self.ingress.key.identity, %topic, "a publish was refused: no access rule of this identity allows the topic; correct the topic, or `access` in the configuration");
        }
        if qos0 {
            return Ok(Answer::Nothing);
        }
        match self.version {
            Version::V5 => Ok(answer(&inbound.publish, reason)),
            Version::V311 => Err(Closing::silently(Disconnection::NotAuthorized)),
        }
    }

    fn count_refusal(&self, refusal: Refusal, qos0: bool) {
        self.ingress.context.stats.refuse(refusal, qos0);
        self.ingress.device.refused();
    }

    fn unparked(&self, inbound: &Inbound) {
        self.ingress.context.parked_bytes.fetch_sub(charge(inbound), Ordering::Relaxed);
        sub(&self.ingress.context.stats.parked, 1);
    }

    fn retry_parked(&mut self) -> Result<(), Closing> {
        let now = self.ingress.context.clock.now();
        self.retry_at = Instant::now() + RETRY;
        // What was parked and is in the order now counts against the same limit as everything else.
        while self.outbox.pending() < self.limit()
            && let Some((inbound, since)) = self.parked.pop_front()
        {
            // If it is parked again it is counted again.
            self.unparked(&inbound);
            if let Some(inbound) = self.take(inbound, since, now, 0)? {
                self.ingress.context.parked_bytes.fetch_add(charge(&inbound), Ordering::Relaxed);
                add(&self.ingress.context.stats.parked, 1);
                self.parked.push_front((inbound, since));
                break;
            }
        }
        self.outbox.wake();
        Ok(())
    }

    async fn pubrel(&mut self, id: NonZeroU16, since: Instant, now: Timestamp) -> Result<(), Closing> {
        let limit = self.limit();
        self.until(|outbox| outbox.pending() < limit).await?;
        forget_lost(&self.outbox, &mut self.attached.state.qos2);
        let reason = if self.attached.state.qos2.contains(&id.get()) {
            ReasonCode::SUCCESS
        } else {
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND
        };
        let mut ready = Ready::Now;
        if reason == ReasonCode::SUCCESS {
            match self.ingress.release(id.get(), now) {
                Some(batch) => {
                    ready = batch.map_or(Ready::Now, Ready::After);
                    self.attached.state.qos2.remove(&id.get());
                    self.qos2_batches.remove(&id.get());
                }
                // The peer sends PUBREL again after it has connected again.
                None => return Err(Closing::because(Disconnection::LogFailed, ReasonCode::SERVER_BUSY)),
            }
        }
        self.outbox.push(Pending {
            ready,
            answer: Answer::PubComp(id, reason),
            fanout: None,
            since,
            budget: 0,
        });
        Ok(())
    }

    /// A topic alias to its topic (MQTT 5, 3.3.2.3.4).
    fn resolve_alias(&mut self, publish: Publish) -> Result<Inbound, Closing> {
        let Some(alias) = publish.properties.topic_alias else {
            return Ok(Inbound {
                topic: publish.topic.clone().into_bytes(),
                publish,
            });
        };
        let place = self
            .aliases
            .get_mut(usize::from(alias.get()) - 1)
            .ok_or(Closing::because(Disconnection::Protocol, ReasonCode::TOPIC_ALIAS_INVALID))?;
        if !publish.topic.as_bytes().is_empty() {
            *place = Some(publish.topic.detached().into_bytes());
        }
        let topic = place
            .clone()
            .ok_or(Closing::because(Disconnection::Protocol, ReasonCode::PROTOCOL_ERROR))?;
        Ok(Inbound { topic, publish })
    }

    /// Waits while too much is taken in and not committed: by this connection, or by all together. Gives what was taken
    /// from the shared budget.
    async fn wait_for_room(&self, inbound: &Inbound) -> Result<usize, Closing> {
        let limit = self.limit();
        self.until(|outbox| outbox.pending() < limit).await?;
        let context = &self.ingress.context;
        // One publish may be larger than the whole budget; it then waits until nothing else is taken in.
        let charge = charge(inbound).min(context.limits.max_uncommitted_bytes);
        let permits = u32::try_from(charge).unwrap_or(u32::MAX);
        match context.budget.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(_) => {
                self.outbox.wake();
                let acquired = tokio::select! {
                    acquired = context.budget.acquire_many(permits) => acquired,
                    () = self.outbox.closed() => return Err(self.why_ended()),
                };
                match acquired {
                    Ok(permit) => permit.forget(),
                    Err(_) => return Err(Closing::because(Disconnection::Shutdown, ReasonCode::SERVER_SHUTTING_DOWN)),
                }
            }
        }
        Ok(charge)
    }

    /// Waits for the writer to bring about a condition.
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

    fn limit(&self) -> usize {
        usize::from(self.ingress.context.limits.max_in_flight)
    }

    /// SUBSCRIBE is a barrier: what came before is committed and handed to the fan-out first, what comes after waits for
    /// the router. Otherwise a peer that subscribes and publishes back to back would miss its own message.
    async fn subscribe(&mut self, subscribe: Subscribe, now: Timestamp) -> Result<(), Closing> {
        self.barrier().await?;
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut changes = Vec::new();
        for subscription in &subscribe.filters {
            let options = SubscriptionOptions {
                qos: subscription.options.qos.level(),
                no_local: subscription.options.no_local,
                retain_as_published: subscription.options.retain_as_published,
                subscription_id: subscribe.subscription_id.map(std::num::NonZeroU32::get),
            };
            codes.push(match self.grant(subscription.filter.as_str(), options) {
                Ok(filter) => {
                    let name = filter.as_str().to_owned();
                    self.deliveries.subscribe(filter, options).await.map_err(|_| router_gone())?;
                    self.attached.state.subscriptions.insert(name.clone(), options);
                    changes.push(Change::Subscribed(self.attached.key.clone(), name, options));
                    add(&self.ingress.context.stats.subscriptions_granted, 1);
                    ReasonCode::SUCCESS
                }
                Err(code) => {
                    add(&self.ingress.context.stats.subscriptions_refused, 1);
                    code
                }
            });
        }
        self.commit(&changes, now).await?;
        self.reply(&Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            codes,
            properties: AckProperties::default(),
        }));
        Ok(())
    }

    fn grant(&self, text: &str, options: SubscriptionOptions) -> Result<TopicFilter, ReasonCode> {
        if text.starts_with("$share/") {
            return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        let filter = TopicFilter::parse(text).map_err(|error| {
            tracing::warn!(identity = %self.ingress.key.identity, filter = text, "a subscription was refused: {error}");
            ReasonCode::TOPIC_FILTER_INVALID
        })?;
        if !self.ingress.access.may_subscribe(&filter) {
            tracing::warn!(identity = %self.ingress.key.identity, filter = text, "a subscription was refused: no access rule of this identity covers it; correct the filter, or `access` in the configuration");
            return Err(ReasonCode::NOT_AUTHORIZED);
        }
        if options.no_local && self.has_fixed_identity {
            // Publishers are told apart by identity, and here all have the same.
            return Err(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
        }
        let subscriptions = &self.attached.state.subscriptions;
        if subscriptions.len() >= MAX_SUBSCRIPTIONS && !subscriptions.contains_key(text) {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        if !self.ingress.context.fanout.admits(&filter) {
            tracing::warn!(identity = %self.ingress.key.identity, filter = text, "a subscription was refused: too many distinct filters were subscribed since the start; restart the gateway, and look for a client that makes up filters");
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        Ok(filter)
    }

    async fn unsubscribe(&mut self, unsubscribe: Unsubscribe, now: Timestamp) -> Result<(), Closing> {
        self.barrier().await?;
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        let mut changes = Vec::new();
        for filter in &unsubscribe.filters {
            let existed = self.deliveries.unsubscribe(filter.as_str()).await.map_err(|_| router_gone())?;
            if self.attached.state.subscriptions.remove(filter.as_str()).is_some() {
                changes.push(Change::Unsubscribed(self.attached.key.clone(), filter.as_str().to_owned()));
            }
            codes.push(if existed {
                ReasonCode::SUCCESS
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED
            });
        }
        self.commit(&changes, now).await?;
        self.reply(&Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            codes,
            properties: AckProperties::default(),
        }));
        Ok(())
    }

    /// Stores changes of a session that outlives its connection, and waits until they survive a power cut.
    async fn commit(&mut self, changes: &[Change], now: Timestamp) -> Result<(), Closing> {
        if !self.ingress.is_durable || changes.is_empty() {
            return Ok(());
        }
        let busy = Closing::because(Disconnection::LogFailed, ReasonCode::SERVER_BUSY);
        let Some(batch) = self.ingress.store(&durable::encode(changes), now) else {
            return Err(busy);
        };
        self.outbox.push(Pending {
            ready: Ready::After(batch),
            answer: Answer::Nothing,
            fanout: None,
            since: Instant::now(),
            budget: 0,
        });
        self.drained().await?;
        match self.outbox.commits.outcome(batch) {
            Some(crate::commits::Outcome::Lost) => Err(busy),
            _ => Ok(()),
        }
    }

    /// What a resumed session had subscribed flows again before its first packet is read.
    async fn restore_subscriptions(&mut self) -> Result<(), Closing> {
        let subscriptions = self.attached.state.subscriptions.clone();
        for (text, options) in subscriptions {
            match TopicFilter::parse(&text) {
                // The rules may have changed since.
                Ok(filter) if self.ingress.access.may_subscribe(&filter) && self.ingress.context.fanout.admits(&filter) => {
                    self.deliveries.subscribe(filter, options).await.map_err(|_| router_gone())?;
                }
                _ => {
                    self.attached.state.subscriptions.remove(&text);
                }
            }
        }
        Ok(())
    }

    async fn barrier(&self) -> Result<(), Closing> {
        self.drained().await?;
        self.ingress.context.fanout.barrier(self.outbox.commits.latest_durable()).await;
        Ok(())
    }

    /// Waits until every place in the order has left.
    async fn drained(&self) -> Result<(), Closing> {
        self.until(|outbox| outbox.pending() == 0).await
    }

    /// The peer's own end. Its will stays unpublished unless it asks for it (MQTT-3.14.4-3); it may change how long its
    /// session lives, but not from nothing (MQTT 5, 3.14.2.2.2).
    fn disconnect(&mut self, disconnect: &Disconnect) -> Closing {
        if let Some(expiry) = disconnect.properties.session_expiry {
            if self.attached.state.expiry_seconds == 0 && expiry > 0 {
                return Closing::because(Disconnection::Protocol, ReasonCode::PROTOCOL_ERROR);
            }
            let limit = u32::try_from(self.ingress.context.limits.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
            self.attached.state.expiry_seconds = expiry.min(limit);
        }
        if disconnect.reason != ReasonCode::DISCONNECT_WITH_WILL {
            self.will = None;
        }
        Closing { cause: None, say: None }
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

fn answer(publish: &Publish, reason: ReasonCode) -> Answer {
    match (publish.qos, publish.packet_id) {
        (QoS::AtLeastOnce, Some(id)) => Answer::PubAck(id, reason),
        (QoS::ExactlyOnce, Some(id)) => Answer::PubRec(id, reason),
        _ => Answer::Nothing,
    }
}

/// Takes back what was noted of QoS 2 packet ids whose commit failed: a publish that is not stored must be taken when it
/// is sent again, and an id that is still on disk must be released again.
pub(super) fn forget_lost(outbox: &Outbox, qos2: &mut BTreeSet<u16>) {
    for lost in outbox.take_lost() {
        match lost {
            Answer::PubRec(id, _) => drop(qos2.remove(&id.get())),
            Answer::PubComp(id, _) => drop(qos2.insert(id.get())),
            Answer::Nothing | Answer::PubAck(..) => {}
        }
    }
}

fn charge(inbound: &Inbound) -> usize {
    OVERHEAD + inbound.topic.len() + inbound.publish.payload.len() + inbound.publish.properties.travelling.len()
}

fn router_gone() -> Closing {
    Closing::because(Disconnection::Shutdown, ReasonCode::SERVER_UNAVAILABLE)
}

async fn linger<R: AsyncRead + Unpin>(mut input: R) {
    let mut sink = [0; 4096];
    let until_closed = async { while matches!(input.read(&mut sink).await, Ok(n) if n > 0) {} };
    // Whether the peer closed or the time is up: both end it.
    timeout(LINGER, until_closed).await.ok();
}
