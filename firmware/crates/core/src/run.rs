//! The device at work: measuring, connecting, guarding, side by side in one thread.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use forebay_flash::NorFlash;

use crate::backoff::{Backoff, Random};
use crate::clock::{Clock, Uptime};
use crate::ladder::{Ladder, Rung};
use crate::network::{Lost, Network, Secure};
use crate::notes::Cause;
use crate::sample::Reading;
use crate::session::{Continued, End, Session};
use crate::state::{Settings, State};

/// Joining a network: a scan, an exchange of keys, DHCP.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
/// Opening a TCP connection.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// The TLS handshake: the device computes for a second or two of it.
const SECURE_DEADLINE: Duration = Duration::from_secs(20);
/// The module's own start.
const RESET_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection must have stood, with acks, before the next wait begins small again.
const STABLE: Duration = Duration::from_secs(30);
/// The first wait is at most this long, and no wait is longer than the second.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest wait that is not counted as progress.
const STEP: Duration = Duration::from_secs(5);
/// How often the guard looks.
const GUARD_EVERY: Duration = Duration::from_secs(1);
/// A sample that has waited in RAM for so long goes to flash: the most that a power cut takes.
const RAM_AGE: Duration = Duration::from_secs(60);

/// Where readings come from.
#[expect(async_fn_in_trait, reason = "the device's futures stay on one thread")]
pub trait Probe {
    /// Asks all sensors. One that does not answer is absent from the reading; this never fails as a whole.
    async fn read(&mut self) -> Reading;
}

/// The watchdog of the hardware.
pub trait Watchdog {
    /// Puts it off.
    fn feed(&mut self);
}

/// What the device works with.
#[derive(Debug)]
pub struct Parts<'p, N, T, C, R, P, W> {
    /// The way to the gateway.
    pub network: &'p mut N,
    /// TLS.
    pub secure: &'p mut T,
    /// Time.
    pub clock: &'p C,
    /// Jitter.
    pub random: &'p mut R,
    /// The sensors.
    pub probe: &'p mut P,
    /// Fed by progress only.
    pub watchdog: &'p mut W,
}

/// Why [`run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The device must be reset; all that was measured is in flash.
    Reboot(Cause),
    /// [`State::stop`] was called, and all was sent.
    Stopped,
}

/// Works until the device must be reset, or is stopped.
///
/// The three activities share `state` and are polled one after the other, so each sees the others' work whole. None is ever
/// dropped half-way except when this function returns.
pub async fn run<N, T, C, R, P, W, Q, S>(parts: Parts<'_, N, T, C, R, P, W>, state: &RefCell<State<Q, S>>, settings: &Settings<'_>) -> Exit
where
    N: Network,
    T: Secure,
    C: Clock,
    R: Random,
    P: Probe,
    W: Watchdog,
    Q: NorFlash,
    S: NorFlash,
{
    let clock = parts.clock;
    let mut measuring = pin!(measure(parts.probe, clock, state, settings));
    let mut guarding = pin!(guard(parts.watchdog, clock, state));
    let mut connecting = pin!(connect(parts.network, parts.secure, parts.random, clock, state, settings));
    poll_fn(|context| {
        // Measuring first: a sample is in the queue before the connection looks whether one is due.
        if let Poll::Ready(never) = measuring.as_mut().poll(context) {
            match never {}
        }
        if let Poll::Ready(exit) = connecting.as_mut().poll(context) {
            return Poll::Ready(exit);
        }
        guarding.as_mut().poll(context)
    })
    .await
}

enum Never {}

async fn measure<C: Clock, P: Probe, Q: NorFlash, S: NorFlash>(
    probe: &mut P,
    clock: &C,
    state: &RefCell<State<Q, S>>,
    settings: &Settings<'_>,
) -> Never {
    let mut due = clock.now();
    loop {
        // Due times are multiples of the interval; after a stall the missed ones are left out.
        let now = clock.now();
        while due < now {
            due = due + settings.sample_every;
        }
        state.borrow_mut().next_sample = due;
        clock.wait_until(due).await;
        due = due + settings.sample_every;
        if state.borrow().is_stopping() {
            state.borrow_mut().progress.measuring(clock.now());
            continue;
        }
        let reading = probe.read().await;
        state.borrow_mut().measured(reading, clock.now());
    }
}

