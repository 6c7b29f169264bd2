//! The machine's clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::trust::{Doubt, Judge, Sample, TOLERANCE_MS, TrustSource, Verdict};
use super::{BootId, Clock, Timestamp, kernel, random_u64, wall_clock};
use crate::sync::lock;

/// How often the kernel is asked whether the clock is synchronised, when anybody asks for the time.
const ASK_EVERY_MS: u64 = 1_000;
/// Between a look at one clock and a look at the other no more may pass, or both are looked at again.
const LOOK_MS: u64 = 20;
/// How often that is tried: under load the last look stands.
const LOOKS: u32 = 8;
/// What is said of steps of the clock is said once in this time.
const SAY_EVERY_MS: u64 = 60_000;
/// A shorter sleep is not told.
const SLEEP_MS: u64 = 2_000;

/// A time that the cloud told over a connection whose certificate was verified: the `Date` of an HTTP answer that no cache made, or
/// the `timestamp` of a reply of AWS IoT Jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudTime {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// From the request to the answer: one that took longer than [`CloudTime::MAX_ROUND_TRIP`] proves nothing.
    pub round_trip: Duration,
}

impl CloudTime {
    /// An answer that took longer is not used.
    pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
}

/// What the clock is like, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReport {
    /// The present moment.
    pub now: Timestamp,
    /// Why the wall clock is trusted, or why not.
    pub trust: Result<TrustSource, Doubt>,
    /// Steps of the wall clock that were noticed since the process started.
    pub jumps: u64,
    /// For how long the machine has been suspended since it booted.
    pub asleep: Duration,
    /// For how long this process has looked.
    pub since_start: Duration,
}

/// The machine's clock. The wall clock is trusted once the kernel says that it is synchronised or a time of the verified cloud agrees,
/// and then for as long as it keeps pace with the boot time.
///
/// Asking it costs two readings of the clock; once a second also a system call.
#[derive(Debug)]
pub struct SystemClock {
    boot: BootId,
    made_ms: u64,
    shared: Mutex<Shared>,
    /// The verdict for as long as the wall clock keeps its pace: when it is due again, and the pace.
    due_ms: AtomicU64,
    offset_ms: AtomicI64,
    is_trusted: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    judge: Judge,
    verdict: Option<Verdict>,
    jumps: u64,
    asleep_ms: u64,
    said_ms: Option<u64>,
}

/// One reading.
#[derive(Clone, Copy)]
struct Reading {
    wall_ms: u64,
    boot_ms: u64,
}

impl SystemClock {
    /// The machine's clock; no moment before `past_ms` (milliseconds since 1970) can be right.
    #[must_use]
    pub fn new(past_ms: u64) -> Self {
        Self {
            boot: boot_id(),
            made_ms: milliseconds(ClockId::Boottime),
            shared: Mutex::new(Shared {
                judge: Judge::new(past_ms),
                verdict: None,
                jumps: 0,
                asleep_ms: asleep_ms(),
                said_ms: None,
            }),
            due_ms: AtomicU64::new(0),
            offset_ms: AtomicI64::new(0),
            is_trusted: AtomicBool::new(false),
        }
    }

    /// The last trusted time on disk, once that has been read.
    pub fn remember(&self, last_trusted: Option<Timestamp>) {
        let now = Reading::careful().sample();
        let last = last_trusted.map(|last| (last.wall_ms, (last.boot == self.boot).then_some(last.monotonic_ms)));
        lock(&self.shared).judge.remember(last, &now);
        self.judge_again();
    }

    /// Our own certificate ends then (milliseconds since 1970): no later time is written to disk.
    pub fn end_at(&self, ceiling_ms: u64) {
        lock(&self.shared).judge.end_at(ceiling_ms);
    }

    /// It is at least so late (milliseconds since 1970), as the start of a verified certificate proves. It proves no present.
    pub fn not_before(&self, past_ms: u64) {
        lock(&self.shared).judge.not_before(past_ms);
        self.judge_again();
    }

    /// A time that the verified cloud has just told. Says whether it is used.
    pub fn cloud_said(&self, time: CloudTime) -> bool {
        if time.round_trip > CloudTime::MAX_ROUND_TRIP {
            return false;
        }
        let now = Reading::careful();
        lock(&self.shared).judge.cloud_said(time.unix_ms, now.boot_ms);
        self.judge_again();
        true
    }

    /// What the clock is like.
    #[must_use]
    pub fn report(&self) -> ClockReport {
        let (now, verdict) = self.judge();
        let shared = lock(&self.shared);
        ClockReport {
            now,
            trust: verdict.trust,
            jumps: shared.jumps,
            asleep: Duration::from_millis(shared.asleep_ms),
            since_start: Duration::from_millis(now.monotonic_ms.saturating_sub(self.made_ms)),
        }
    }

    fn judge_again(&self) {
        self.due_ms.store(0, Ordering::Release);
    }

