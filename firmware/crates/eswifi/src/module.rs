//! The module: joining, opening, resetting.

use core::fmt;
use core::future::{Future, poll_fn};
use core::net::Ipv4Addr;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use forebay_device_core::{Clock, Lost, Network, Uptime};

use crate::Transport;
use crate::answer::{Answer, address, number, parse};
use crate::command::Line;
use crate::socket::Connection;

/// Bytes of payload in one read or write of the module: below its own limit of 1,460, so that an answer fits 1.2 KB.
pub(crate) const CHUNK: usize = 1024;
/// A chunk and what is around it.
const ANSWER: usize = CHUNK + 64;
/// The answer to a write: a number.
const SHORT: usize = 64;
/// How long the module waits for bytes in one read. Longer waits are made of these: the line is free in between.
pub(crate) const READ_WAIT: Duration = Duration::from_millis(100);
/// How long it may take to answer what it does by itself.
pub(crate) const LOCAL: Duration = Duration::from_secs(5);

/// The network to join, and the gateway to dial.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The network's name, at most 32 bytes.
    pub ssid: &'a str,
    /// Its WPA2 pass phrase; empty for an open network.
    pub pass_phrase: &'a str,
    /// The gateway's DNS name or IPv4 address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
}

/// The module as the device's network.
#[derive(Debug)]
pub struct Module<'a, T, C> {
    transport: T,
    pub(crate) clock: C,
    access: Access<'a>,
    pub(crate) answer: [u8; ANSWER],
    /// Answers to writes, which must not push out bytes that were not read yet.
    short: [u8; SHORT],
    /// What is said to it is in doubt.
    is_broken: bool,
    is_joined: bool,
    /// Settings of its socket that a reset undoes.
    is_prepared: bool,
    signal_dbm: Option<i8>,
}

impl<'a, T: Transport, C: Clock> Module<'a, T, C> {
    /// A module in an unknown state: its first use resets it.
    pub fn new(transport: T, clock: C, access: Access<'a>) -> Self {
        Self {
            transport,
            clock,
            access,
            answer: [0; ANSWER],
            short: [0; SHORT],
            is_broken: true,
            is_joined: false,
            is_prepared: false,
            signal_dbm: None,
        }
    }

    /// Says something and gives the length of the answer in [`Module::answer`].
    pub(crate) async fn say(&mut self, text: fmt::Arguments<'_>, until: Uptime) -> Result<usize, Lost> {
        let line = self.begin(text)?;
        let exchange = self.transport.exchange(line.as_bytes(), &[], &mut self.answer);
        let length = or_until(exchange, &self.clock, until).await.and_then(Result::ok);
        let length = length.filter(|length| *length <= self.answer.len()).ok_or(Lost::Module)?;
        if parse(&self.answer[..length]) == Answer::Nonsense {
            return Err(Lost::Module);
        }
        self.is_broken = false;
        Ok(length)
    }

    /// Has bytes sent, and gives how many the module says it sent, if it says so. What is in [`Module::answer`] stays.
    pub(crate) async fn send(&mut self, bytes: &[u8], until: Uptime) -> Result<Option<i32>, Lost> {
        let line = self.begin(format_args!("S3={}", bytes.len()))?;
        let exchange = self.transport.exchange(line.as_bytes(), bytes, &mut self.short);
        let length = or_until(exchange, &self.clock, until).await.and_then(Result::ok);
        let length = length.filter(|length| *length <= self.short.len()).ok_or(Lost::Module)?;
        let sent = match parse(&self.short[..length]) {
            Answer::Well(body) => number(body),
            Answer::Refused => None,
            Answer::Nonsense => return Err(Lost::Module),
        };
        self.is_broken = false;
        Ok(sent)
    }

    /// The line for an exchange. Until the answer is here the conversation is in doubt: also for a caller that stops polling.
    fn begin(&mut self, text: fmt::Arguments<'_>) -> Result<Line, Lost> {
        let line = Line::new(text).ok_or(Lost::Protocol)?;
        if self.is_broken {
            return Err(Lost::Module);
        }
        self.is_broken = true;
        Ok(line)
    }

    /// Says something that must go well.
    async fn must(&mut self, text: fmt::Arguments<'_>, until: Uptime, refused: Lost) -> Result<usize, Lost> {
        let length = self.say(text, until).await?;
        match parse(&self.answer[..length]) {
            Answer::Well(_) => Ok(length),
            _ => Err(refused),
        }
    }

