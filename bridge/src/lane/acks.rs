//! What the cloud's answers, and its silence, do to records.
//!
//! A record of QoS 1 is settled as delivered only after the cloud's PUBACK, one of QoS 0 when it was written:
//!
//! 1. `fill` hands a record to the client of this connection and puts it into this connection's window;
//! 2. `Event::Written` gives it the packet id under which it was written;
//! 3. `Event::Acked` takes out of the same window what that packet id stands for, once;
//! 4. the reason code decides; only 0x00 and 0x10 settle as delivered;
//! 5. a broken connection takes its window with it: a later ack finds nothing, the reader starts again at what is not settled.

use forebay_topic::PeerText;
use forebay_wal::{Offset, Settled, Settlement, SuspensionKey};
use tokio::time::Instant;

use crate::flow::in_flight::Written;
use crate::lane::Lane;
use crate::lane::connection_state::ConnectionState;
use crate::link::Event;
use crate::link::failure::Failure;
use crate::link::reason_code::{self, Outcome, UNCLEAR_TRIES};
use crate::message::item::Item;
use crate::refusal::poison::Finding;
use crate::stats::add;
use crate::{Answer, Ended, Fate};

impl Lane {
    pub(crate) fn on_event(&mut self, event: Event, connection: &mut ConnectionState) -> Result<(), Failure> {
        match event {
            Event::Written(id) => {
                let now = Instant::now();
                match connection.in_flight.written(id, now) {
                    Written::Waiting => {}
                    Written::Done(item) => {
                        self.trace(&item, Answer::Written);
                        self.delivered(item, now);
                    }
                    Written::Unknown => {
                        return Err(Failure::new(
                            Ended::Protocol,
                            "the MQTT client wrote a publish that was not asked for".to_owned(),
                        ));
                    }
                }
            }
            Event::Acked(id, code, text) => {
                // No publish waits for it: acked twice, or an id that was never used.
                let now = Instant::now();
                let Some(item) = connection.in_flight.acked(id, now) else {
                    return Ok(());
                };
                connection.last_ack = now;
                if item.canary {
                    self.poison.canary_answered();
                    return Ok(());
                }
                self.answered(item, code, text.as_deref(), connection, now);
            }
            Event::Connected(_) | Event::DisconnectWritten | Event::Other => {}
        }
        Ok(())
    }

    /// What the peer had acked before the line broke is true, and these packet ids are still this connection's; after this the
    /// link is dropped, so nothing of it can ack a record of the next one. A publish among the leftovers was on its way to
    /// the socket when that failed: it is not known to be written.
    pub(crate) fn take_leftovers(&mut self, events: Vec<Event>, connection: &mut ConnectionState) {
        for event in events.into_iter().filter(|event| matches!(event, Event::Acked(..))) {
            drop(self.on_event(event, connection));
        }
    }

    fn answered(&mut self, item: Item, code: u8, text: Option<&str>, connection: &mut ConnectionState, now: Instant) {
        self.trace(&item, Answer::Code(code));
        let verdict = reason_code::puback(code);
        if verdict == Outcome::Delivered {
            return self.delivered(item, now);
        }
        self.handle.stats().count_refused(code);
        match verdict {
            Outcome::Delivered => {}
            Outcome::Retry | Outcome::Unclear => {
                if verdict == Outcome::Retry {
                    self.rate_limiter.cut(now);
                }
                self.refused(item, verdict, connection, now);
            }
            Outcome::Denied => self.denied(item, connection, now),
            Outcome::Wrong(reason) => {
                let said = text.map_or_else(String::new, |text| format!(", `{}`", PeerText::new(text)));
                let detail = format!("the cloud refused it for ever: {code:#04x} {}{said}", reason_code::words(code));
                self.dead_letter(item, reason, detail, now);
            }
        }
    }

