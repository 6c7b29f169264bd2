//! One MQTT connection, from CONNECT to its end.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use forebay_flash::NorFlash;

use crate::clock::{Clock, Uptime};
use crate::mqtt::{self, Connect, Decoded, reason};
use crate::network::{Lost, Socket};
use crate::report::{self, MAX_PAYLOAD};
use crate::state::{Settings, State};
use crate::window::{Carried, WINDOW, Window};

/// How long the gateway may take from CONNECT to CONNACK.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to ack a publish, or a ping.
const ACK_DEADLINE: Duration = Duration::from_secs(20);
/// How long a write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// What we ask for; the gateway may shorten it.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the gateway keeps our packet ids while we are away.
const SESSION_EXPIRY: Duration = Duration::from_secs(3600);
/// After a refusal publishes pause for this long: it is about the gateway's room or rights, which change, and not about one sample.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// The longest that a wait lasts without being counted as progress.
const STEP: Duration = Duration::from_secs(5);

/// Bytes of the largest packet that the device takes; CONNECT says so.
const MAX_INCOMING: usize = 512;
/// Bytes of the largest packet that it sends.
const MAX_OUTGOING: usize = MAX_PAYLOAD + 192;

/// What outlives a connection.
#[derive(Debug, Default)]
pub(crate) struct Continued {
    window: Window,
    /// Whether the gateway may still know our packet ids. Not after a boot.
    has_session: bool,
    /// When the next health report is due; at once after a boot.
    health_due: Uptime,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Lost(Lost),
    /// All was sent, and the device is stopping.
    Stopped,
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

pub(crate) struct Session<'s, K, C, Q, S> {
    pub(crate) socket: K,
    pub(crate) clock: &'s C,
    pub(crate) state: &'s RefCell<State<Q, S>>,
    pub(crate) settings: &'s Settings<'s>,
    pub(crate) continued: &'s mut Continued,
    /// The end of the gateway's certificate, in seconds since 1970.
    pub(crate) peer_valid_until: Option<u64>,
    incoming: Vec<u8>,
    payload: Vec<u8>,
    outgoing: Vec<u8>,
    filled: usize,
    keep_alive: Duration,
    receive_maximum: usize,
    last_sent: Uptime,
    ping_sent: Option<Uptime>,
    paused_until: Uptime,
}

impl<'s, K: Socket, C: Clock, Q: NorFlash, S: NorFlash> Session<'s, K, C, Q, S> {
    pub(crate) fn new(
        socket: K,
        clock: &'s C,
        state: &'s RefCell<State<Q, S>>,
        settings: &'s Settings<'s>,
        continued: &'s mut Continued,
        peer_valid_until: Option<u64>,
    ) -> Self {
        Self {
            socket,
            clock,
            state,
            settings,
            continued,
            peer_valid_until,
            incoming: vec![0; MAX_INCOMING],
            payload: vec![0; MAX_PAYLOAD],
            outgoing: vec![0; MAX_OUTGOING],
            filled: 0,
            keep_alive: KEEP_ALIVE,
            receive_maximum: WINDOW,
            last_sent: Uptime::default(),
            ping_sent: None,
            paused_until: Uptime::default(),
        }
    }

    /// CONNECT and CONNACK.
    pub(crate) async fn connect(&mut self) -> Result<(), Lost> {
        let deadline = self.clock.now() + CONNECT_DEADLINE;
        let packet = Connect {
            client_id: self.settings.device,
            clean_start: !self.continued.has_session,
            keep_alive: KEEP_ALIVE.as_secs() as u16,
            session_expiry: SESSION_EXPIRY.as_secs() as u32,
            maximum_packet: MAX_INCOMING as u32,
        };
        let packet = mqtt::connect(&packet, &mut self.outgoing).map_err(|_| Lost::Protocol)?;
        self.socket.write_all(packet, deadline).await?;
        let connack = loop {
            match self.next_packet()? {
                Some(Decoded::ConnAck(connack)) => break connack,
                Some(_) => return Err(Lost::Protocol),
                None => {
                    if self.receive(deadline).await? == 0 {
                        return Err(Lost::TimedOut);
                    }
                }
            }
        };
        if connack.code >= reason::FIRST_ERROR {
            return Err(Lost::Refused);
        }
        let now = self.clock.now();
        self.last_sent = now;
        self.keep_alive = connack.keep_alive.map_or(KEEP_ALIVE, |seconds| Duration::from_secs(seconds.into()));
        self.receive_maximum = WINDOW.min(connack.receive_maximum.into());
        self.continued.has_session = true;
        if !connack.session_present {
            // The gateway knows none of our packet ids: what was in flight is sent anew, under new ones.
            self.continued.window.clear();
        }
        let mut state = self.state.borrow_mut();
        state.counters.connections += 1;
        state.is_connected = true;
        if let Some(time) = connack.time {
            state.told(time, self.peer_valid_until, now);
        }
        Ok(())
    }

