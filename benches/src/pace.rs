//! A steady beat, finer than tokio's millisecond timer.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// How many due publishes may wait for a client that is not keeping up.
pub(crate) const BACKLOG: usize = 4096;

/// Hands out due times to the clients in turn, `rate` in all per second, until `until`. Returns how many found a client's queue full.
pub(crate) async fn run(rate: f64, until: Instant, clients: Vec<mpsc::Sender<Instant>>) -> anyhow::Result<u64> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    // Beats closer than this come in small groups; the due times stay exact.
    let timer = timer(interval.max(Duration::from_micros(50)))?;
    let start = Instant::now();
    let mut missed = 0;
    let mut beat: u64 = 0;
    loop {
        let mut ready = timer.readable().await?;
        let now = Instant::now();
        if now >= until {
            return Ok(missed);
        }
        let _expirations = rustix::io::read(timer.get_ref(), &mut [0; 8]);
        ready.clear_ready();
        loop {
            let due = start + Duration::from_secs_f64(beat as f64 / rate);
            if due > now {
                break;
            }
            let client = &clients[(beat % clients.len() as u64) as usize];
            missed += u64::from(client.try_send(due).is_err());
            beat += 1;
        }
    }
}

fn timer(interval: Duration) -> anyhow::Result<AsyncFd<OwnedFd>> {
    let timer =
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC).context("creating the pacing timer")?;
    let interval = Timespec {
        tv_sec: interval.as_secs() as i64,
        tv_nsec: i64::from(interval.subsec_nanos()),
    };
    timerfd_settime(
        &timer,
        TimerfdTimerFlags::empty(),
        &Itimerspec {
            it_interval: interval,
            it_value: interval,
        },
    )
    .context("starting the pacing timer")?;
    #[allow(
        deprecated,
        reason = "sound for an OwnedFd, which stays open as long as the AsyncFd; its successor is an unsafe fn"
    )]
    AsyncFd::new(timer).context("waiting on the pacing timer")
}