async fn guard<W: Watchdog, C: Clock, Q: NorFlash, S: NorFlash>(watchdog: &mut W, clock: &C, state: &RefCell<State<Q, S>>) -> Exit {
    loop {
        let now = clock.now();
        {
            let mut state = state.borrow_mut();
            if let Some(cause) = state.progress.stalled(now) {
                // The watchdog would bite; the reset is asked for instead, now that all can still be kept.
                state.prepare_for_reboot(cause, now);
                return Exit::Reboot(cause);
            }
            let State { queue, wall, .. } = &mut *state;
            if queue.oldest_in_ram().is_some_and(|measured| now.since(measured) >= RAM_AGE) {
                queue.spill_all(wall);
            }
        }
        watchdog.feed();
        clock.wait_until(now + GUARD_EVERY).await;
    }
}

async fn connect<N: Network, T: Secure, C: Clock, R: Random, Q: NorFlash, S: NorFlash>(
    network: &mut N,
    secure: &mut T,
    random: &mut R,
    clock: &C,
    state: &RefCell<State<Q, S>>,
    settings: &Settings<'_>,
) -> Exit {
    let mut backoff = Backoff::new(WAITS.0, WAITS.1);
    let mut ladder = Ladder::default();
    let mut continued = Continued::default();
    loop {
        let began = clock.now();
        let mut connection = Try {
            clock,
            state,
            settings,
            continued: &mut continued,
            is_stable: false,
            is_connected: false,
        };
        let lost = match connection.run(network, secure).await {
            End::Stopped => return Exit::Stopped,
            End::Lost(lost) => lost,
        };
        let (was_connected, was_stable) = (connection.is_connected, connection.is_stable);
        let now = clock.now();
        {
            let mut state = state.borrow_mut();
            state.is_connected = false;
            state.counters.lost[lost.index()] += 1;
            state.last_lost = Some(lost);
            state.progress.connecting(now);
            if state.is_stopping() && state.queue.is_empty() {
                return Exit::Stopped;
            }
        }
        if was_stable && now.since(began) >= STABLE {
            backoff.reset();
        }
        let rung = if was_connected {
            ladder.connected();
            Rung::TryAgain
        } else {
            ladder.failed(lost, now)
        };
        match rung {
            Rung::TryAgain => {}
            Rung::ResetModule => {
                state.borrow_mut().counters.module_resets += 1;
                network.reset(clock.now() + RESET_DEADLINE).await;
            }
            Rung::Reboot => {
                state.borrow_mut().prepare_for_reboot(Cause::Module, clock.now());
                return Exit::Reboot(Cause::Module);
            }
        }
        let retry = backoff.next(random);
        state.borrow_mut().last_retry = retry;
        wait(clock.now() + retry.wait, clock, state).await;
    }
}

/// Waits in steps, each of them progress: time passes, so the clock works.
async fn wait<C: Clock, Q: NorFlash, S: NorFlash>(until: Uptime, clock: &C, state: &RefCell<State<Q, S>>) {
    loop {
        let now = clock.now();
        state.borrow_mut().progress.connecting(now);
        if now >= until {
            return;
        }
        clock.wait_until((now + STEP).min(until)).await;
    }
}

/// One try to connect, and what comes of it.
struct Try<'t, C, Q, S> {
    clock: &'t C,
    state: &'t RefCell<State<Q, S>>,
    settings: &'t Settings<'t>,
    continued: &'t mut Continued,
    is_connected: bool,
    /// A publish was acked.
    is_stable: bool,
}

impl<C: Clock, Q: NorFlash, S: NorFlash> Try<'_, C, Q, S> {
    async fn run<N: Network, T: Secure>(&mut self, network: &mut N, secure: &mut T) -> End {
        match self.steps(network, secure).await {
            Ok(end) => end,
            Err(lost) => End::Lost(lost),
        }
    }

    /// Wi-Fi, TCP, TLS, MQTT: each with a deadline of its own.
    async fn steps<N: Network, T: Secure>(&mut self, network: &mut N, secure: &mut T) -> Result<End, Lost> {
        network.join(self.clock.now() + JOIN_DEADLINE).await?;
        self.state.borrow_mut().signal_dbm = network.signal_dbm();
        self.progress();
        let socket = network.open(self.clock.now() + OPEN_DEADLINE).await?;
        self.progress();
        let now = self.clock.now();
        let wall = self.state.borrow().wall.wall_time(now);
        let stream = secure.secure(socket, wall, now + SECURE_DEADLINE).await?;
        self.progress();
        let valid_until = T::valid_until(&stream);
        let mut session = Session::new(stream, self.clock, self.state, self.settings, self.continued, valid_until);
        session.connect().await?;
        self.is_connected = true;
        let is_stable = &mut self.is_stable;
        Ok(session.serve(|| *is_stable = true).await)
    }

    fn progress(&self) {
        self.state.borrow_mut().progress.connecting(self.clock.now());
    }
}
