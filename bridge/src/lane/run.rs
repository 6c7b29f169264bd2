//! The life of a lane's connections, from dialling to their end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use forebay_wal::{Clock, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::flow::in_flight::InFlight;
use crate::flow::read_ahead::{ReadAhead, ReadDone};
use crate::lane::Lane;
use crate::lane::connection_state::{ConnectionState, End};
use crate::link::connector::Connector;
use crate::link::failure::{self, Cause, Failure};
use crate::link::{self, Client, Event, Link, Terms};
use crate::refusal::poison::Close;
use crate::stats::add;
use crate::{Answer, Config, Ended, LastError, State};

/// No ack for so long while acks are owed: stalled, says the status.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Unacked for this share of the ack timer while others were acked: the device waits.
const SILENT_SHARE: u32 = 4;
/// How old the status may show the pace while that recovers.
const RECOVERY_SHOWN: Duration = Duration::from_secs(1);
/// At shutdown: how long our DISCONNECT may take to leave.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// A shorter sleep of the machine changes nothing.
const SLEEP: Duration = Duration::from_secs(2);
/// How often that is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Whose log lines are about the connection.
const CLOUD: &str = "cloud";
/// When nothing else wakes the lane.
const IDLE: Duration = Duration::from_secs(60);

/// Waits, but no longer once the machine was suspended meanwhile: timers stood still, and the link may be another by now.
async fn rest(clock: &dyn Clock, delay: Duration) {
    let asleep = clock.asleep();
    let until = Instant::now() + delay;
    while Instant::now() < until && clock.asleep().saturating_sub(asleep) < SLEEP {
        tokio::time::sleep_until(until.min(Instant::now() + LOOK)).await;
    }
}

