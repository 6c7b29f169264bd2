//! What the running application knows of itself and may ask for.

use forebay_flash::{NorFlash, Region, map};

use crate::{HEADER_BYTES, Header, Keys, LogError, Refusal, Slot, State, StateLog, Target, Version, verify_header};

/// The application's hand on slots and state. `F` is the whole flash, cheap to clone: see [`forebay_flash::Shared`].
#[derive(Debug)]
pub struct Control<'k, F> {
    pub(crate) flash: F,
    pub(crate) log: StateLog<Region<F>>,
    pub(crate) slot: Slot,
    pub(crate) target: Target,
    pub(crate) keys: Keys<'k>,
    header: Header,
}

/// How the running image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has proved itself.
    Confirmed,
    /// It is being tried and must confirm itself.
    Trial {
        /// This start's number, from 1.
        tries: u8,
    },
    /// It was started without a trial because there was nothing better: factory-fresh, or the confirmed image is damaged. It
    /// confirms itself like one on trial.
    Unconfirmed,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// The state could not be written; what was asked for may or may not have happened.
    State(LogError),
    /// The header of the running image cannot be believed: it changed since the start.
    OwnHeader(Refusal),
}

impl<'k, F: NorFlash + Clone> Control<'k, F> {
    /// Takes hold for the image running in `slot`.
    ///
    /// # Errors
    /// [`ControlError::OwnHeader`] if its header, which the bootloader believed, no longer holds.
    pub fn open(mut flash: F, slot: Slot, target: Target, keys: Keys<'k>) -> Result<Self, ControlError> {
        let log = StateLog::open(Region::new(flash.clone(), map::STATE));
        let mut bytes = [0; HEADER_BYTES];
        let read = flash.read(slot.range().start, &mut bytes);
        read.map_err(|_| ControlError::OwnHeader(Refusal::Unreadable))?;
        let header = verify_header(&bytes, slot, &target, keys, log.state()).map_err(ControlError::OwnHeader)?;
        Ok(Control {
            flash,
            log,
            slot,
            target,
            keys,
            header,
        })
    }

    /// The slot it runs in.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.header.version
    }

    /// What bootloader and updater remember; its evidence is for reporting.
    pub fn state(&self) -> &State {
        self.log.state()
    }

    /// How the running image stands.
    pub fn status(&self) -> Status {
        let state = self.log.state();
        match state.trial {
            Some(trial) if trial.slot == self.slot => Status::Trial { tries: trial.tries },
            _ if state.confirmed == Some(self.slot) => Status::Confirmed,
            _ => Status::Unconfirmed,
        }
    }

    /// The self-test has passed: this image is the one to go back to from now on, and the floors rise to what it demands.
    /// Asking again costs nothing.
    ///
    /// # Errors
    /// If the state could not be written: ask again.
    pub fn confirm(&mut self) -> Result<(), ControlError> {
        if self.status() == Status::Confirmed {
            return Ok(());
        }
        let mut state = *self.log.state();
        state.confirm(self.slot, &self.header);
        self.log.append(state).map_err(ControlError::State)
    }

    /// The evidence has reached somebody who can act: it need not be reported again unless there is new one.
    ///
    /// # Errors
    /// If the state could not be written: it will be reported again.
    pub fn evidence_reported(&mut self) -> Result<(), ControlError> {
        let mut state = *self.log.state();
        match &mut state.evidence {
            Some(evidence) if !evidence.reported => evidence.reported = true,
            _ => return Ok(()),
        }
        self.log.append(state).map_err(ControlError::State)
    }
}
