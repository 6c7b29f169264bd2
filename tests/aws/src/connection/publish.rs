//! A publish from the client: judged, scripted, committed, handed on, acked; and publishes towards the client.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Connection, Ending, Line, acks::Ack};
use crate::{
    config::RateOutcome,
    decode::{Publish, Version},
    encode::{self, Message},
    faults::Point,
    hub::{Delivery, End},
    ledger::Arrival,
    rules::{self, Judged, Verdict},
    stats::add,
};

/// The quotas AWS documents: going over one of them is the client's fault, going over a tighter one is not.
const DOCUMENTED_PUBLISHES: u32 = 100;
const DOCUMENTED_BYTES: u32 = 512 * 1024;

impl Connection {
    pub(super) async fn on_publish<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        line: &mut Line<S>,
        mut publish: Publish,
    ) -> Result<(), Ending> {
        add(&self.shared.counters.received);
        // 1. The packet itself: alias, window, packet id.
        self.resolve_alias(&mut publish)?;
        if publish.qos == 1 && !self.enter_window(&publish)? {
            return Ok(());
        }
        // 2. The rules, then the quotas.
        let policy = self.shared.faults.policy();
        let config = &self.shared.config;
        let judged = Judged {
            version: self.version,
            topic: &publish.topic,
            payload: publish.payload.len(),
            qos: publish.qos,
            retain: publish.retain,
        };
        match rules::judge(judged, &config.limits, &config.switches, &policy) {
            Verdict::Accept => {}
            Verdict::Denied => {
                add(&self.shared.counters.denied);
                return self.refuse(line, &publish, 0x87);
            }
            Verdict::Answer { code, why } => {
                self.note_violation(&why);
                return self.refuse(line, &publish, code);
            }
            Verdict::Silence { why } => {
                self.note_violation(&why);
                return Ok(());
            }
            Verdict::End { code, why } => return Err(self.violate(code, &why)),
        }
        if !self.within_rates(line, &publish).await? {
            return Ok(());
        }
        // 3. The script.
        let fault = self.shared.faults.on_publish(&publish.topic);
        if fault.swallow {
            return Ok(());
        }
        if let Some((Point::BeforeCommit, cut)) = fault.close {
            return Err(Ending::Ours(End::Cut(cut)));
        }
        let code = fault.answer.unwrap_or(0);
        if fault.answer.is_some() {
            add(&self.shared.counters.answered);
        }
        if code >= 0x80 {
            return self.refuse(line, &publish, code);
        }
        // 4. The commit, before anything that says so.
        let Publish {
            topic,
            payload,
            qos,
            dup,
            retain,
            packet_id,
            user_properties,
            ..
        } = publish;
        let message = Message {
            topic,
            payload,
            qos,
            user_properties,
        };
        let committed = self.shared.ledger.commit(Arrival {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            user_properties: message.user_properties.clone(),
            client_id: self.client_id.clone(),
            packet_id: (qos == 1).then_some(packet_id),
            dup,
            retain,
        });
        if let Err(error) = committed {
            tracing::error!(%error, "the ledger's file refuses a line; the publish is not acked");
            return Err(Ending::Ours(End::Disconnect(0x83)));
        }
        self.shared.hub.publish(&Arc::new(message));
        if let Some((Point::AfterCommit, cut)) = fault.close {
            return Err(Ending::Ours(End::Cut(cut)));
        }
        // 5. The ack.
        if qos == 1 {
            self.ack(line, packet_id, code);
        }
        Ok(())
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Ending> {
        let Some(alias) = publish.alias else { return Ok(()) };
        let limit = self.shared.config.limits.topic_aliases;
        if alias == 0 || alias > limit {
            return Err(self.violate(0x94, &format!("topic alias {alias}, allowed are 1 to {limit}")));
        }
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias).cloned();
            publish.topic = known.ok_or_else(|| self.violate(0x82, &format!("topic alias {alias} was never set")))?;
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    /// Takes a place in the window; false when the publish is not accepted and the connection goes on.
    fn enter_window(&mut self, publish: &Publish) -> Result<bool, Ending> {
        let packet_id = publish.packet_id;
        if self.unacked.contains(&packet_id) {
            if self.version == Version::V5 || !publish.dup {
                self.note_violation(&format!("packet id {packet_id} used again while it is in flight"));
            }
            return Ok(true);
        }
        let limit = usize::from(self.shared.config.limits.receive_maximum);
        if self.unacked.len() < limit {
            self.unacked.insert(packet_id);
            return Ok(true);
        }
        let why = format!("{} publishes in flight, the limit is {limit}", limit + 1);
        if self.version == Version::V5 {
            return Err(self.violate(0x93, &why));
        }
        self.note_violation(&why);
        Ok(false)
    }

    /// Applies the quotas; false when the publish is not accepted and the connection goes on.
    async fn within_rates<S: AsyncRead + AsyncWrite + Unpin>(&mut self, line: &mut Line<S>, publish: &Publish) -> Result<bool, Ending> {
        let now = Instant::now();
        let rates = self.shared.config.rates.clone();
        if let (Some(limit), Some(bucket)) = (rates.publishes, &mut self.publishes)
            && !bucket.take(1.0, now)
        {
            if limit >= DOCUMENTED_PUBLISHES {
                self.note_violation(&format!("more than {limit} publishes in a second"));
            }
            return self.throttle(line, publish, rates.publishes_outcome);
        }
        // No packet is larger than a few hundred KiB.
        let size = f64::from(u32::try_from(publish.size).unwrap_or(u32::MAX));
        let Some((limit, bucket)) = rates.bytes.zip(self.bytes.as_mut()) else {
            return Ok(true);
        };
        if rates.bytes_outcome == RateOutcome::AsAws {
            let wait = bucket.overdraw(size, now);
            if !wait.is_zero() {
                add(&self.shared.counters.throttled);
                line.flush().await?;
                tokio::time::sleep(wait).await;
            }
            return Ok(true);
        }
        if bucket.take(size, now) {
            return Ok(true);
        }
        if limit >= DOCUMENTED_BYTES {
            self.note_violation(&format!("more than {limit} bytes in a second"));
        }
        self.throttle(line, publish, rates.bytes_outcome)
    }

    fn throttle<S>(&mut self, line: &mut Line<S>, publish: &Publish, outcome: RateOutcome) -> Result<bool, Ending> {
        add(&self.shared.counters.throttled);
        match outcome {
            RateOutcome::Silent => Ok(false),
            RateOutcome::AsAws | RateOutcome::Answer97 => self.refuse(line, publish, 0x97).map(|()| false),
            RateOutcome::Disconnect => Err(Ending::Ours(End::Disconnect(0x97))),
        }
    }

    /// Answers a publish that is not committed. Without an ack to carry the code the connection ends, except for 0x97,
    /// which is silence: AWS drops what is over quota.
    fn refuse<S>(&mut self, line: &mut Line<S>, publish: &Publish, code: u8) -> Result<(), Ending> {
        if self.version == Version::V5 && publish.qos == 1 {
            line.out.extend(encode::puback(self.version, publish.packet_id, code));
            self.unacked.remove(&publish.packet_id);
            return Ok(());
        }
        if code == 0x97 {
            Ok(())
        } else {
            Err(Ending::Ours(End::Disconnect(code)))
        }
    }

    fn ack<S>(&mut self, line: &mut Line<S>, packet_id: u16, code: u8) {
        let fault = self.shared.faults.on_puback();
        if fault.drop {
            add(&self.shared.counters.acks_dropped);
            return;
        }
        let mut bytes = encode::puback(self.version, packet_id, code);
        if fault.twice {
            bytes.extend_from_within(..);
        }
        self.acks.push(Ack { packet_id, bytes }, &fault, &mut line.out, &mut self.unacked);
    }

    /// Sends a publish to the client; one it cannot take is dropped, as MQTT 5 says.
    pub(super) fn deliver<S>(&mut self, line: &mut Line<S>, delivery: &Delivery) {
        let packet_id = delivery.stored.map(|_| self.free_packet_id());
        match encode::publish(self.version, &delivery.message, packet_id, delivery.again) {
            Ok(bytes) if bytes.len() <= self.outbound_packet => {
                if let Some((packet_id, stored)) = packet_id.zip(delivery.stored) {
                    self.outbound.insert(packet_id, stored);
                }
                line.out.extend(bytes);
                add(&self.shared.counters.sent);
            }
            Ok(_) | Err(_) => {
                if let Some(stored) = delivery.stored {
                    self.shared.hub.acked(&self.client_id, stored);
                }
            }
        }
    }

    /// A packet id that is not in flight; there are at most `receive_maximum` of those.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            if !self.outbound.contains_key(&self.next_packet_id) {
                return self.next_packet_id;
            }
        }
    }

    pub(super) fn on_puback(&mut self, packet_id: u16) {
        match self.outbound.remove(&packet_id) {
            Some(stored) => self.shared.hub.acked(&self.client_id, stored),
            None => self.note_violation(&format!("PUBACK for packet id {packet_id}, which is not in flight")),
        }
    }
}
