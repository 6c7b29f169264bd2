//! A NOR flash that obeys the physics of the STM32L4 and loses power when told to.
//!
//! * A word can be written only when it is erased, except with zeros; anything else is an error, as on the chip.
//! * A power cut tears the operation it meets: a word write (each is an operation of its own) or a page erase.
//! * A torn word holds its old value, its new value, a mixture, its new value but for a cell that reads differently each time, or reads
//!   as an ECC error. One that still looks erased is *weak*: what is written there later may not hold, or only until the power is off,
//!   until the page is erased again.
//! * A worn word takes a write without a complaint and does not hold it: see [`Sim::wear_out`].
//! * After the cut every operation fails until [`Sim::power_on`].
//!
//! Everything random comes from the seed given to [`Sim::new`].

extern crate std;

use std::vec;
use std::vec::Vec;

use crate::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, PAGE, ReadNorFlash, WORD, check_erase, check_read, check_write};

const WORD_BYTES: usize = WORD as usize;
const WORDS_PER_PAGE: usize = (PAGE / WORD) as usize;
const ERASED: [u8; WORD_BYTES] = [0xff; WORD_BYTES];
const BLANK: Word = Word {
    value: ERASED,
    condition: Condition::Erased,
};

/// The simulated flash.
#[derive(Clone, Debug)]
pub struct Sim {
    /// A page that was never written is not kept.
    pages: Vec<Option<Vec<Word>>>,
    erases: Vec<u32>,
    random: Random,
    operations: u64,
    cut_at: Option<u64>,
    dark: bool,
    /// Words that read well now and will not at the next start.
    fading: Vec<usize>,
    /// Of so many words one is worn out; none if 0.
    worn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    value: [u8; WORD_BYTES],
    condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// Erased and writable.
    Erased,
    /// Looks erased, may not hold what is written.
    Weak,
    /// Holds its value.
    Written,
    /// Each bit of the mask reads as anything.
    Unstable([u8; WORD_BYTES]),
    /// Reading fails.
    EccError,
}

/// What the simulated flash fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimError {
    /// The power is off.
    PowerCut,
    /// A torn word was read.
    Ecc,
    /// The word was not erased.
    NotErased,
    /// No flash would do it: not aligned, or beyond the end.
    Misused(NorFlashErrorKind),
}

impl NorFlashError for SimError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            SimError::Misused(kind) => *kind,
            _ => NorFlashErrorKind::Other,
        }
    }
}

impl Sim {
    /// An erased flash of `bytes`, a multiple of [`PAGE`].
    ///
    /// # Panics
    /// If `bytes` is no multiple of [`PAGE`].
    pub fn new(bytes: u32, seed: u64) -> Sim {
        assert!(bytes.is_multiple_of(PAGE));
        Sim {
            pages: vec![None; (bytes / PAGE) as usize],
            erases: vec![0; (bytes / PAGE) as usize],
            random: Random(seed),
            operations: 0,
            cut_at: None,
            dark: false,
            fading: Vec::new(),
            worn: 0,
        }
    }

    /// Tears the operation (a word's write, a page's erase) that comes after `operations` more.
    pub fn cut_after(&mut self, operations: u64) {
        self.cut_at = Some(self.operations + operations);
    }

    /// The operations done so far; the length of a run without a cut is the number of its cut points.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether the power is off.
    pub fn is_dark(&self) -> bool {
        self.dark
    }

    /// The power returns; no further cut is planned. What was written to weak words may be gone.
    pub fn power_on(&mut self) {
        self.dark = false;
        self.cut_at = None;
        for index in std::mem::take(&mut self.fading) {
            let value = self.word(index).value;
            // Written with zeros or erased since: it holds.
            if value != ERASED && value != [0; WORD_BYTES] {
                *self.word(index) = self.lost(value);
            }
        }
    }

    /// Wears out one of `one_in` words, always the same ones: a write to it reports success, and some of its cells stay as they were.
    ///
    /// # Panics
    /// If `one_in` is 0.
    pub fn wear_out(&mut self, one_in: u64) {
        assert!(one_in > 0);
        self.worn = one_in;
    }

    fn is_worn(&self, index: usize) -> bool {
        self.worn > 0 && Random(index as u64).below(self.worn) == 0
    }

