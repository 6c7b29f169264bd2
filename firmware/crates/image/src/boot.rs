//! What the bootloader decides.

use forebay_flash::{NorFlash, ReadNorFlash, Region, map};

use crate::{Evidence, EvidenceKind, HEADER_BYTES, Header, Keys, Refusal, Slot, State, StateLog, TRIES, Target, Trial, verify};

/// What to jump into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where it is.
    pub slot: Slot,
    /// Its header, verified.
    pub header: Header,
    /// Whether this start is a try.
    pub on_trial: bool,
}

impl Start {
    /// The address of the image's vector table.
    pub fn vectors(&self) -> u32 {
        self.slot.address() + HEADER_BYTES as u32
    }
}

/// Neither slot holds an image that may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    /// What is wrong with slot A.
    pub a: Refusal,
    /// What is wrong with slot B.
    pub b: Refusal,
}

/// Chooses what runs, after verifying all of it, and remembers what that means.
///
/// 1. An image on trial whose tries are used up is given up. One with tries left is verified, its try is *counted in flash*, and it starts.
///    If the try cannot be counted it does not start.
/// 2. Else the confirmed image starts.
/// 3. If there is none, or it is damaged, the other one starts if it may: one that was not given up before one that was, then the higher
///    security counter, then the higher version. With nothing confirmed and two good images the better one is on trial.
///
/// # Errors
/// [`Halt`] if neither slot holds an image that may run.
pub fn boot<F: NorFlash>(flash: &mut F, target: &Target, keys: Keys<'_>) -> Result<Start, Halt> {
    let log = StateLog::open(Region::new(&mut *flash, map::STATE));
    let mut state = *log.state();
    let judge = |flash: &mut F, state: &State, slot| verify(flash, slot, target, keys, state);

    if let Some(trial) = state.trial
        && let Some(start) = try_trial(flash, &mut state, trial, &judge)
    {
        return Ok(start);
    }
    let judged = match state.confirmed {
        Some(slot) => match judge(flash, &state, slot) {
            Ok(header) => {
                keep(flash, &state);
                return Ok(Start {
                    slot,
                    header,
                    on_trial: false,
                });
            }
            Err(refusal) => {
                refuse(flash, &mut state, slot, refusal);
                [(slot, Err(refusal)), (slot.other(), judge(flash, &state, slot.other()))]
            }
        },
        None => Slot::ALL.map(|slot| (slot, judge(flash, &state, slot))),
    };
    choose(flash, state, judged)
}

fn try_trial<F: NorFlash>(
    flash: &mut F,
    state: &mut State,
    trial: Trial,
    judge: &impl Fn(&mut F, &State, Slot) -> Result<Header, Refusal>,
) -> Option<Start> {
    let slot = trial.slot;
    if trial.tries >= TRIES {
        let header = peek(flash, slot);
        state.trial = None;
        state.remember(Evidence::new(EvidenceKind::GivenUp, slot, header.as_ref()));
        return None;
    }
    match judge(flash, state, slot) {
        Ok(header) => {
            let counted = State {
                trial: Some(Trial {
                    slot,
                    tries: trial.tries + 1,
                }),
                ..*state
            };
            keep(flash, &counted).then_some(Start {
                slot,
                header,
                on_trial: true,
            })
        }
        Err(refusal) => {
            state.trial = None;
            refuse(flash, state, slot, refusal);
            None
        }
    }
}

fn choose<F: NorFlash>(flash: &mut F, mut state: State, judged: [(Slot, Result<Header, Refusal>); 2]) -> Result<Start, Halt> {
    if state.confirmed.is_none() {
        for (slot, result) in judged {
            if let Err(refusal) = result
                && refusal != Refusal::Empty
            {
                refuse(flash, &mut state, slot, refusal);
            }
        }
    }
    let evidence = state.evidence;
    let rank = |slot: Slot, header: &Header| {
        let failed = evidence.is_some_and(|evidence| evidence.slot == slot && evidence.gave_up(header));
        (!failed, header.security_counter, header.version)
    };
    let good = judged.map(|(slot, result)| result.ok().map(|header| (slot, header)));
    let [first, second] = good;
    let (slot, header) = match (first, second) {
        (Some(first), Some(second)) => {
            let (best, other) = if rank(second.0, &second.1) > rank(first.0, &first.1) {
                (second, first)
            } else {
                (first, second)
            };
            if rank(best.0, &best.1).0 && rank(other.0, &other.1).0 {
                state.trial = Some(Trial { slot: best.0, tries: 1 });
            }
            best
        }
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => {
            keep(flash, &state);
            return Err(halt(judged));
        }
    };
    let on_trial = state.trial.is_some();
    keep(flash, &state);
    Ok(Start { slot, header, on_trial })
}

fn halt(judged: [(Slot, Result<Header, Refusal>); 2]) -> Halt {
    let of = |wanted| {
        let refusal = judged.iter().find(|(slot, _)| *slot == wanted).and_then(|(_, result)| result.err());
        refusal.unwrap_or(Refusal::Empty)
    };
    Halt {
        a: of(Slot::A),
        b: of(Slot::B),
    }
}

fn refuse<F: ReadNorFlash>(flash: &mut F, state: &mut State, slot: Slot, refusal: Refusal) {
    let header = peek(flash, slot);
    state.remember(Evidence::new(EvidenceKind::RefusedAtBoot(refusal), slot, header.as_ref()));
}

fn peek<F: ReadNorFlash>(flash: &mut F, slot: Slot) -> Option<Header> {
    let mut bytes = [0; HEADER_BYTES];
    flash.read(slot.range().start, &mut bytes).ok()?;
    Header::decode(&bytes)
}

/// Writes the state if it has changed. Whether it now stands in flash.
fn keep<F: NorFlash>(flash: &mut F, state: &State) -> bool {
    let mut log = StateLog::open(Region::new(flash, map::STATE));
    (*log.state() == *state) || log.append(*state).is_ok()
}