    /// Publishes until the connection ends.
    pub(crate) async fn serve(&mut self, mut stable: impl FnMut()) -> End {
        match self.serve_until_lost(&mut stable).await {
            Ok(()) => End::Stopped,
            Err(End::Lost(lost)) => End::Lost(lost),
            Err(End::Stopped) => End::Stopped,
        }
    }

    async fn serve_until_lost(&mut self, stable: &mut impl FnMut()) -> Result<(), End> {
        let mut index = 0;
        while let Some(entry) = self.continued.window.nth(index) {
            self.send_again(index).await?;
            // One that was evicted meanwhile has left its place to the next.
            if self.continued.window.nth(index).is_some_and(|now| now.packet_id == entry.packet_id) {
                index += 1;
            }
        }
        loop {
            let now = self.clock.now();
            self.state.borrow_mut().progress.connecting(now);
            self.send_what_is_due(now).await?;
            let now = self.clock.now();
            if self.state.borrow().is_stopping() && self.continued.window.len() == 0 && self.state.borrow().queue.is_empty() {
                self.disconnect(now).await;
                return Ok(());
            }
            self.check_deadlines(now)?;
            if now.since(self.last_sent) * 2 >= self.keep_alive && !self.keep_alive.is_zero() && self.ping_sent.is_none() {
                let mut buffer = [0; 8];
                let packet = mqtt::ping(&mut buffer).map_err(|_| Lost::Protocol)?;
                self.socket.write_all(packet, now + WRITE_DEADLINE).await?;
                self.last_sent = now;
                self.ping_sent = Some(now);
            }
            let until = self.next_due(now);
            self.receive(until).await?;
            while let Some(packet) = self.next_packet()? {
                self.take(packet, stable)?;
            }
        }
    }

    /// What must happen next, unless bytes come first.
    fn next_due(&self, now: Uptime) -> Uptime {
        let state = self.state.borrow();
        let mut due = (now + STEP).min(self.last_sent + self.keep_alive / 2);
        if !state.is_stopping() {
            due = due.min(state.next_sample).min(self.continued.health_due);
        }
        if let Some(oldest) = self.continued.window.oldest() {
            due = due.min(oldest + ACK_DEADLINE);
        }
        if self.paused_until > now {
            due = due.min(self.paused_until);
        }
        // What is due already was done or cannot be done yet: a moment passes, so that nothing spins.
        due.max(now + Duration::from_millis(1))
    }

    fn check_deadlines(&self, now: Uptime) -> Result<(), Lost> {
        let oldest = self.continued.window.oldest().into_iter().chain(self.ping_sent).min();
        match oldest {
            Some(sent) if now.since(sent) >= ACK_DEADLINE => Err(Lost::TimedOut),
            _ => Ok(()),
        }
    }

