//! Incoming publishes: waiting for room, their slot in the outbox, parking while the log is full, and the QoS 2 handshake.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use forebay_topic::PeerText;
use forebay_wal::Timestamp;
use tokio::time::Instant;

use super::super::outbox::{Answer, Closing, Outbox, Pending, Ready};
use super::Reader;
use crate::budget::{Bound, Exceeded, Room};
use crate::codec::{Publish, QoS, ReasonCode};
use crate::ingress::{Inbound, Taken};
use crate::observe::{Disconnection, add, sub};
use crate::policy::TopicBounds;
use crate::refusal::{PublishAnswer, RefusedPublish};
use crate::session::PACKET_ID_BYTES;

/// How often a parked publish is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// First and longest delay of a 0x97 while the log is full: a device that sends again at once must not spin.
pub(super) const FULL_DELAY: Duration = Duration::from_millis(100);
const FULL_DELAY_MAX: Duration = Duration::from_secs(5);
/// Bytes that a publish counts for besides its topic and payload.
const OVERHEAD: usize = 256;
/// Bytes that an alias counts for besides its topic.
const ALIAS_OVERHEAD: usize = 64;

impl Reader {
    /// Whether this peer has parked as many publishes as it may have in flight, or all peers too many bytes.
    pub(super) fn is_backed_up(&self) -> bool {
        let context = &self.ingress.context;
        self.parked.len() >= usize::from(context.limits.max_in_flight)
            || (!self.parked.is_empty() && context.parked_bytes.load(Ordering::Relaxed) > context.limits.max_parked_bytes)
    }

    pub(super) async fn publish(&mut self, publish: Publish, since: Instant, now: Timestamp) -> Result<(), Closing> {
        let inbound = self.resolve_alias(publish)?;
        self.check_unreleased(&inbound)?;
        let room = self.wait_for_room(&inbound).await?;
        let refused = if self.parked.is_empty() {
            self.take(inbound, since, now, Some(room))?
        } else {
            Some(inbound)
        };
        if let Some(inbound) = refused {
            self.park(&inbound);
            if self.parked.is_empty() {
                self.retry_at = Instant::now() + RETRY;
            }
            self.parked.push_back((inbound, since));
        }
        Ok(())
    }

    /// Passes a publish to the log and adds its slot to the outbox, which keeps its room. A publish that must be parked is returned.
    fn take(&mut self, inbound: Inbound, since: Instant, now: Timestamp, room: Option<Room>) -> Result<Option<Inbound>, Closing> {
        forget_failed(&self.outbox, &mut self.attached.state.qos2);
        let taken = self.ingress.take(&inbound, &mut self.attached.state.qos2, now);
        if inbound.publish.qos == QoS::ExactlyOnce {
            self.attached.settle();
        }
        let answer = |reason| answer(&inbound.publish, reason);
        let id = inbound.publish.packet_id.map_or(0, NonZeroU16::get);
        let mut trace = None;
        let (ready, answer, fanout) = match taken {
            Taken::Appended(batch, message, traced) => {
                trace = traced;
                if inbound.publish.qos == QoS::ExactlyOnce {
                    self.qos2_batches.insert(id, batch);
                }
                (Ready::After(batch), answer(ReasonCode::SUCCESS), message)
            }
            Taken::Unlogged(message) => (Ready::Now, answer(ReasonCode::SUCCESS), message),
            Taken::Duplicate => {
                let batch = self.qos2_batches.get(&id).copied();
                (batch.map_or(Ready::Now, Ready::After), answer(ReasonCode::SUCCESS), None)
            }
            Taken::Refused(refused) => match self.refuse(&inbound, &refused) {
                PublishAnswer::Nothing => {
                    let message = refused.is_temporary().then(|| self.ingress.message(&inbound)).flatten();
                    (Ready::Now, Answer::Nothing, message)
                }
                PublishAnswer::AckAndDrop => (Ready::Now, answer(ReasonCode::SUCCESS), None),
                PublishAnswer::Code(code) => (Ready::Now, answer(code), None),
                PublishAnswer::DelayedCode(code) => {
                    let at = Instant::now() + self.full_delay;
                    self.full_delay = (self.full_delay * 2).min(FULL_DELAY_MAX);
                    (Ready::At(at), answer(code), None)
                }
                PublishAnswer::Park => return Ok(Some(inbound)),
                PublishAnswer::Close(cause) => return Err(Closing::silently(cause)),
            },
        };
        if matches!(ready, Ready::After(_)) {
            self.full_delay = FULL_DELAY;
        }
        self.outbox.push(Pending {
            ready,
            answer,
            publish: Some(inbound.publish.qos),
            fanout: fanout.map(Box::new),
            since,
            budget: room.map_or(0, Room::keep),
            trace,
        });
        Ok(None)
    }

