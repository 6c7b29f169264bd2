//! The few things the device must remember: how often it booted, the time it last knew, why it gave up.
//!
//! Two pages, used in turns; a note is three words with a CRC, written after the one before it. A page that is full is
//! left, the other erased, and the newest note written there first. The newest note whose CRC holds counts, so a power cut
//! loses the note that it tears and no other. As in the journal, only a page erased in this run is written.
//!
//! A torn note may read well once and never again. Nothing may be built on it: a note counts at the start only if it reads
//! the same many times, and the first note of a run outranks one that was torn right before it.

use core::time::Duration;

use forebay_flash::{NorFlash, PAGE, WORD};

use crate::sample::crc32;

const NOTE: usize = 3 * WORD as usize;
/// How often a note must read the same.
const READS: u32 = 24;
const PER_PAGE: u32 = PAGE / NOTE as u32;

/// Why the device rebooted itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// It did not.
    #[default]
    None = 0,
    /// The radio module did not come back, however often it was reset.
    Module = 1,
    /// Measuring stood still.
    MeasuringStalled = 2,
    /// Connecting stood still.
    ConnectingStalled = 3,
}

impl Cause {
    /// One word for the health report.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Module => "module",
            Self::MeasuringStalled => "measuring-stalled",
            Self::ConnectingStalled => "connecting-stalled",
        }
    }

    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Module,
            2 => Self::MeasuringStalled,
            3 => Self::ConnectingStalled,
            _ => Self::None,
        }
    }
}

/// One note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Boots so far, this one included.
    pub boots: u32,
    /// The time when it was written, in seconds since 1970; 0 if never told.
    pub seconds: u64,
    /// Why the boot it belongs to will end, as far as is known.
    pub cause: Cause,
}

/// The notes.
#[derive(Debug)]
pub struct Notes<F> {
    flash: F,
    newest: Note,
    /// Counts notes.
    number: u32,
    /// The page in use and the next place in it, once it was erased in this run.
    place: Option<(u32, u32)>,
    /// Where the newest note is.
    page: u32,
    /// Nothing was written in this run.
    is_first: bool,
}

/// The flash did not take a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNoted;

impl<F: NorFlash> Notes<F> {
    /// Finds the newest note; a new device has one of zeros.
    ///
    /// # Panics
    /// If the flash has fewer than two pages: the map is wrong.
    pub fn open(flash: F) -> Self {
        assert!(flash.capacity() >= 2 * PAGE as usize, "notes need two pages");
        let mut notes = Self {
            flash,
            newest: Note::default(),
            number: 0,
            place: None,
            page: 0,
            is_first: true,
        };
        for page in 0..2 {
            for place in 0..PER_PAGE {
                if let Some((number, note)) = notes.read(page, place)
                    && number > notes.number
                    && (0..READS).all(|_| notes.read(page, place) == Some((number, note)))
                {
                    (notes.number, notes.newest, notes.page) = (number, note, page);
                }
            }
        }
        notes
    }

    /// The newest note.
    pub fn newest(&self) -> Note {
        self.newest
    }

    /// The time it tells, if it was ever known.
    pub fn time(&self) -> Option<Duration> {
        (self.newest.seconds > 0).then(|| Duration::from_secs(self.newest.seconds))
    }

    /// Writes a note.
    ///
    /// # Errors
    /// Neither page takes it.
    pub fn write(&mut self, note: Note) -> Result<(), NotNoted> {
        // One number is left out at the start of a run: a torn note, unreadable now, may have it.
        let number = self.number + if self.is_first { 2 } else { 1 };
        for _ in 0..4 {
            let Some((page, place)) = self.place else {
                // The page with the newest note stays until another note stands in the other one.
                let page = 1 - self.page;
                if self.flash.erase(page * PAGE, (page + 1) * PAGE).is_err() {
                    return Err(NotNoted);
                }
                self.place = Some((page, 0));
                continue;
            };
            self.place = (place + 1 < PER_PAGE).then_some((page, place + 1));
            let at = page * PAGE + place * NOTE as u32;
            if self.flash.write(at, &encode(number, note)).is_ok() && self.read(page, place) == Some((number, note)) {
                (self.number, self.newest, self.page) = (number, note, page);
                self.is_first = false;
                return Ok(());
            }
        }
        Err(NotNoted)
    }

    fn read(&mut self, page: u32, place: u32) -> Option<(u32, Note)> {
        let mut bytes = [0; NOTE];
        self.flash.read(page * PAGE + place * NOTE as u32, &mut bytes).ok()?;
        let (checked, crc) = bytes.split_at(NOTE - 4);
        if crc32(checked).to_le_bytes() != crc {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let note = Note {
            boots: word(4),
            seconds: u64::from(word(8)) | u64::from(word(12)) << 32,
            cause: Cause::from_byte(bytes[16]),
        };
        Some((word(0), note))
    }
}

fn encode(number: u32, note: Note) -> [u8; NOTE] {
    let mut bytes = [0; NOTE];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..8].copy_from_slice(&note.boots.to_le_bytes());
    bytes[8..16].copy_from_slice(&note.seconds.to_le_bytes());
    bytes[16] = note.cause as u8;
    let crc = crc32(&bytes[..NOTE - 4]);
    bytes[NOTE - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    extern crate std;

    use forebay_flash::sim::{Random, Sim};

    use super::*;

    fn note(boots: u32) -> Note {
        Note {
            boots,
            seconds: 1_795_000_000 + u64::from(boots),
            cause: Cause::Module,
        }
    }

    #[test]
    fn a_new_device_has_nothing_noted() {
        let notes = Notes::open(Sim::new(2 * PAGE, 1));
        assert_eq!(notes.newest(), Note::default());
        assert_eq!(notes.time(), None);
    }

    #[test]
    fn a_cut_loses_at_most_the_note_it_tears() {
        for seed in 0..2000 {
            live(seed, 700);
        }
    }

    /// Then the newest note is often one that was torn, and the page with the last good one is the next to be erased.
    #[test]
    fn so_do_cuts_at_the_first_notes_of_every_run() {
        for seed in 0..3000 {
            live(seed, 12);
        }
    }

    #[test]
    fn a_worn_word_costs_its_place_and_no_note() {
        let mut flash = Sim::new(2 * PAGE, 1);
        flash.wear_out(20);
        for run in 0..10 {
            let mut notes = Notes::open(&mut flash);
            for boots in 100 * run + 1..=100 * run + 100 {
                notes.write(note(boots)).unwrap();
                assert_eq!(Notes::open(&mut *notes.flash).newest(), note(boots));
            }
        }
    }

    /// Six runs, each cut before it has done so many operations.
    fn live(seed: u64, operations: u64) {
        let mut random = Random(seed);
        let mut flash = Sim::new(2 * PAGE, seed);
        let mut written = 0;
        // Notes that a cut met since.
        let mut torn = std::collections::BTreeSet::new();
        for _ in 0..6 {
            flash.power_on();
            let mut notes = Notes::open(&mut flash);
            let found = notes.newest().boots;
            assert!(
                found == written || torn.contains(&found),
                "seed {seed}: {found}, not {written} or {torn:?}"
            );
            if found > 0 {
                assert_eq!(notes.newest(), note(found));
            }
            let mut next = found + 1;
            notes.flash.cut_after(random.below(operations));
            while notes.write(note(next)).is_ok() {
                written = next;
                torn.clear();
                next += 1;
            }
            assert!(notes.flash.is_dark());
            torn.insert(next);
        }
    }
}