    /// What is left of a value that did not hold.
    fn lost(&mut self, value: [u8; WORD_BYTES]) -> Word {
        if self.random.below(2) == 0 {
            Word {
                value: mix(ERASED, value, self.random.mask()),
                condition: Condition::Written,
            }
        } else {
            Word {
                value,
                condition: Condition::EccError,
            }
        }
    }

    /// How often the most worn page was erased.
    pub fn most_erases(&self) -> u32 {
        self.erases.iter().copied().max().unwrap_or(0)
    }

    /// Flips a bit, as decay or an attacker would, behind the back of every check.
    pub fn flip_bit(&mut self, offset: u32, bit: u8) {
        let word = self.word(offset as usize / WORD_BYTES);
        word.value[(offset % WORD) as usize] ^= 1 << bit;
        word.condition = Condition::Written;
    }

    /// The same flash with other randomness to come.
    pub fn reseed(&mut self, seed: u64) {
        self.random = Random(seed);
    }

    fn word(&mut self, index: usize) -> &mut Word {
        let page = self.pages[index / WORDS_PER_PAGE].get_or_insert_with(|| vec![BLANK; WORDS_PER_PAGE]);
        &mut page[index % WORDS_PER_PAGE]
    }

    fn begin(&mut self) -> Result<bool, SimError> {
        if self.dark {
            return Err(SimError::PowerCut);
        }
        let torn = self.cut_at == Some(self.operations);
        self.operations += 1;
        self.dark = torn;
        Ok(torn)
    }

    fn write_word(&mut self, index: usize, new: [u8; WORD_BYTES]) -> Result<(), SimError> {
        let torn = self.begin()?;
        let old = *self.word(index);
        let zero = new == [0; WORD_BYTES];
        if !zero && !matches!(old.condition, Condition::Erased | Condition::Weak) {
            return Err(SimError::NotErased);
        }
        if torn {
            *self.word(index) = self.torn(old.value, new);
            return Err(SimError::PowerCut);
        }
        let written = Word {
            value: new,
            condition: Condition::Written,
        };
        let is_weak = !zero && old.condition == Condition::Weak;
        *self.word(index) = if self.is_worn(index) {
            Word {
                value: mix(old.value, new, self.random.mask()),
                condition: Condition::Written,
            }
        } else if is_weak {
            match self.random.below(3) {
                0 => written,
                1 => {
                    self.fading.push(index);
                    written
                }
                _ => self.lost(new),
            }
        } else {
            written
        };
        Ok(())
    }

    fn erase_page(&mut self, page: usize) -> Result<(), SimError> {
        let torn = self.begin()?;
        self.erases[page] += 1;
        // A torn erase does one thing to the whole page or something else to each word of it, or has only begun and met a few of them.
        let whole = self.random.below(4);
        if !torn {
            self.pages[page] = None;
            return Ok(());
        }
        for index in page * WORDS_PER_PAGE..(page + 1) * WORDS_PER_PAGE {
            let old = *self.word(index);
            *self.word(index) = match whole {
                0 => old,
                1 => Word {
                    value: ERASED,
                    condition: Condition::Weak,
                },
                2 if self.random.below(8) > 0 => old,
                _ => self.torn(old.value, ERASED),
            };
        }
        Err(SimError::PowerCut)
    }

    fn torn(&mut self, old: [u8; WORD_BYTES], new: [u8; WORD_BYTES]) -> Word {
        let mixture = mix(old, new, self.random.mask());
        // Nearly programmed: one cell at the threshold reads as either. The most treacherous tear, as it may pass for whole.
        let bit = self.random.below(u64::from(WORD) * 8) as usize;
        let mut cell = [0; WORD_BYTES];
        cell[bit / 8] = 1 << (bit % 8);
        let threshold = mix([0; WORD_BYTES], xor(old, new), cell);
        let (value, condition) = match self.random.below(5) {
            0 => (old, Condition::Written),
            1 => (new, Condition::Written),
            2 => (mixture, Condition::Written),
            3 => (new, Condition::Unstable(threshold)),
            _ => (mixture, Condition::EccError),
        };
        let condition = if value == ERASED && condition == Condition::Written {
            Condition::Weak
        } else {
            condition
        };
        Word { value, condition }
    }
}

