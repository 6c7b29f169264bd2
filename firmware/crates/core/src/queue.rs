//! What was measured and not yet acked: first in RAM, then in flash.

use alloc::boxed::Box;
use alloc::vec;

use forebay_flash::NorFlash;

use crate::clock::Uptime;
use crate::journal::Journal;
use crate::sample::{Sample, SampleId};
use crate::wall::WallClock;

/// Samples that wait in RAM, at most; then the older ones go to flash.
pub const RAM_SAMPLES: usize = 64;

/// What the queue has seen, for the health report. All since the boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// The most samples that waited at once.
    pub high_water: u32,
    /// Samples that went to flash.
    pub spilled: u32,
    /// Samples that were dropped unsent because the ring in flash was full.
    pub evicted: u32,
    /// Samples that were dropped unsent because the flash did not take them.
    pub unwritten: u32,
}

/// Oldest first. A sample leaves when it is released, or evicted and counted.
#[derive(Debug)]
pub struct Queue<F> {
    journal: Journal<F>,
    ram: Box<[Option<Sample>]>,
    /// The oldest in RAM.
    first: usize,
    in_ram: usize,
    counters: QueueCounters,
}

impl<F: NorFlash> Queue<F> {
    /// A queue whose older part is in this flash, with what an earlier run left there.
    pub fn open(flash: F) -> Self {
        let journal = Journal::open(flash);
        let waiting = journal.len();
        Self {
            journal,
            ram: vec![None; RAM_SAMPLES].into_boxed_slice(),
            first: 0,
            in_ram: 0,
            counters: QueueCounters {
                high_water: waiting as u32,
                ..QueueCounters::default()
            },
        }
    }

