//! The state's pages: an append-only log whose newest good record is the state.
//!
//! The steps that keep the promise, whatever the moment of a power cut:
//!
//! 1. Only a page erased in this very run is written: a place that looks erased may be one where a cut met a write that had just begun,
//!    and hold what is written there only for a while. The first record of a run goes to the start of the next page, the oldest, which is
//!    erased first; the others behind it. The page with the newest record is never erased.
//! 2. It is read back. A record that does not read as it was written is left behind and written again further on.
//! 3. Only then its seal is written. A record without a seal may be one that a cut left half programmed, and may read well today and
//!    badly tomorrow.
//! 4. Opening takes the good record with the highest sequence number. If that one has no seal, or if anything lies behind it that may be
//!    a record half written, the state is written anew under a number two higher: whatever a cut left behind can then never outrank it.

use forebay_flash::{NorFlash, NorFlashError, NorFlashErrorKind, PAGE};

use crate::State;
use crate::state::{RECORD_BYTES, SEAL_AT};

const PER_PAGE: u32 = PAGE / RECORD_BYTES as u32;

/// The state in flash.
#[derive(Debug)]
pub struct StateLog<F> {
    flash: F,
    state: State,
    sequence: u32,
    /// The record that holds the state, counted in records from the region's start. `None` on a device fresh from the factory.
    current: Option<u32>,
    /// Where the next record goes, likewise; at a page's start the page is erased first.
    next: u32,
}

/// The state could not be written: what the flash said last, or nothing if records did not read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogError(pub Option<NorFlashErrorKind>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Garbage,
    Record { sequence: u32, state: State, sealed: bool },
}

impl<F: NorFlash> StateLog<F> {
    /// Opens the log in `flash`, a region of at least two pages that holds nothing else.
    ///
    /// What cannot be read is passed over. If a leftover of a power cut cannot be put right now, the next opening tries again.
    pub fn open(flash: F) -> StateLog<F> {
        let mut log = StateLog {
            flash,
            state: State::default(),
            sequence: 0,
            current: None,
            next: 0,
        };
        let mut newest_sealed = true;
        let mut garbage = false;
        for index in 0..log.records() {
            let (sequence, state, sealed) = match log.look(index) {
                Found::Record { sequence, state, sealed } => (sequence, state, sealed),
                Found::Garbage => {
                    garbage = true;
                    continue;
                }
                Found::Nothing => continue,
            };
            // Equal numbers stand for one state written twice, the second time because the first did not read back.
            if log.current.is_none() || sequence >= log.sequence {
                log.current = Some(index);
                log.sequence = sequence;
                log.state = state;
                newest_sealed = sealed;
            }
        }
        let unsure = match log.current {
            Some(current) => {
                log.next = (current / PER_PAGE + 1) * PER_PAGE % log.records();
                !newest_sealed || log.garbage_behind(current)
            }
            None => garbage,
        };
        if unsure {
            let (sequence, state) = (log.sequence, log.state);
            log.sequence = sequence.wrapping_add(1);
            if log.append(state).is_err() {
                log.sequence = sequence;
            }
        }
        log
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether no state was found: a device fresh from the factory.
    pub fn is_blank(&self) -> bool {
        self.current.is_none()
    }

    /// Makes `state` the state. When this returns it survives a power cut; if it fails, the state is the old or the new one.
    ///
    /// # Errors
    /// If no record holds in any page but the one with the present state: the flash fails or is worn out.
    pub fn append(&mut self, state: State) -> Result<(), LogError> {
        let sequence = self.sequence.wrapping_add(1);
        let record = state.encode(sequence);
        let mut failure = LogError(None);
        let mut erased = 0;
        loop {
            let index = self.next;
            if index.is_multiple_of(PER_PAGE) {
                let holds_state = self.current.is_some_and(|current| current / PER_PAGE == index / PER_PAGE);
                if holds_state || erased == self.records() / PER_PAGE {
                    return Err(failure);
                }
                erased += 1;
                let at = index * RECORD_BYTES as u32;
                if let Err(error) = self.flash.erase(at, at + PAGE) {
                    failure = LogError(Some(error.kind()));
                    self.next = (index + PER_PAGE) % self.records();
                    continue;
                }
            }
            self.next = (index + 1) % self.records();
            if self.look(index) != Found::Nothing {
                continue;
            }
            match self.write(index, &record) {
                Ok(()) => {
                    self.state = state;
                    self.sequence = sequence;
                    self.current = Some(index);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
    }

    fn write(&mut self, index: u32, record: &[u8; RECORD_BYTES]) -> Result<(), LogError> {
        let at = index * RECORD_BYTES as u32;
        let failed = |error: F::Error| LogError(Some(error.kind()));
        self.flash.write(at, &record[..SEAL_AT]).map_err(failed)?;
        let mut written = [0; SEAL_AT];
        self.flash.read(at, &mut written).map_err(failed)?;
        if written[..] != record[..SEAL_AT] {
            return Err(LogError(None));
        }
        self.flash.write(at + SEAL_AT as u32, &record[SEAL_AT..]).map_err(failed)
    }

    fn records(&self) -> u32 {
        (self.flash.capacity() / RECORD_BYTES) as u32
    }

    fn look(&mut self, index: u32) -> Found {
        let mut bytes = [0; RECORD_BYTES];
        let at = index * RECORD_BYTES as u32;
        // The seal may be the torn word: it is read apart, so that it cannot hide its record.
        if self.flash.read(at, &mut bytes[..SEAL_AT]).is_err() {
            return Found::Garbage;
        }
        let seal = self.flash.read(at + SEAL_AT as u32, &mut bytes[SEAL_AT..]);
        let sealed = seal.is_ok() && bytes[SEAL_AT..].iter().all(|byte| *byte == 0);
        match State::decode(&bytes) {
            Some((sequence, state)) => Found::Record { sequence, state, sealed },
            None if seal.is_ok() && bytes.iter().all(|byte| *byte == 0xff) => Found::Nothing,
            None => Found::Garbage,
        }
    }

    /// Whether something lies behind the newest record, around to the start of its page, that may one day read as a newer one.
    fn garbage_behind(&mut self, newest: u32) -> bool {
        let records = self.records();
        (1..records - newest % PER_PAGE).any(|step| match self.look((newest + step) % records) {
            Found::Nothing => false,
            Found::Garbage => true,
            // A torn one may read well now though it did not a moment ago.
            Found::Record { sequence, .. } => sequence > self.sequence,
        })
    }
}