impl Lane {
    /// Connects, replays, connects again, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let delay = self.retries.delay(Instant::now(), random());
            if !delay.is_zero() {
                let until = later(self.clock.now(), delay);
                self.handle.update(|status| status.state = State::BackingOff { until });
                tokio::select! {
                    () = rest(&*self.clock, delay) => {}
                    () = shutdown.cancelled() => break,
                }
            }
            self.handle.update(|status| status.state = State::Connecting);
            self.retries.connecting(Instant::now());
            if self.one_connection(&shutdown).await.is_break() {
                break;
            }
        }
        self.handle.set_load(0, 0);
        self.handle
            .update(|status| (status.state, status.connected_since) = (State::Stopped, None));
    }

    /// One connection from dialling to its end.
    async fn one_connection(&mut self, shutdown: &CancellationToken) -> ControlFlow<()> {
        let dialled = tokio::select! {
            dialled = tokio::time::timeout(self.config.connect_timeout, dial(&mut self.connector, &self.config)) => dialled,
            () = shutdown.cancelled() => return ControlFlow::Break(()),
        };
        add(&self.handle.stats().connect_bytes, self.connector.moved_bytes());
        let (client, mut link, terms) = match dialled.unwrap_or_else(|_| Err(failure::connect_timeout(&self.config))) {
            Ok((client, link, terms)) if terms.qos_1 => (client, link, terms),
            Ok(_) => {
                let text = format!(
                    "{}:{} takes QoS 0 only, which acks nothing; use another broker",
                    self.config.host, self.config.port
                );
                self.ended(&Failure::new(Ended::Protocol, text), None);
                return ControlFlow::Continue(());
            }
            Err(failure) => {
                self.ended(&failure, None);
                return ControlFlow::Continue(());
            }
        };
        let mut connection = self.begin(terms);
        let end = self.drive(&client, &mut link, &mut connection, shutdown).await;
        self.take_leftovers(link.leftovers(), &mut connection);
        drop(client);
        match &end {
            End::Shutdown => link.close(LAST_BYTES).await,
            End::Failed(_) => drop(link),
        }
        let lived = connection.connected_at.elapsed();
        let flow = match end {
            End::Shutdown => {
                self.close(connection, None);
                ControlFlow::Break(())
            }
            End::Failed(failure) => {
                self.close(connection, Some(&failure));
                self.ended(&failure, Some(lived));
                ControlFlow::Continue(())
            }
        };
        self.handle.set_load(0, 0);
        flow
    }

    pub(crate) fn begin(&mut self, terms: Terms) -> ConnectionState {
        let now = Instant::now();
        self.rate_limiter.restart(now);
        self.poison.began(now);
        add(&self.handle.stats().connects, 1);
        let since = self.clock.now();
        self.handle
            .update(|status| (status.state, status.connected_since) = (State::Connected, Some(since)));
        // Each time: the line that said why it was away must not be the last one.
        tracing::info!(host = %self.config.host, port = self.config.port, client_id = %self.config.client_id, "connected to the cloud");
        let channel = link::channel_len(self.rate_limiter.is_limited());
        let cap = self.config.in_flight.min(terms.receive_maximum);
        ConnectionState {
            in_flight: InFlight::new(cap, channel, link::packet_ids(&self.config, &terms)),
            terms,
            connected_at: now,
            staged: None,
            last_ack: now,
            sent_unacked: false,
            stop_at: None,
            disconnecting: false,
            stalled: false,
        }
    }

    async fn drive(&mut self, client: &Client, link: &mut Link, connection: &mut ConnectionState, shutdown: &CancellationToken) -> End {
        let mut armed = Instant::now() + IDLE;
        let mut timer = std::pin::pin!(tokio::time::sleep_until(armed));
        let mut cancelled = std::pin::pin!(shutdown.cancelled());
        loop {
            // The poll is not cancel safe, so its future outlives the other branches.
            let mut poll = std::pin::pin!(link.poll());
            let polled = loop {
                let now = Instant::now();
                let wake = match self.advance(client, connection, now) {
                    Ok(wake) => wake,
                    Err(end) => return end,
                };
                // A later time is left to fire early: setting a timer anew for every packet costs more than a rare idle round.
                if wake < armed || armed <= now {
                    armed = wake;
                    timer.as_mut().reset(armed);
                }
                tokio::select! {
                    polled = &mut poll => break polled,
                    Some(done) = self.reads.join_next(), if !self.reads.is_empty() => self.read_done(done),
                    Some(done) = self.probe.reads.join_next(), if !self.probe.reads.is_empty() => self.probe_read_done(done, connection),
                    () = self.wake.notified() => {}
                    () = &mut timer => {}
                    () = &mut cancelled, if !connection.is_stopping() => connection.stop_at = Some(Instant::now() + self.config.shutdown_grace),
                }
            };
            let outcome = match polled {
                Ok(Event::DisconnectWritten) if connection.disconnecting => return End::Shutdown,
                Ok(event) => self.on_event(event, connection),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = outcome {
                // A broker that closes when we leave is no failure.
                return if connection.disconnecting {
                    End::Shutdown
                } else {
                    End::Failed(failure)
                };
            }
        }
    }

    /// Does all that can be done now. Returns when to look again.
    pub(crate) fn advance(&mut self, client: &Client, connection: &mut ConnectionState, now: Instant) -> Result<Instant, End> {
        if connection.in_flight.ack_due(self.config.ack_timeout).is_some_and(|due| due <= now) {
            self.rate_limiter.cut(now);
            let text = format!(
                "{}:{} has not acked a publish for {} s; connecting again",
                self.config.host,
                self.config.port,
                self.config.ack_timeout.as_secs()
            );
            return Err(End::Failed(Failure::new(Ended::AckTimeout, text)));
        }
        if let Some(stop_at) = connection.stop_at {
            if now >= stop_at {
                return Err(End::Shutdown);
            }
            connection.staged = None;
            if connection.in_flight.is_empty() && !connection.disconnecting {
                connection.disconnecting = true;
                if !client.disconnect() {
                    return Err(End::Shutdown);
                }
            }
        } else {
            for (index, source) in self.streams.iter_mut().enumerate() {
                source.read_ahead(index, &mut self.reads, now);
            }
            self.start_probe(now);
            self.wait_for_silent(connection, now);
        }
        let rate_limited = self.fill(client, connection, now).map_err(End::Failed)?;
        let stalled = self.report(connection, now);
        let recovering = self.rate_limiter.is_reduced().then(|| now + RECOVERY_SHOWN);
        let reads = self.streams.iter().filter_map(ReadAhead::again_at);
        let acks = connection.in_flight.ack_due(self.config.ack_timeout);
        let silent = connection
            .in_flight
            .oldest()
            .map(|oldest| oldest + self.config.ack_timeout / SILENT_SHARE);
        let timers = [
            rate_limited,
            acks,
            silent,
            stalled,
            recovering,
            connection.stop_at,
            self.suspensions.next(),
            self.waiting.next(),
        ];
        // A due time that could not be used yet waits for an event, not for a busy loop.
        let next = timers.into_iter().flatten().chain(reads).filter(|at| *at > now).min();
        Ok(next.unwrap_or(now + IDLE))
    }

    /// A record that the cloud skips makes its device wait, so that fewer of its later ones overtake it.
    fn wait_for_silent(&mut self, connection: &ConnectionState, now: Instant) {
        let Some(before) = now.checked_sub(self.config.ack_timeout / SILENT_SHARE) else {
            return;
        };
        let before = before.min(connection.last_ack);
        if connection.in_flight.oldest().is_none_or(|oldest| oldest > before) {
            return;
        }
        for item in connection.in_flight.overdue(before).filter(|item| !item.probe && !item.canary) {
            self.waiting.silent(item.device(), item.record.offset, now);
        }
    }

    /// Keeps the status true; returns when a stall would have to be reported.
    pub(crate) fn report(&mut self, connection: &mut ConnectionState, now: Instant) -> Option<Instant> {
        self.handle.set_load(connection.in_flight.len(), self.waiting.len());
        self.handle.set_rate(self.rate_limiter.messages_per_second(now));
        let stalls_at = connection
            .in_flight
            .oldest()
            .map(|oldest| oldest.max(connection.last_ack) + STALLED_AFTER);
        let stalled = stalls_at.is_some_and(|at| at <= now);
        if stalled != connection.stalled {
            connection.stalled = stalled;
            self.handle
                .update(|status| status.state = if stalled { State::Stalled } else { State::Connected });
        }
        stalls_at
    }

    fn read_done(&mut self, done: Result<ReadDone, tokio::task::JoinError>) {
        // Which stream's read died is not known before the others are back.
        self.reader_lost |= done.is_err();
        match done {
            Ok(done) => {
                let source = &mut self.streams[ReadAhead::index(&done)];
                if let Err(error) = source.read_done(done, Instant::now()) {
                    add(&self.handle.stats().read_errors, 1);
                    tracing::error!(stream = %source.name, %error, "the log could not be read; trying again each second");
                }
            }
            Err(error) => {
                tracing::error!(%error, "a read of the log died; starting again at the oldest waiting record");
            }
        }
        if self.reader_lost && self.reads.is_empty() {
            self.reader_lost = false;
            self.streams
                .iter_mut()
                .for_each(|source| source.replace_lost_reader(&self.log, self.config.partitions));
        }
    }

    /// After a connection: what was in flight is perhaps seen by the cloud; all that is not settled is read and sent again.
    pub(crate) fn close(&mut self, connection: ConnectionState, failure: Option<&Failure>) {
        let now = Instant::now();
        let cause = failure.map_or(Cause::Line, |failure| failure.cause(self.is_silent(&connection, now)));
        let lasted = connection.connected_at.elapsed() >= self.config.backoff.stable_after;
        self.ack_all = cause != Cause::Line && (connection.sent_unacked || (self.ack_all && !lasted));
        let in_flight: Vec<_> = connection.in_flight.into_unacked().collect();
        self.end_probe(in_flight.iter().any(|(item, _)| item.probe), now);
        let close = Close {
            cause,
            blame: failure.and_then(|failure| failure.blame),
            sent_unacked: connection.sent_unacked,
        };
        let finding = self
            .poison
            .closed(close, &in_flight.iter().map(|(item, _)| item).collect::<Vec<_>>());
        for (item, written) in in_flight.iter().filter(|(item, _)| !item.canary) {
            if *written {
                self.trace(item, Answer::None);
                self.maybe_delivered.insert(item.key(), item.late);
            }
        }
        if let Some(finding) = finding {
            self.poison_found(finding, in_flight, failure.map_or("", |failure| &failure.text), now);
        }
        self.waiting.clear();
        self.streams.iter_mut().for_each(ReadAhead::rewind);
    }

    /// Whether no ack came for long, not even for others than the oldest.
    fn is_silent(&self, connection: &ConnectionState, now: Instant) -> bool {
        now.duration_since(connection.last_ack) >= self.config.ack_timeout.min(self.config.keep_alive) / 2
    }

    /// Counts, says and remembers why a connection ended.
    pub(crate) fn ended(&mut self, failure: &Failure, lived: Option<Duration>) {
        let now = Instant::now();
        self.handle.stats().count_ended(failure.ended);
        if failure.is_local {
            self.retries.waits_for_files();
        } else {
            self.retries.ended(lived, failure.ended == Ended::TakenOver);
            if lived.is_some() && self.poison.is_searching() {
                self.retries.searches();
            }
        }
        if failure.ended == Ended::Busy {
            self.rate_limiter.cut(now);
        }
        if lived.is_some_and(|lived| lived >= self.config.backoff.stable_after) {
            self.failures.clear();
        }
        let times = self.failures.note(&failure.text);
        if self.is_first(CLOUD, failure.ended.label(), now) {
            let (reason, text) = (failure.ended.label(), &failure.text);
            match failure.ended {
                Ended::Tls | Ended::Denied | Ended::TakenOver => tracing::error!(reason, times, "{text}"),
                _ => tracing::warn!(reason, times, "{text}"),
            }
        }
        let error = LastError {
            text: failure.text.clone(),
            at: self.clock.now(),
            times,
        };
        self.handle
            .update(|status| (status.connected_since, status.last_error) = (None, Some(error)));
    }
}