    async fn send_what_is_due(&mut self, now: Uptime) -> Result<(), Lost> {
        if now < self.paused_until {
            return Ok(());
        }
        while self.continued.window.len() < self.receive_maximum {
            let now = self.clock.now();
            let is_health_due = now >= self.continued.health_due && !self.state.borrow().is_stopping();
            if is_health_due && !self.continued.window.contains(Carried::Health) {
                self.continued.health_due = now + self.settings.health_every;
                self.send_anew(Carried::Health).await?;
            } else if let Some(carried) = self.next_sample() {
                self.send_anew(carried).await?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// The oldest sample that is not in flight.
    fn next_sample(&self) -> Option<Carried> {
        let mut state = self.state.borrow_mut();
        (0..=self.continued.window.len())
            .map_while(|index| state.queue.nth(index))
            .map(|sample| Carried::Sample(sample.id))
            .find(|carried| !self.continued.window.contains(*carried))
    }

    async fn send_anew(&mut self, carried: Carried) -> Result<(), Lost> {
        match self.continued.window.take(carried, self.clock.now()) {
            Some(packet_id) => self.send(carried, packet_id, false).await,
            None => Ok(()),
        }
    }

    async fn send_again(&mut self, index: usize) -> Result<(), Lost> {
        match self.continued.window.nth(index) {
            Some(entry) => {
                self.continued.window.again(index, self.clock.now());
                self.send(entry.carried, entry.packet_id, true).await
            }
            None => Ok(()),
        }
    }

    async fn send(&mut self, carried: Carried, packet_id: u16, is_again: bool) -> Result<(), Lost> {
        let now = self.clock.now();
        let packet = {
            let mut state = self.state.borrow_mut();
            let (subject, payload) = match carried {
                Carried::Health => ("/health", report::health(&mut state, self.settings, now, &mut self.payload)),
                Carried::Sample(id) => {
                    // In flight and evicted since: there is nothing left to send, and its id is free.
                    let found = (0..WINDOW + 1)
                        .map_while(|index| state.queue.nth(index))
                        .find(|sample| sample.id == id);
                    let Some(sample) = found else {
                        self.continued.window.free(packet_id);
                        return Ok(());
                    };
                    ("/telemetry/env", report::sample(&sample, &state, self.settings, &mut self.payload))
                }
            };
            let topic = ["devices/", self.settings.device, subject];
            // A payload that does not fit is a mistake of ours that no other try mends; MAX_PAYLOAD has room (see the tests).
            mqtt::publish(topic, packet_id, is_again, payload.unwrap_or(b"{}"), &mut self.outgoing).map_err(|_| Lost::Protocol)?
        };
        self.socket.write_all(packet, now + WRITE_DEADLINE).await?;
        self.last_sent = now;
        Ok(())
    }

    fn take(&mut self, packet: Decoded, stable: &mut impl FnMut()) -> Result<(), Lost> {
        match packet {
            Decoded::PubAck { id, code } => {
                let Some(entry) = self.continued.window.free(id) else {
                    return Err(Lost::Protocol);
                };
                let now = self.clock.now();
                let mut state = self.state.borrow_mut();
                if code >= reason::FIRST_ERROR {
                    state.counters.refused += 1;
                    self.paused_until = now + REFUSED_PAUSE;
                    return Ok(());
                }
                if let Carried::Sample(id) = entry.carried
                    && state.queue.release(id)
                {
                    state.acked(now.since(entry.sent));
                }
                state.note_the_time(now);
                stable();
                Ok(())
            }
            Decoded::Pong => {
                self.ping_sent = None;
                Ok(())
            }
            Decoded::Disconnect { .. } => Err(Lost::Closed),
            Decoded::ConnAck(_) => Err(Lost::Protocol),
        }
    }

    async fn disconnect(&mut self, now: Uptime) {
        let mut buffer = [0; 8];
        if let Ok(packet) = mqtt::disconnect(&mut buffer) {
            // The gateway notices either way.
            self.socket.write_all(packet, now + WRITE_DEADLINE).await.ok();
        }
        self.socket.close(now + WRITE_DEADLINE).await;
    }

    async fn receive(&mut self, until: Uptime) -> Result<usize, Lost> {
        let free = &mut self.incoming[self.filled..];
        if free.is_empty() {
            return Err(Lost::Protocol);
        }
        let count = self.socket.read(free, until).await?;
        self.filled += count;
        Ok(count)
    }

    fn next_packet(&mut self) -> Result<Option<Decoded>, Lost> {
        let found = mqtt::decode(&self.incoming[..self.filled]).map_err(|_| Lost::Protocol)?;
        Ok(found.map(|(packet, used)| {
            self.incoming.copy_within(used..self.filled, 0);
            self.filled -= used;
            packet
        }))
    }
}