    /// What it has seen.
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    /// Samples that wait.
    pub fn len(&self) -> usize {
        self.journal.len() + self.in_ram
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a sample. When RAM is full its older half goes to flash; `wall` dates what is not dated yet.
    pub fn push(&mut self, sample: Sample, wall: &WallClock) {
        if self.in_ram == RAM_SAMPLES {
            self.spill(RAM_SAMPLES / 2, wall);
        }
        self.ram[(self.first + self.in_ram) % RAM_SAMPLES] = Some(sample);
        self.in_ram += 1;
        self.counters.high_water = self.counters.high_water.max(self.len() as u32);
    }

    /// The sample with `index` older ones before it.
    pub fn nth(&mut self, index: usize) -> Option<Sample> {
        // Asked first: a sample that reads no more leaves the journal by being looked at.
        if index < self.journal.len()
            && let Some(sample) = self.journal.nth(index)
        {
            return Some(sample);
        }
        let index = index.checked_sub(self.journal.len()).filter(|index| *index < self.in_ram)?;
        self.ram[(self.first + index) % RAM_SAMPLES]
    }

    /// Frees a sample: it was acked. False if it does not wait.
    pub fn release(&mut self, id: SampleId) -> bool {
        let place = (0..self.in_ram).find(|index| self.ram[(self.first + index) % RAM_SAMPLES].is_some_and(|sample| sample.id == id));
        let Some(place) = place else {
            return self.journal.release(id);
        };
        // Those before it move up; acks come in order, so there are few.
        for index in (0..place).rev() {
            self.ram[(self.first + index + 1) % RAM_SAMPLES] = self.ram[(self.first + index) % RAM_SAMPLES];
        }
        self.forget_first();
        true
    }

    /// When the oldest sample in RAM was measured.
    pub fn oldest_in_ram(&self) -> Option<Uptime> {
        (self.in_ram > 0).then(|| self.ram[self.first])?.map(|sample| sample.uptime)
    }

    /// Moves everything in RAM to flash: before a reboot, or because it has waited long.
    pub fn spill_all(&mut self, wall: &WallClock) {
        self.spill(self.in_ram, wall);
    }

    fn spill(&mut self, count: usize, wall: &WallClock) {
        for _ in 0..count {
            let Some(mut sample) = self.ram[self.first] else { return };
            if sample.wall_ms.is_none() {
                sample.wall_ms = wall_ms(wall, sample.uptime);
            }
            match self.journal.append(&sample) {
                Ok(evicted) => {
                    self.counters.spilled += 1;
                    self.counters.evicted += evicted;
                }
                Err(_) => self.counters.unwritten += 1,
            }
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        self.ram[self.first] = None;
        self.first = (self.first + 1) % RAM_SAMPLES;
        self.in_ram -= 1;
    }
}

/// Milliseconds since 1970 of a moment of this boot, if the time was told in it.
pub(crate) fn wall_ms(wall: &WallClock, moment: Uptime) -> Option<u64> {
    wall.told_at(moment).and_then(|since| u64::try_from(since.as_millis()).ok())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::time::Duration;
    use std::vec::Vec;

    use forebay_flash::PAGE;
    use forebay_flash::sim::Sim;

    use super::*;
    use crate::sample::tests::sample;

    fn wall() -> WallClock {
        WallClock::new(Duration::from_secs(1_790_000_000), None, Uptime::default())
    }

    fn sequences(queue: &mut Queue<&mut Sim>) -> Vec<(u32, u32)> {
        (0..queue.len())
            .map(|index| queue.nth(index).unwrap().id)
            .map(|id| (id.boot, id.sequence))
            .collect()
    }

    #[test]
    fn nothing_is_lost_between_ram_and_flash_and_order_is_kept() {
        let mut flash = Sim::new(24 * PAGE, 1);
        let mut queue = Queue::open(&mut flash);
        for sequence in 1..=300 {
            queue.push(sample(1, sequence), &wall());
        }
        assert_eq!(sequences(&mut queue), (1..=300).map(|sequence| (1, sequence)).collect::<Vec<_>>());
        for gone in [1, 2, 299, 150, 3] {
            assert!(queue.release(SampleId { boot: 1, sequence: gone }), "{gone}");
            assert!(!queue.release(SampleId { boot: 1, sequence: gone }), "{gone}");
        }
        assert_eq!(queue.len(), 295);
        queue.spill_all(&wall());
        assert_eq!(queue.counters().high_water, 300);
        assert_eq!((queue.counters().evicted, queue.counters().unwritten), (0, 0));
        let before = sequences(&mut queue);
        let mut after = Queue::open(&mut flash);
        assert_eq!(sequences(&mut after), before, "over a reboot");
        after.push(sample(2, 1), &wall());
        assert_eq!(after.nth(295).unwrap().id, SampleId { boot: 2, sequence: 1 });
    }

    #[test]
    fn while_acks_come_flash_is_not_touched() {
        let mut flash = Sim::new(24 * PAGE, 1);
        let mut queue = Queue::open(&mut flash);
        for sequence in 1..=10_000 {
            queue.push(sample(1, sequence), &wall());
            assert!(queue.release(SampleId { boot: 1, sequence }));
        }
        assert_eq!(flash.operations(), 0);
    }

    #[test]
    fn a_full_ring_drops_the_oldest_and_counts_them() {
        let mut flash = Sim::new(2 * PAGE, 1);
        let mut queue = Queue::open(&mut flash);
        for sequence in 1..=1000 {
            queue.push(sample(1, sequence), &wall());
        }
        assert_eq!(queue.counters().evicted as usize + queue.len(), 1000);
        assert_eq!(queue.nth(queue.len() - 1).unwrap().id.sequence, 1000);
    }

    #[test]
    fn what_waits_is_dated_when_the_time_is_known() {
        let mut flash = Sim::new(2 * PAGE, 1);
        let mut queue = Queue::open(&mut flash);
        let mut wall = wall();
        let mut undated = sample(1, 1);
        undated.wall_ms = None;
        queue.push(undated, &wall);
        wall.tell(Duration::from_secs(1_795_000_000), None, Uptime::from_millis(5000));
        queue.spill_all(&wall);
        assert_eq!(queue.nth(0).unwrap().wall_ms, Some(1_795_000_000_000 - 4000));
    }
}
