//! Writing a new image into the slot that is not running.
//!
//! 1. The header is verified before anything is erased.
//! 2. A trial that was asked for earlier is called off, then the old header's page is erased: nothing in the slot can be mistaken for
//!    an image from here on.
//! 3. The image is written as it arrives, each page erased when it is reached.
//! 4. The header is written last, the whole slot is verified as the bootloader will verify it, and only then the trial is asked for.
//!
//! A power cut before step 4 is complete leaves the running image confirmed and the update to be begun again.

use forebay_flash::{NorFlash, NorFlashError, NorFlashErrorKind, PAGE, WORD};

use crate::{Control, Evidence, EvidenceKind, HEADER_BYTES, Header, LogError, Refusal, Slot, State, Status, Trial, verify, verify_header};

const WORD_BYTES: usize = WORD as usize;

/// An update under way.
#[derive(Debug)]
pub struct Update<'c, 'k, F> {
    control: &'c mut Control<'k, F>,
    header: Header,
    encoded: [u8; HEADER_BYTES],
    written: u32,
    word: [u8; WORD_BYTES],
    filled: usize,
}

/// Why an update cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// The image may not run here. Evidence was left.
    Refused(Refusal),
    /// The running image is not confirmed: the other slot is the one to go back to.
    NotConfirmed,
    /// More bytes came than the header says.
    TooLong,
    /// Fewer bytes came than the header says.
    TooShort,
    /// The slot could not be written.
    Flash(NorFlashErrorKind),
    /// The state could not be written.
    State(LogError),
}

impl<'k, F: NorFlash + Clone> Control<'k, F> {
    /// Begins an update of the other slot with the image whose header is given.
    ///
    /// # Errors
    /// If the running image is not confirmed, or the new one may not run in the other slot or was just tried there and given up.
    pub fn update(&mut self, header: &[u8; HEADER_BYTES]) -> Result<Update<'_, 'k, F>, UpdateError> {
        if self.status() != Status::Confirmed {
            return Err(UpdateError::NotConfirmed);
        }
        let slot = self.slot.other();
        let verified = match verify_header(header, slot, &self.target, self.keys, self.log.state()) {
            Ok(verified) => verified,
            Err(refusal) => return Err(self.refuse(slot, refusal, Header::decode(header).as_ref())),
        };
        let state = *self.log.state();
        if state.evidence.is_some_and(|evidence| evidence.gave_up(&verified)) {
            // The evidence stays what it is, so that the image is known the next time as well.
            return Err(UpdateError::Refused(Refusal::GivenUp));
        }
        if state.trial.is_some() {
            self.log.append(State { trial: None, ..state }).map_err(UpdateError::State)?;
        }
        let start = slot.range().start;
        self.flash.erase(start, start + PAGE).map_err(flash_error)?;
        Ok(Update {
            control: self,
            header: verified,
            encoded: *header,
            written: 0,
            word: [0; WORD_BYTES],
            filled: 0,
        })
    }

    fn refuse(&mut self, slot: Slot, refusal: Refusal, header: Option<&Header>) -> UpdateError {
        let mut state = *self.log.state();
        state.remember(Evidence::new(EvidenceKind::RefusedAsUpdate(refusal), slot, header));
        match self.log.append(state) {
            Ok(()) => UpdateError::Refused(refusal),
            Err(error) => UpdateError::State(error),
        }
    }
}

impl<F: NorFlash + Clone> Update<'_, '_, F> {
    /// Bytes of the image still to come.
    pub fn remaining(&self) -> u32 {
        self.header.size - self.written - self.filled as u32
    }

    /// Takes the next bytes of the image. Erases at most one page for each 2 KiB; a caller with a watchdog passes less than that at once.
    ///
    /// # Errors
    /// If there are too many or the flash fails.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), UpdateError> {
        if bytes.len() > self.remaining() as usize {
            return Err(UpdateError::TooLong);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WORD_BYTES - self.filled));
            self.word[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == WORD_BYTES {
                self.write_word()?;
            }
        }
        Ok(())
    }

    fn write_word(&mut self) -> Result<(), UpdateError> {
        let at = self.control.slot.other().range().start + HEADER_BYTES as u32 + self.written;
        if at.is_multiple_of(PAGE) {
            self.control.flash.erase(at, at + PAGE).map_err(flash_error)?;
        }
        self.control.flash.write(at, &self.word).map_err(flash_error)?;
        self.written += WORD;
        self.filled = 0;
        Ok(())
    }

    /// Completes the update: when this returns the next start tries the new image.
    ///
    /// # Errors
    /// If bytes are missing, the image is not the one that was signed, or the flash fails.
    pub fn finish(self) -> Result<(), UpdateError> {
        if self.remaining() > 0 {
            return Err(UpdateError::TooShort);
        }
        let Update { control, encoded, .. } = self;
        let slot = control.slot.other();
        control.flash.write(slot.range().start, &encoded).map_err(flash_error)?;
        let state = *control.log.state();
        if let Err(refusal) = verify(&mut control.flash, slot, &control.target, control.keys, &state) {
            return Err(control.refuse(slot, refusal, Header::decode(&encoded).as_ref()));
        }
        let trial = Some(Trial { slot, tries: 0 });
        control.log.append(State { trial, ..state }).map_err(UpdateError::State)
    }
}

fn flash_error<E: NorFlashError>(error: E) -> UpdateError {
    UpdateError::Flash(error.kind())
}