    pub(crate) fn trace(&self, item: &Item, answer: Answer) {
        if let Some(sent) = item.sent {
            self.observer.answered(&item.record, sent.into_std(), answer);
        }
    }

    fn delivered(&mut self, item: Item, now: Instant) {
        self.poison.accepted(&item.record);
        self.finish(item, Settlement::Delivered, now);
    }

    /// Refused for the moment: its device waits until it is in.
    fn refused(&mut self, mut item: Item, verdict: Outcome, connection: &mut ConnectionState, now: Instant) {
        if item.probe {
            return self.probe_refused(now);
        }
        // The log keeps the records of a suspended pair; other routes of the device no longer wait for this one.
        if self.suspensions.contains(&item.pair()) {
            return self.release_device(&item);
        }
        let (device, offset) = (item.device(), item.record.offset);
        item.refused = true;
        // Devices that wait for the cloud hold no more memory than the read-ahead is allowed to.
        self.streams[device.0].count(&mut item);
        let tries = self.waiting.refused(device.clone(), offset, item, now);
        // A waiting device whose backlog fills the read-ahead would stop the others: in the log it does not.
        let harms = verdict == Outcome::Unclear || self.streams[device.0].is_clogged();
        if harms && tries >= UNCLEAR_TRIES {
            let oldest = self.waiting.extract(&device, |item| item.record.offset == offset).pop();
            if let Some((_, mut item)) = oldest {
                self.streams[device.0].uncount(&mut item);
                self.denied(item, connection, now);
            }
        }
    }

    /// Denied: its pair of route and device is suspended from its oldest unsettled record on.
    fn denied(&mut self, item: Item, connection: &mut ConnectionState, now: Instant) {
        let pair = item.pair();
        self.poison.forget(item.key());
        if item.probe {
            return self.probe_denied(&pair, now);
        }
        self.release_device(&item);
        let from = self.withdraw(&pair, &item, Some(connection));
        self.suspend(&pair, from, now);
    }

    /// Takes what would still be sent of a pair out of all queues. Returns the oldest offset of it, that of `item` and what is
    /// in flight included: from there on the log must hold the pair, for nothing here remembers those records any more.
    pub(crate) fn withdraw(&mut self, pair: &SuspensionKey, item: &Item, connection: Option<&mut ConnectionState>) -> Offset {
        let source = item.stream_index;
        let same = |other: &Item| !other.probe && other.stream_index == source && other.is_of(pair);
        let mut from = item.record.offset;
        if let Some(connection) = connection {
            let in_flight = connection.in_flight.iter().filter(|other| same(other));
            from = in_flight.map(|other| other.record.offset).fold(from, Offset::min);
            if let Some(staged) = connection.staged.take_if(|staged| same(&staged.item)) {
                from = from.min(staged.item.record.offset);
                if staged.retry {
                    self.release_device(&staged.item);
                }
            }
        }
        for (parked, mut item) in self.waiting.extract(&item.device(), same) {
            from = from.min(parked);
            self.streams[source].uncount(&mut item);
        }
        let buffered = self.streams[source].drop_pair(pair);
        buffered.map_or(from, |offset| offset.min(from))
    }

    /// Suspends a pair in the log and here.
    pub(crate) fn suspend(&mut self, pair: &SuspensionKey, from: Offset, now: Instant) {
        let new = !self.suspensions.contains(pair);
        self.log.suspend(pair.clone(), from);
        let whole_route = self.suspensions.deny(pair, now);
        if new && self.is_first(&pair.identity, "suspended", now) {
            tracing::error!(
                route = %pair.route,
                device = ?PeerText::new(&pair.identity),
                "the cloud does not take this device's messages on this route; they wait in the log and one is tried each minute: \
                 check the IoT policy (iot:Publish) for the mapped topic"
            );
        }
        if whole_route && self.is_first(&pair.route, "route_suspended", now) {
            tracing::error!(
                route = %pair.route,
                "the cloud denied eight devices of this route within a minute: the whole route waits, one message is tried each minute"
            );
        }
        self.report_suspensions();
    }

