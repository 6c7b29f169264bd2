//! What a lane sends next, and sending it.

use std::sync::Arc;

use forebay_wal::Settlement;
use tokio::time::Instant;

use crate::lane::Lane;
use crate::lane::connection_state::{ConnectionState, Staged};
use crate::link::Client;
use crate::link::failure::Failure;
use crate::message::item::Item;
use crate::message::{self, Context, Publish};
use crate::refusal::poison::Turn;
use crate::stats::add;
use crate::{Ended, Mapped, Qos, Version};

/// One of so many picks goes to the streams of lower priority, as long as they have something.
const LOWER_SHARE: usize = 10;

impl Lane {
    /// Hands publishes to the client while the window, the pace and the search for poison messages allow. Returns when the pace allows more.
    pub(crate) fn fill(&mut self, client: &Client, connection: &mut ConnectionState, now: Instant) -> Result<Option<Instant>, Failure> {
        while !connection.is_stopping() && connection.in_flight.has_room() {
            let is_empty = connection.in_flight.is_empty();
            // On 3.1.1 a denied probe closes the connection: alone in flight, it counts against no other record.
            if self.probe_wants_solitude() && !is_empty {
                return Ok(None);
            }
            match self.poison.turn(is_empty, now) {
                Turn::Many | Turn::Alone => {}
                Turn::Wait(until) => return Ok(until),
                Turn::Canary => match self.send_canary(client, connection, now)? {
                    Some(at) => return Ok(Some(at)),
                    None => continue,
                },
            }
            let Some(staged) = self.next_staged(connection, now) else {
                if self.streams.iter().all(|source| source.is_drained()) && self.waiting.len() == 0 {
                    self.poison.nothing_left();
                }
                return Ok(None);
            };
            if let Some(at) = self.rate_limiter.wait_until(staged.publish.size, now) {
                connection.staged = Some(staged);
                return Ok(Some(at));
            }
            self.send(staged, client, connection, now)?;
        }
        Ok(None)
    }

    /// Sends the canary. `Some` if the pace allows it only then.
    fn send_canary(&mut self, client: &Client, connection: &mut ConnectionState, now: Instant) -> Result<Option<Instant>, Failure> {
        let config = Arc::clone(&self.config);
        let Some(canary) = &config.canary else { return Ok(None) };
        let publish = canary.publish(config.version);
        if let Some(at) = self.rate_limiter.wait_until(publish.size, now) {
            return Ok(Some(at));
        }
        let (size, acked) = self.hand_over(publish, client, connection, now)?;
        self.poison.canary_sent();
        connection.in_flight.queue(canary.item(), acked, size, now);
        Ok(None)
    }

    /// Hands a publish to the client. Returns its bytes, and whether it will be acked.
    fn hand_over(
        &mut self,
        publish: Publish,
        client: &Client,
        connection: &mut ConnectionState,
        now: Instant,
    ) -> Result<(usize, bool), Failure> {
        let (size, acked) = (publish.size, publish.acked);
        if !client.publish(publish) {
            return Err(Failure::new(
                Ended::Protocol,
                "the MQTT client took no more requests; connecting again".to_owned(),
            ));
        }
        self.rate_limiter.spend(size, now);
        let stats = self.handle.stats();
        add(&stats.sent, 1);
        add(&stats.sent_bytes, size as u64);
        connection.sent_unacked |= !acked;
        Ok((size, acked))
    }

    fn send(&mut self, staged: Staged, client: &Client, connection: &mut ConnectionState, now: Instant) -> Result<(), Failure> {
        let Staged {
            mut item,
            publish,
            retry: _,
            maybe_sent,
        } = staged;
        let (size, acked) = self.hand_over(publish, client, connection, now)?;
        let stats = self.handle.stats();
        add(&stats.retried, u64::from(item.refused));
        add(&stats.replayed, u64::from(item.seen && !item.refused));
        add(&stats.replayed_perhaps, u64::from(maybe_sent));
        self.observer.sent(&item.record, item.seen || item.refused);
        item.sent = Some(now);
        connection.in_flight.queue(item, acked, size, now);
        Ok(())
    }

    /// The publish that was staged before, if nothing has come between, or a new one.
    fn next_staged(&mut self, connection: &mut ConnectionState, now: Instant) -> Option<Staged> {
        if let Some(staged) = connection.staged.take() {
            let item = &staged.item;
            if item.probe || staged.retry || self.waiting.len() == 0 || !self.waiting.contains(&item.device()) {
                return Some(staged);
            }
            let (device, offset) = (item.device(), item.record.offset);
            let mut item = staged.item;
            self.streams[item.stream_index].count(&mut item);
            self.waiting.park(&device, offset, item);
        }
        loop {
            let (item, retry) = self.pick(connection, now)?;
            if let Some(staged) = self.prepare(item, retry, connection, now) {
                return Some(staged);
            }
        }
    }

