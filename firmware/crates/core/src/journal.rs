//! Samples in flash, over reboots and power cuts.
//!
//! A ring of pages. A page begins with a header of two words (magic and sequence number; CRC), then 28 slots of nine words:
//! the sample with its CRC, and a mark that is erased while the sample waits and zero once it was released.
//!
//! What holds after a power cut at any operation:
//! 1. A sample whose [`Journal::append`] returned well is found again, until it was released or evicted.
//! 2. What is found is a sample that was appended, never a mixture; order is the order of appending.
//! 3. A sample that was released before the cut comes back only if the cut tore the release itself. A torn word may read
//!    differently at each boot, so what a cut met may also come back later.
//!
//! How: only pages erased in this very run are written (a page that looks erased after a cut may not hold); each write is
//! read back, and a slot that did not take it is passed over; a page's header is zeroed before the page is erased, so that a
//! torn erase cannot bring its samples back; a mark that reads as anything but erased counts as released.
//!
//! When the ring is full the oldest page goes, and what waited in it is counted as evicted.

use forebay_flash::{NorFlash, PAGE, WORD};

use crate::sample::{ENCODED, Sample, SampleId, crc32};

/// Pages of the largest ring.
const MAX_PAGES: usize = 32;
const MAGIC: u32 = 0x4651_5501;
const HEADER: u32 = 2 * WORD;
const SLOT: u32 = ENCODED as u32 + WORD;
const SLOTS: u32 = (PAGE - HEADER) / SLOT;
const ERASED: [u8; WORD as usize] = [0xff; WORD as usize];

/// Samples that wait in flash.
#[derive(Debug)]
pub struct Journal<F> {
    flash: F,
    pages: [Page; MAX_PAGES],
    count: usize,
    /// The page that was claimed last, in this run or an earlier one.
    newest: usize,
    sequence: u32,
    /// The next slot of the newest page, if it was claimed in this run and has room.
    next_slot: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// A bit for each slot whose sample waits.
    waiting: u32,
}

/// The flash did not take a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritten;

impl<F: NorFlash> Journal<F> {
    /// Finds what waits. Reads only; whatever a cut has left is not an error.
    ///
    /// # Panics
    /// If the flash has fewer than two pages: the map is wrong. Pages beyond 32 are not used.
    pub fn open(flash: F) -> Self {
        let count = (flash.capacity() / PAGE as usize).min(MAX_PAGES);
        assert!(count >= 2, "a ring has at least two pages");
        let mut journal = Self {
            flash,
            pages: [Page::default(); MAX_PAGES],
            count,
            newest: count - 1,
            sequence: 0,
            next_slot: None,
        };
        for page in 0..count {
            let Some(sequence) = journal.header(page) else { continue };
            if sequence >= journal.sequence {
                journal.sequence = sequence;
                journal.newest = page;
            }
            for slot in 0..SLOTS {
                if journal.is_marked_waiting(page, slot) && journal.sample(page, slot).is_some() {
                    journal.pages[page].waiting |= 1 << slot;
                }
            }
        }
        journal
    }

    /// Samples that wait.
    pub fn len(&self) -> usize {
        self.pages.iter().map(|page| page.waiting.count_ones() as usize).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a sample; how many were evicted for it.
    ///
    /// # Errors
    /// No page takes it: the flash is worn out, or the power is going.
    pub fn append(&mut self, sample: &Sample) -> Result<u32, NotWritten> {
        let mut evicted = 0;
        // Every page is tried once.
        for _ in 0..=self.count {
            while let Some(slot) = self.next_slot {
                self.next_slot = (slot + 1 < SLOTS).then_some(slot + 1);
                if self.write(self.newest, slot, sample) {
                    self.pages[self.newest].waiting |= 1 << slot;
                    return Ok(evicted);
                }
            }
            evicted += self.claim();
        }
        Err(NotWritten)
    }

    /// The sample with `index` older ones before it.
    ///
    /// A sample that reads no more is dropped: it was torn, and read well by chance when it was found.
    pub fn nth(&mut self, index: usize) -> Option<Sample> {
        'again: loop {
            let mut left = index as u32;
            for page in self.in_order() {
                let mut slots = self.pages[page].waiting;
                if left >= slots.count_ones() {
                    left -= slots.count_ones();
                    continue;
                }
                for _ in 0..left {
                    slots &= slots - 1;
                }
                let slot = slots.trailing_zeros();
                if let Some(sample) = self.sample(page, slot) {
                    return Some(sample);
                }
                self.pages[page].waiting &= !(1 << slot);
                continue 'again;
            }
            return None;
        }
    }