    /// The body of the answer of this length.
    pub(crate) fn body(&self, length: usize) -> &[u8] {
        match parse(&self.answer[..length]) {
            Answer::Well(body) => body,
            _ => &[],
        }
    }

    pub(crate) fn was_refused(&self, length: usize) -> bool {
        parse(&self.answer[..length]) == Answer::Refused
    }

    async fn reset_and_wait(&mut self, until: Uptime) -> Result<(), Lost> {
        self.is_broken = true;
        self.is_joined = false;
        self.is_prepared = false;
        self.signal_dbm = None;
        let reset = self.transport.reset();
        if !matches!(or_until(reset, &self.clock, until).await, Some(Ok(()))) {
            return Err(Lost::Module);
        }
        self.is_broken = false;
        Ok(())
    }

    async fn resolve(&mut self, until: Uptime) -> Result<Ipv4Addr, Lost> {
        let host = self.access.host;
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        let length = self.must(format_args!("D0={host}"), until, Lost::Unreachable).await?;
        address(self.body(length)).ok_or(Lost::Unreachable)
    }
}

impl<T: Transport, C: Clock> Network for Module<'_, T, C> {
    type Socket<'s>
        = Connection<'s, Self>
    where
        Self: 's;

    async fn join(&mut self, until: Uptime) -> Result<(), Lost> {
        if self.is_broken {
            self.reset_and_wait(until).await?;
        }
        if self.is_joined {
            // The module rejoins by itself, or not: it is asked.
            let length = self.must(format_args!("CS"), self.clock.now() + LOCAL, Lost::Module).await?;
            self.is_joined = number(self.body(length)) == Some(1);
        }
        if !self.is_joined {
            let Access { ssid, pass_phrase, .. } = self.access;
            let security = if pass_phrase.is_empty() { 0 } else { 3 };
            let soon = self.clock.now() + LOCAL;
            self.must(format_args!("C1={ssid}"), soon, Lost::NotJoined).await?;
            self.must(format_args!("C2={pass_phrase}"), soon, Lost::NotJoined).await?;
            self.must(format_args!("C3={security}"), soon, Lost::NotJoined).await?;
            self.must(format_args!("C4=1"), soon, Lost::NotJoined).await?;
            self.must(format_args!("C0"), until, Lost::NotJoined).await?;
            self.is_joined = true;
        }
        let length = self.must(format_args!("CR"), self.clock.now() + LOCAL, Lost::Module).await?;
        self.signal_dbm = number(self.body(length)).and_then(|signal| i8::try_from(signal).ok());
        Ok(())
    }

    async fn open(&mut self, until: Uptime) -> Result<Self::Socket<'_>, Lost> {
        let soon = self.clock.now() + LOCAL;
        if !self.is_prepared {
            self.must(format_args!("P0=0"), soon, Lost::Module).await?;
            self.must(format_args!("P1=0"), soon, Lost::Module).await?;
            self.must(format_args!("R1={CHUNK}"), soon, Lost::Module).await?;
            self.must(format_args!("R2={}", READ_WAIT.as_millis()), soon, Lost::Module).await?;
            self.must(format_args!("S2={}", LOCAL.as_millis()), soon, Lost::Module).await?;
            self.is_prepared = true;
        }
        // Whatever was open is closed; a refusal means that nothing was.
        self.say(format_args!("P6=0"), soon).await?;
        let address = self.resolve(until).await?;
        let port = self.access.port;
        self.must(format_args!("P3={address}"), soon, Lost::Module).await?;
        self.must(format_args!("P4={port}"), soon, Lost::Module).await?;
        self.must(format_args!("P6=1"), until, Lost::Unreachable).await?;
        Ok(Connection::new(self))
    }

    async fn reset(&mut self, until: Uptime) {
        // A module that does not come back is broken still, and the next use says so.
        self.reset_and_wait(until).await.ok();
    }

    fn signal_dbm(&self) -> Option<i8> {
        self.signal_dbm
    }
}

/// The future's output, or nothing at `until`: the future is then dropped.
async fn or_until<F: Future, C: Clock>(future: F, clock: &C, until: Uptime) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut end = pin!(clock.wait_until(until));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        end.as_mut().poll(context).map(|()| None)
    })
    .await
}