    /// The next record: refused ones whose time has come, then, in turns, probes and streams.
    fn pick(&mut self, connection: &mut ConnectionState, now: Instant) -> Option<(Item, bool)> {
        if let Some(mut item) = self.waiting.take_due(now) {
            self.streams[item.stream_index].uncount(&mut item);
            return Some((item, true));
        }
        self.picks = self.picks.wrapping_add(1);
        let probe_first = self.picks.is_multiple_of(2) || self.probe_wants_solitude();
        let item = match probe_first {
            true => self.probe.pop().or_else(|| self.pick_from_streams(connection, now)),
            false => self.pick_from_streams(connection, now).or_else(|| self.probe.pop()),
        };
        item.map(|item| (item, false))
    }

    fn pick_from_streams(&mut self, connection: &mut ConnectionState, now: Instant) -> Option<Item> {
        loop {
            let index = self.choose_stream()?;
            let mut item = self.streams[index].pop()?;
            if !self.suspensions.is_empty() && self.is_suspended(&mut item, connection, now) {
                continue;
            }
            if self.waiting.len() > 0 && self.waiting.contains(&item.device()) {
                let device = item.device();
                // Its bytes stay counted: a device that waits for long stops the reading, not the memory's bound.
                self.waiting.park(&device, item.record.offset, item);
                continue;
            }
            self.streams[index].uncount(&mut item);
            // Records of waiting devices come back in front of later ones.
            if self.waiting.len() == 0 {
                self.poison.passed(item.key());
            }
            return Some(item);
        }
    }

    /// Whether the record belongs to a suspended pair, or to a new pair of a suspended route, which is suspended now.
    fn is_suspended(&mut self, item: &mut Item, connection: &mut ConnectionState, now: Instant) -> bool {
        let pair = item.pair();
        let known = self.suspensions.contains(&pair);
        if !known && !self.suspensions.route_is_suspended(pair.stream, &pair.route) {
            return false;
        }
        self.streams[item.stream_index].uncount(item);
        if !known {
            let from = self.withdraw(&pair, item, Some(connection));
            self.log.suspend(pair.clone(), from);
            self.suspensions.add(&pair, now);
            self.report_suspensions();
        }
        true
    }

    /// The highest stream that has records; now and then one of the lower ones, in turn.
    fn choose_stream(&mut self) -> Option<usize> {
        let first = self.streams.iter().position(|source| source.has_records())?;
        let lower = || (first + 1..self.streams.len()).filter(|index| self.streams[*index].has_records());
        let turns = self.next_lower + 1;
        if lower().next().is_none() {
            return Some(first);
        }
        let chosen = if turns.is_multiple_of(LOWER_SHARE) {
            lower().nth(turns / LOWER_SHARE % lower().count())
        } else {
            None
        };
        self.next_lower = turns;
        chosen.or(Some(first))
    }

    /// Maps and composes a record. `None` if it was settled instead: expired, or a dead letter.
    fn prepare(&mut self, mut item: Item, retry: bool, connection: &ConnectionState, now: Instant) -> Option<Staged> {
        let time = self.clock.now();
        let Ok(expiry) = message::remaining_expiry(&item.record, &time) else {
            self.finish(item, Settlement::Expired, now);
            return None;
        };
        let record = &item.record;
        let mapped = match self
            .mapping
            .map(&record.route, &record.identity, &record.topic, record.payload.len())
        {
            Ok(mapped) if self.ack_all => Mapped {
                qos: Qos::AtLeastOnce,
                ..mapped
            },
            Ok(mapped) => mapped,
            Err(refused) => {
                self.dead_letter(item, refused.reason, refused.detail, now);
                return None;
            }
        };
        let source = &mut self.streams[item.stream_index];
        let seen = self.maybe_delivered.late(item.key());
        let maybe_sent = !item.probe && !item.refused && seen.is_none() && source.maybe_sent_before(&item.record, &self.start);
        let late = item.late || seen.unwrap_or_else(|| message::is_late(&item.record.received, &time));
        (item.late, item.seen) = (late, item.seen || seen.is_some());
        let context = Context {
            version: self.config.version,
            gateway: &self.config.gateway,
            stream: &source.name,
            now: &time,
            expiry,
            late,
            again: item.seen || maybe_sent || item.record.is_put_back(),
        };
        let mut publish = message::compose(&item.record, mapped, &context);
        publish.retain &= connection.terms.retain;
        if publish.size > connection.terms.max_packet {
            let detail = format!(
                "a packet of {} bytes with its properties; the cloud takes {}; let the device send smaller messages",
                publish.size, connection.terms.max_packet
            );
            self.dead_letter(item, "packet-too-large", detail, now);
            return None;
        }
        Some(Staged {
            item,
            publish,
            retry,
            maybe_sent,
        })
    }

    pub(crate) fn probe_wants_solitude(&self) -> bool {
        self.config.version == Version::V311 && self.probe.is_sending()
    }
}