    /// A QoS 2 publish counts against Receive Maximum until its PUBCOMP (MQTT-3.3.4-9; MQTT 5, 4.9): one more ends the
    /// connection. The ids of a session outlive it, so they are bounded on 3.1.1 too.
    fn check_unreleased(&mut self, inbound: &Inbound) -> Result<(), Closing> {
        let (QoS::ExactlyOnce, Some(id)) = (inbound.publish.qos, inbound.publish.packet_id) else {
            return Ok(());
        };
        let unreleased = &self.attached.state.qos2;
        if unreleased.contains(&id.get()) {
            return Ok(());
        }
        if unreleased.len() < self.limit() {
            let charged = self.attached.charge(PACKET_ID_BYTES);
            return charged.map_err(|exceeded| self.over_budget(exceeded, "session_bytes"));
        }
        let exceeded = Exceeded::share(Bound::InFlight, self.limit() as u64);
        self.ingress.context.budget.note(exceeded, &self.owner);
        if self.is_first("receive_maximum") {
            let identity = PeerText::new(&self.ingress.key.identity);
            tracing::warn!(?identity, "the connection is closed: {exceeded}");
        }
        Err(Closing::because(
            Disconnection::ReceiveMaximum,
            ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
        ))
    }

    /// The connection ends at a bound on what it leaves behind.
    fn over_budget(&self, exceeded: Exceeded, reason: &'static str) -> Closing {
        if self.is_first(reason) {
            let identity = PeerText::new(&self.ingress.key.identity);
            tracing::warn!(?identity, "the connection is closed: {exceeded}");
        }
        Closing::because(Disconnection::OverBudget, ReasonCode::QUOTA_EXCEEDED)
    }

    /// Counts and logs a refused publish, and returns its answer. One that is parked is not refused yet.
    fn refuse(&self, inbound: &Inbound, refused: &RefusedPublish) -> PublishAnswer {
        let answer = refused.answer(self.version, inbound.publish.qos);
        if answer != PublishAnswer::Park {
            refused.count(inbound.publish.qos, &self.ingress.context.stats);
            refused.log(&self.ingress.key.identity, &inbound.topic, &self.ingress.context);
            self.ingress.device.refused();
        }
        answer
    }

    /// Counts a publish that is parked.
    fn park(&self, inbound: &Inbound) {
        let context = &self.ingress.context;
        let before = context.parked_bytes.fetch_add(charge(inbound), Ordering::Relaxed);
        let limit = context.limits.max_parked_bytes;
        if before.saturating_add(charge(inbound)) > limit {
            context.budget.note(Exceeded::whole(Bound::ParkedBytes, limit as u64), &self.owner);
        }
        add(&context.stats.parked, 1);
    }

    pub(super) fn unparked(&self, inbound: &Inbound) {
        self.ingress.context.parked_bytes.fetch_sub(charge(inbound), Ordering::Relaxed);
        sub(&self.ingress.context.stats.parked, 1);
    }

    pub(super) fn retry_parked(&mut self) -> Result<(), Closing> {
        let now = self.ingress.context.clock.now();
        self.retry_at = Instant::now() + RETRY;
        // A publish that was parked counts against the same limit as any other once it is in the outbox.
        while self.outbox.pending() < self.limit()
            && let Some((inbound, since)) = self.parked.pop_front()
        {
            // If it is parked again it is counted again.
            self.unparked(&inbound);
            if let Some(inbound) = self.take(inbound, since, now, None)? {
                self.park(&inbound);
                self.parked.push_front((inbound, since));
                break;
            }
        }
        self.ingress.handled();
        self.outbox.wake();
        Ok(())
    }