impl ErrorType for Sim {
    type Error = SimError;
}

impl ReadNorFlash for Sim {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimError> {
        if self.dark {
            return Err(SimError::PowerCut);
        }
        check_read(self, offset, bytes.len()).map_err(SimError::Misused)?;
        let mut at = offset as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = at % WORD_BYTES;
            let length = rest.len().min(WORD_BYTES - within);
            let page = &self.pages[at / PAGE as usize];
            let word = page.as_ref().map_or(BLANK, |page| page[at / WORD_BYTES % WORDS_PER_PAGE]);
            let value = match word.condition {
                Condition::EccError => return Err(SimError::Ecc),
                Condition::Unstable(mask) => mix(word.value, xor(word.value, mask), self.random.mask()),
                _ => word.value,
            };
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&value[within..within + length]);
            rest = later;
            at += length;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.pages.len() * PAGE as usize
    }
}

impl NorFlash for Sim {
    const WRITE_SIZE: usize = WORD_BYTES;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), SimError> {
        check_erase(self, from, to).map_err(SimError::Misused)?;
        (from / PAGE..to / PAGE).try_for_each(|page| self.erase_page(page as usize))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimError> {
        check_write(self, offset, bytes.len()).map_err(SimError::Misused)?;
        let first = (offset / WORD) as usize;
        bytes.chunks_exact(WORD_BYTES).enumerate().try_for_each(|(index, chunk)| {
            let mut word = [0; WORD_BYTES];
            word.copy_from_slice(chunk);
            self.write_word(first + index, word)
        })
    }
}

/// A small generator (SplitMix64) for tests: the same seed, the same life.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn mask(&mut self) -> [u8; WORD_BYTES] {
        self.draw().to_le_bytes()
    }
}

fn mix(zero: [u8; WORD_BYTES], one: [u8; WORD_BYTES], mask: [u8; WORD_BYTES]) -> [u8; WORD_BYTES] {
    core::array::from_fn(|index| (zero[index] & !mask[index]) | (one[index] & mask[index]))
}

fn xor(left: [u8; WORD_BYTES], right: [u8; WORD_BYTES]) -> [u8; WORD_BYTES] {
    core::array::from_fn(|index| left[index] ^ right[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_written_once_per_erase_except_with_zeros() {
        let mut flash = Sim::new(PAGE, 1);
        flash.write(8, &[0x55; 8]).unwrap();
        assert_eq!(flash.write(8, &[0x55; 8]), Err(SimError::NotErased));
        flash.write(8, &[0; 8]).unwrap();
        let mut read = [1; 4];
        flash.read(10, &mut read).unwrap();
        assert_eq!(read, [0; 4]);
        flash.erase(0, PAGE).unwrap();
        flash.write(8, &[0x55; 8]).unwrap();
    }

    #[test]
    fn a_cut_tears_one_operation_and_stops_all_later_ones() {
        for seed in 0..100 {
            let mut flash = Sim::new(PAGE, seed);
            flash.cut_after(1);
            assert_eq!(flash.write(0, &[0; 24]), Err(SimError::PowerCut));
            assert_eq!(flash.read(0, &mut [0]), Err(SimError::PowerCut));
            flash.power_on();
            let (mut before, mut after) = ([1; 8], [0; 8]);
            flash.read(0, &mut before).unwrap();
            flash.read(16, &mut after).unwrap();
            assert_eq!((before, after), ([0; 8], ERASED), "seed {seed}");
        }
    }

    #[test]
    fn the_edges_are_guarded() {
        let mut flash = Sim::new(PAGE, 1);
        assert_eq!(flash.write(4, &[0; 8]), Err(SimError::Misused(NorFlashErrorKind::NotAligned)));
        assert_eq!(
            flash.write(PAGE - 8, &[0; 16]),
            Err(SimError::Misused(NorFlashErrorKind::OutOfBounds))
        );
        assert_eq!(flash.erase(0, 8), Err(SimError::Misused(NorFlashErrorKind::NotAligned)));
        assert_eq!(flash.erase(PAGE, 2 * PAGE), Err(SimError::Misused(NorFlashErrorKind::OutOfBounds)));
    }
}