/// Connects and waits until the cloud has accepted us.
async fn dial(connector: &mut Connector, config: &Arc<Config>) -> Result<(Client, Link, Terms), Failure> {
    let stream = connector
        .connect(config)
        .await
        .map_err(|error| Failure::from_connect(&error, config))?;
    let (client, mut link) = link::open(config, stream).map_err(|error| Failure::from_relay(&error))?;
    loop {
        if let Event::Connected(terms) = link.poll().await? {
            return Ok((client, link, terms));
        }
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    Timestamp {
        wall_ms: now.wall_ms.saturating_add(delay),
        monotonic_ms: now.monotonic_ms.saturating_add(delay),
        ..now
    }
}

/// From 0 to 1. Without randomness from the system the full delay is waited.
fn random() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use forebay_wal::testing::ManualClock;

    use super::*;

    #[tokio::test]
    async fn e28_the_cloud_is_tried_at_once_after_the_machine_was_suspended() {
        let clock = ManualClock::trusted();
        let began = Instant::now();
        let rested = rest(&clock, Duration::from_secs(600));
        let suspended = async {
            tokio::task::yield_now().await;
            clock.suspend(Duration::from_secs(6 * 3600));
        };
        tokio::join!(rested, suspended);
        assert!(began.elapsed() < Duration::from_secs(60), "it looks every second");
        // A clock that is set is no sleep.
        clock.advance(Duration::from_secs(86_400));
        rest(&clock, Duration::from_millis(5)).await;
    }
}