    /// Looks carefully, and says what has changed.
    fn judge(&self) -> (Timestamp, Verdict) {
        let mut shared = lock(&self.shared);
        let reading = Reading::careful();
        let sample = reading.sample();
        let before = shared.verdict;
        let verdict = shared.judge.judge(&sample);
        shared.verdict = Some(verdict);
        let trusted = verdict.trust.is_ok();
        // Distrust is seen before the pace that it is about, trust after it.
        if !trusted {
            self.is_trusted.store(false, Ordering::Release);
        }
        self.offset_ms.store(reading.offset_ms(), Ordering::Release);
        self.is_trusted.store(trusted, Ordering::Release);
        self.due_ms.store(reading.boot_ms + ASK_EVERY_MS, Ordering::Release);
        let jump = verdict.jump_ms.filter(|_| shared.has_not_said(reading.boot_ms));
        shared.jumps += u64::from(verdict.jump_ms.is_some());
        let asleep = asleep_ms();
        let slept = asleep.saturating_sub(shared.asleep_ms);
        shared.asleep_ms = asleep.max(shared.asleep_ms);
        drop(shared);
        say(before, &verdict, jump, slept);
        (self.at(reading, trusted), verdict)
    }

    const fn at(&self, reading: Reading, trusted: bool) -> Timestamp {
        Timestamp {
            wall_ms: reading.wall_ms,
            boot: self.boot,
            monotonic_ms: reading.boot_ms,
            trusted,
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let reading = Reading::quick();
        let keeps_pace = (reading.offset_ms() - self.offset_ms.load(Ordering::Acquire)).abs() <= TOLERANCE_MS;
        if keeps_pace && reading.boot_ms < self.due_ms.load(Ordering::Acquire) {
            return self.at(reading, self.is_trusted.load(Ordering::Acquire));
        }
        self.judge().0
    }

    fn lasting(&self) -> Option<Timestamp> {
        let now = self.now();
        let verdict = lock(&self.shared).verdict?;
        (now.trusted && verdict.may_be_kept).then_some(now)
    }

    fn kept(&self, last_trusted: Option<Timestamp>) {
        lock(&self.shared).judge.kept(last_trusted.map(|last| last.wall_ms));
    }

    fn asleep(&self) -> Duration {
        self.now();
        Duration::from_millis(lock(&self.shared).asleep_ms)
    }
}

impl Shared {
    /// Whether nothing was said of a step for a while; notes that something is said now.
    fn has_not_said(&mut self, boot_ms: u64) -> bool {
        let is_due = self.said_ms.is_none_or(|said| boot_ms >= said + SAY_EVERY_MS);
        if is_due {
            self.said_ms = Some(boot_ms);
        }
        is_due
    }
}

impl Reading {
    fn quick() -> Self {
        let wall = wall_clock().duration_since(UNIX_EPOCH);
        Self {
            wall_ms: wall.map_or(0, |since| since.as_millis() as u64),
            boot_ms: milliseconds(ClockId::Boottime),
        }
    }

    /// Both clocks as of one moment: a thread that was paused between the two would see a step that there was not.
    fn careful() -> Self {
        let mut reading = Self::quick();
        for _ in 0..LOOKS {
            let before = milliseconds(ClockId::Boottime);
            reading = Self::quick();
            if reading.boot_ms.saturating_sub(before) <= LOOK_MS {
                break;
            }
        }
        reading
    }

    const fn offset_ms(self) -> i64 {
        self.wall_ms as i64 - self.boot_ms as i64
    }

    fn sample(self) -> Sample {
        Sample {
            wall_ms: self.wall_ms,
            boot_ms: self.boot_ms,
            sync: kernel::ask(),
        }
    }
}

fn milliseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

/// Boot time goes on while the machine sleeps, the monotonic time does not.
fn asleep_ms() -> u64 {
    let awake = milliseconds(ClockId::Monotonic);
    milliseconds(ClockId::Boottime).saturating_sub(awake)
}

/// Says what is new, once.
fn say(before: Option<Verdict>, verdict: &Verdict, jump_ms: Option<i64>, slept_ms: u64) {
    if slept_ms >= SLEEP_MS {
        tracing::info!(seconds = slept_ms / 1000, "the machine was suspended and goes on");
    }
    if let Some(by_ms) = jump_ms {
        tracing::warn!(seconds = by_ms / 1000, "the wall clock was set; ages go by the time since the boot");
    }
    match (before.map(|before| before.trust), verdict.trust) {
        (Some(Ok(_)), Ok(_)) | (Some(Err(_)), Err(_)) | (None, Err(_)) => {}
        (_, Ok(source)) => tracing::info!("the clock is trusted: {source}"),
        (Some(Ok(_)), Err(doubt)) => tracing::warn!("the clock is not trusted any more: {doubt}; nothing expires by it"),
    }
}

/// The kernel's name for this boot; without one, a random name, which proves no age beyond this process.
fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    BootId(u128::from_str_radix(&digits, 16).unwrap_or_else(|_| u128::from(random_u64()) << 64 | u128::from(random_u64())))
}