    /// A dead letter.
    pub(crate) fn dead_letter(&mut self, item: Item, reason: &'static str, detail: String, now: Instant) {
        let record = &item.record;
        if self.is_first(&record.identity, reason, now) {
            let (device, topic) = (PeerText::new(&record.identity), PeerText::new(&record.topic));
            tracing::error!(reason, route = %record.route, ?device, ?topic, "dead letter: {detail}");
        }
        self.finish(item, Settlement::Dead { reason, detail }, now);
    }

    /// Settles a record and lets go what waited for it.
    pub(crate) fn finish(&mut self, item: Item, settlement: Settlement, now: Instant) {
        let stats = self.handle.stats();
        let (delivered, expired) = (settlement == Settlement::Delivered, settlement == Settlement::Expired);
        let reason = if let Settlement::Dead { reason, .. } = &settlement {
            Some(*reason)
        } else {
            None
        };
        let fate = match (delivered, expired) {
            (true, _) => Fate::Delivered,
            (_, true) => Fate::Expired,
            _ => Fate::Dead,
        };
        let settled = self.log.settle(item.record.stream, item.record.offset, settlement);
        if settled == Settled::First {
            self.observer.settled(item.record.id, fate);
        }
        match settled {
            Settled::First if delivered => {
                add(&stats.delivered, 1);
                add(&stats.duplicates_suspected, u64::from(item.seen));
                if let Some(age) = item.record.received.age(&self.clock.now()) {
                    self.observer.delivered(age, item.late);
                }
            }
            Settled::First if expired => add(&stats.expired, 1),
            Settled::First => stats.count_dead(reason.unwrap_or_default()),
            Settled::Late if delivered => add(&stats.late_acks, 1),
            Settled::Late => {}
        }
        self.maybe_delivered.remove(item.key());
        self.poison.forget(item.key());
        if item.probe {
            self.probe_settled(delivered, now);
        } else {
            self.release_device(&item);
        }
    }

    fn release_device(&mut self, item: &Item) {
        if self.waiting.len() > 0 {
            let queue = self.waiting.settled(&item.device(), item.record.offset);
            self.streams[item.stream_index].put_back(queue);
        }
    }

    /// Carries out what the end of a connection has shown, whose last words were `said`. It is gone, so nothing else of the pair is
    /// in flight.
    pub(crate) fn poison_found(&mut self, finding: Finding, in_flight: Vec<(Item, bool)>, said: &str, now: Instant) {
        let key = match finding {
            Finding::Canary => {
                if let Some(canary) = &self.config.canary {
                    tracing::error!(
                        topic = %canary.topic,
                        "the cloud closes the connection at a canary too: either it takes no publish at all, or its policy must allow iot:Publish on the canary's topic"
                    );
                }
                return;
            }
            Finding::DeadLetter(key, _) | Finding::Suspend(key) => key,
        };
        let Some((item, _)) = in_flight.into_iter().find(|(item, _)| item.key() == key) else {
            return;
        };
        let item = Item::new(item.record, item.stream_index, false);
        self.retries.found_poison();
        if let Finding::DeadLetter(_, reason) = finding {
            let detail = "the cloud closes the connection whenever this message is sent, alone and on a good connection".to_owned();
            self.dead_letter(item, reason, detail, now);
        } else {
            let pair = item.pair();
            let from = self.withdraw(&pair, &item, None);
            if self.is_first(&pair.identity, "ends_connections", now) {
                tracing::error!(
                    route = %pair.route,
                    device = ?PeerText::new(&pair.identity),
                    topic = ?PeerText::new(&item.record.topic),
                    "the connection ends whenever this device's oldest message is sent, alone and on a good connection: {said}"
                );
            }
            self.suspend(&pair, from, now);
        }
    }
}