    pub(super) async fn pubrel(&mut self, id: NonZeroU16, since: Instant, now: Timestamp) -> Result<(), Closing> {
        let limit = self.limit();
        self.until(|outbox| outbox.pending() < limit).await?;
        forget_failed(&self.outbox, &mut self.attached.state.qos2);
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
                    self.attached.settle();
                    self.qos2_batches.remove(&id.get());
                }
                // The peer sends PUBREL again when it reconnects.
                None => return Err(Closing::because(Disconnection::LogFailed, ReasonCode::SERVER_BUSY)),
            }
        }
        self.outbox.push(Pending {
            ready,
            answer: Answer::PubComp(id, reason),
            publish: None,
            fanout: None,
            since,
            budget: 0,
            trace: None,
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
        if alias.get() > self.alias_maximum {
            return Err(Closing::because(Disconnection::Protocol, ReasonCode::TOPIC_ALIAS_INVALID));
        }
        let alias = usize::from(alias.get());
        if self.aliases.len() < alias {
            self.aliases.resize(alias, None);
        }
        let max_topic = TopicBounds::of(&self.ingress.context.limits).max_bytes();
        let place = &mut self.aliases[alias - 1];
        let topic = publish.topic.as_str();
        if !topic.is_empty() {
            // Of a topic over the bound just enough is kept that it stays over it, and text.
            let kept = topic.ceil_char_boundary(max_topic.saturating_add(1));
            if let Err(exceeded) = self.alias_bytes.grow((ALIAS_OVERHEAD + kept) as u64) {
                return Err(self.over_budget(exceeded, "alias_bytes"));
            }
            let before = place.replace(Bytes::copy_from_slice(&topic.as_bytes()[..kept]));
            self.alias_bytes
                .shrink(before.map_or(0, |topic| ALIAS_OVERHEAD + topic.len()) as u64);
        }
        let topic = place
            .clone()
            .ok_or(Closing::because(Disconnection::Protocol, ReasonCode::PROTOCOL_ERROR))?;
        Ok(Inbound { topic, publish })
    }

    /// Waits while too much is not committed: of this connection, of its identity, or of all together.
    async fn wait_for_room(&self, inbound: &Inbound) -> Result<Room, Closing> {
        let limit = self.limit();
        self.until(|outbox| outbox.pending() < limit).await?;
        let line = &self.outbox.uncommitted;
        let granted = match line.ask(charge(inbound)) {
            Ok(room) => return Ok(room),
            Err(granted) => granted,
        };
        self.outbox.wake();
        tokio::select! {
            granted = granted => granted.map_err(|_| self.why_ended()),
            () = self.outbox.closed() => Err(self.why_ended()),
        }
    }

    fn limit(&self) -> usize {
        usize::from(self.ingress.context.limits.max_in_flight)
    }
}

fn answer(publish: &Publish, reason: ReasonCode) -> Answer {
    match (publish.qos, publish.packet_id) {
        (QoS::AtLeastOnce, Some(id)) => Answer::PubAck(id, reason),
        (QoS::ExactlyOnce, Some(id)) => Answer::PubRec(id, reason),
        _ => Answer::Nothing,
    }
}

/// Corrects the QoS 2 packet ids whose commit failed: a publish that is not in the log must be accepted when it is sent
/// again, and an id that is still in the log must be released again.
pub(in crate::connection) fn forget_failed(outbox: &Outbox, qos2: &mut BTreeSet<u16>) {
    for failed in outbox.take_failed() {
        match failed {
            Answer::PubRec(id, _) => drop(qos2.remove(&id.get())),
            Answer::PubComp(id, _) => drop(qos2.insert(id.get())),
            Answer::Nothing | Answer::PubAck(..) => {}
        }
    }
}

fn charge(inbound: &Inbound) -> usize {
    OVERHEAD + inbound.topic.len() + inbound.publish.payload.len() + inbound.publish.properties.travelling.len()
}
