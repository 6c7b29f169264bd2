//! What the device's three activities share.

use core::time::Duration;

use forebay_flash::NorFlash;

use crate::backoff::Retry;
use crate::clock::Uptime;
use crate::network::Lost;
use crate::notes::{Cause, Note, Notes};
use crate::progress::Progress;
use crate::queue::{Queue, wall_ms};
use crate::sample::{Reading, Sample, SampleId};
use crate::wall::{Told, WallClock};

/// How often the time is noted in flash.
const NOTE_EVERY: Duration = Duration::from_secs(3600);

/// Waits for acks that are kept for whoever takes them; of more the oldest are forgotten.
const ACK_WAITS: usize = 64;

/// Who the device is, and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The device's identity: the common name of its certificate, its MQTT client id, a level of its topics.
    pub device: &'a str,
    /// Time between two samples.
    pub sample_every: Duration,
    /// Time between two health reports.
    pub health_every: Duration,
    /// When the image was built, since 1970: no time before it is believed.
    pub build_time: Duration,
    /// The image's version.
    pub version: &'a str,
    /// The slot that the image runs from.
    pub slot: &'a str,
    /// Why the device was reset, in one word.
    pub reset_cause: &'a str,
}

/// What the health report counts, since the boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that stood: CONNACK came.
    pub connections: u32,
    /// Ends of connections and of tries, by [`Lost::index`].
    pub lost: [u32; Lost::ALL.len()],
    /// Samples measured.
    pub measured: u32,
    /// Samples acked.
    pub acked: u32,
    /// PUBACKs that refused.
    pub refused: u32,
    /// Resets of the radio module.
    pub module_resets: u32,
    /// Times that a gateway told and that were not believed.
    pub times_refused: u32,
}

/// Shared by measuring, connecting and guarding; borrowed for a moment only, never over a wait.
#[derive(Debug)]
pub struct State<Q, S> {
    pub(crate) queue: Queue<Q>,
    pub(crate) notes: Notes<S>,
    pub(crate) wall: WallClock,
    pub(crate) progress: Progress,
    pub(crate) counters: Counters,
    pub(crate) boot: u32,
    /// Why the run before this one rebooted itself.
    pub(crate) last_cause: Cause,
    pub(crate) next_sample: Uptime,
    pub(crate) signal_dbm: Option<i8>,
    /// Bytes of stack: all, and the most that was used.
    pub(crate) stack: Option<(u32, u32)>,
    pub(crate) is_connected: bool,
    pub(crate) last_lost: Option<Lost>,
    pub(crate) last_retry: Retry,
    /// The latest waits from publish to ack, in milliseconds, and how many were not taken yet.
    ack_waits: [u16; ACK_WAITS],
    ack_waits_new: usize,
    slowest_ack_ms: u16,
    noted_at: Uptime,
    stop: bool,
}

impl<Q: NorFlash, S: NorFlash> State<Q, S> {
    /// At boot: counts it in flash, and finds what waits from earlier ones.
    ///
    /// A note that the flash does not take is no reason to stop: the boot id is then the one of an earlier boot plus one,
    /// twice, and samples are still told apart by their time.
    pub fn new(queue: Q, notes: S, settings: &Settings<'_>, now: Uptime) -> Self {
        let queue = Queue::open(queue);
        let mut notes = Notes::open(notes);
        let before = notes.newest();
        let wall = WallClock::new(settings.build_time, notes.time(), now);
        let boot = before.boots.wrapping_add(1);
        notes
            .write(Note {
                boots: boot,
                cause: Cause::None,
                ..before
            })
            .ok();
        Self {
            queue,
            notes,
            wall,
            progress: Progress::new(now, settings.sample_every * 3 + Duration::from_secs(30)),
            counters: Counters::default(),
            boot,
            last_cause: before.cause,
            next_sample: now,
            signal_dbm: None,
            stack: None,
            is_connected: false,
            last_lost: None,
            last_retry: Retry::default(),
            ack_waits: [0; ACK_WAITS],
            ack_waits_new: 0,
            slowest_ack_ms: 0,
            noted_at: now,
            stop: false,
        }
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Samples that wait for their ack.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// What the queue counted.
    pub fn queue_counters(&self) -> crate::queue::QueueCounters {
        self.queue.counters()
    }

    /// This boot's number.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Whether the gateway has taken the device, and it is still there.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Why the last connection, or try, ended.
    pub fn last_lost(&self) -> Option<Lost> {
        self.last_lost
    }

    /// The wait before the latest try to connect that followed a failure; zeros before the first.
    pub fn last_retry(&self) -> Retry {
        self.last_retry
    }

    /// Whether a gateway told the time in this boot, and was believed.
    pub fn is_time_told(&self) -> bool {
        self.wall.told_at(self.next_sample).is_some()
    }

    /// Tells how far the stack has grown: bytes in all, and the most that was used.
    pub fn note_stack(&mut self, size: u32, most: u32) {
        self.stack = Some((size, most));
    }

    /// Ends measuring; what waits is still sent if the gateway is there, then [`run`](crate::run()) returns.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// Gives the waits from publish to ack since the last call, in milliseconds; at most the 64 latest, in no order.
    pub fn take_ack_waits(&mut self) -> impl Iterator<Item = u16> + '_ {
        let count = core::mem::take(&mut self.ack_waits_new).min(ACK_WAITS);
        self.ack_waits[..count].iter().copied()
    }

    pub(crate) fn acked(&mut self, wait: Duration) {
        self.counters.acked += 1;
        let wait = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
        self.ack_waits[self.ack_waits_new % ACK_WAITS] = wait;
        self.ack_waits_new += 1;
        self.slowest_ack_ms = self.slowest_ack_ms.max(wait);
    }

    /// The slowest ack since the last health report, in milliseconds.
    pub(crate) fn take_slowest_ack(&mut self) -> u16 {
        core::mem::take(&mut self.slowest_ack_ms)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop
    }

    pub(crate) fn measured(&mut self, reading: Reading, now: Uptime) {
        self.counters.measured += 1;
        let sample = Sample {
            id: SampleId {
                boot: self.boot,
                sequence: self.counters.measured,
            },
            uptime: now,
            wall_ms: wall_ms(&self.wall, now),
            reading,
        };
        self.queue.push(sample, &self.wall);
        self.progress.measuring(now);
    }

    pub(crate) fn told(&mut self, time: Duration, valid_until: Option<u64>, now: Uptime) {
        let is_first = self.wall.told_at(now).is_none();
        match self.wall.tell(time, valid_until.map(Duration::from_secs), now) {
            Told::Refused => self.counters.times_refused += 1,
            Told::Set if is_first => self.note(Cause::None, now),
            Told::Set => {}
        }
    }

    /// Notes the time once an hour.
    pub(crate) fn note_the_time(&mut self, now: Uptime) {
        if now.since(self.noted_at) >= NOTE_EVERY && self.wall.told_at(now).is_some() {
            self.note(Cause::None, now);
        }
    }

    /// Keeps all that must outlive a reboot.
    pub(crate) fn prepare_for_reboot(&mut self, cause: Cause, now: Uptime) {
        self.queue.spill_all(&self.wall);
        self.note(cause, now);
    }

    fn note(&mut self, cause: Cause, now: Uptime) {
        self.noted_at = now;
        let seconds = match self.wall.told_at(now) {
            Some(since) => since.as_secs(),
            None => self.notes.newest().seconds,
        };
        // A note that the flash does not take costs the next boot an older time; the report shows the boot number stand still.
        self.notes
            .write(Note {
                boots: self.boot,
                seconds,
                cause,
            })
            .ok();
    }
}