    /// Frees a sample; false if it does not wait here.
    pub fn release(&mut self, id: SampleId) -> bool {
        for page in self.in_order() {
            let mut slots = self.pages[page].waiting;
            while slots != 0 {
                let slot = slots.trailing_zeros();
                slots &= slots - 1;
                if self.id(page, slot) == Some(id) {
                    self.pages[page].waiting &= !(1 << slot);
                    // A mark that cannot be written means that the sample is sent once more after a reboot.
                    self.flash.write(mark(page, slot), &[0; WORD as usize]).ok();
                    return true;
                }
            }
        }
        false
    }

    /// Pages from the oldest to the newest.
    fn in_order(&self) -> impl Iterator<Item = usize> + use<F> {
        let (newest, count) = (self.newest, self.count);
        (1..=count).map(move |step| (newest + step) % count)
    }

    /// Makes the page after the newest the newest, empty one; how many samples waited in it.
    fn claim(&mut self) -> u32 {
        let page = (self.newest + 1) % self.count;
        let evicted = core::mem::take(&mut self.pages[page].waiting).count_ones();
        self.newest = page;
        self.sequence = self.sequence.wrapping_add(1);
        self.next_slot = None;
        let start = page as u32 * PAGE;
        let mut header = [0; HEADER as usize];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32(&header[..8]);
        header[8..12].copy_from_slice(&crc.to_le_bytes());
        header[12..].copy_from_slice(&(!crc).to_le_bytes());
        let made = self
            .flash
            .write(start, &[0; HEADER as usize])
            .and_then(|()| self.flash.erase(start, start + PAGE))
            .and_then(|()| self.flash.write(start, &header));
        if made.is_ok() && self.header(page) == Some(self.sequence) {
            self.next_slot = Some(0);
        }
        evicted
    }

    /// The sequence number of a page that is one of ours.
    fn header(&mut self, page: usize) -> Option<u32> {
        let mut header = [0; HEADER as usize];
        self.flash.read(page as u32 * PAGE, &mut header).ok()?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let crc = crc32(&header[..8]);
        (word(0) == MAGIC && word(8) == crc && word(12) == !crc).then(|| word(4))
    }

    fn is_marked_waiting(&mut self, page: usize, slot: u32) -> bool {
        let mut read = [0; WORD as usize];
        self.flash.read(mark(page, slot), &mut read).is_ok() && read == ERASED
    }

    fn sample(&mut self, page: usize, slot: u32) -> Option<Sample> {
        let mut bytes = [0; ENCODED];
        self.flash.read(body(page, slot), &mut bytes).ok()?;
        Sample::decode(&bytes)
    }

    /// The id of a sample that is known to be whole.
    fn id(&mut self, page: usize, slot: u32) -> Option<SampleId> {
        let mut bytes = [0; 8];
        self.flash.read(body(page, slot), &mut bytes).ok()?;
        Some(SampleId::from_bytes(bytes))
    }

    fn write(&mut self, page: usize, slot: u32, sample: &Sample) -> bool {
        self.flash.write(body(page, slot), &sample.encode()).is_ok()
            && self.sample(page, slot).as_ref() == Some(sample)
            && self.is_marked_waiting(page, slot)
    }
}

const fn body(page: usize, slot: u32) -> u32 {
    page as u32 * PAGE + HEADER + slot * SLOT
}

const fn mark(page: usize, slot: u32) -> u32 {
    body(page, slot) + ENCODED as u32
}

#[cfg(test)]
mod tests;
