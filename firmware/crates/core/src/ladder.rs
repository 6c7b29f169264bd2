//! What is done when connecting fails, from the gentlest to the last.
//!
//! | rung | when | what |
//! |---|---|---|
//! | 1 | always | wait with full jitter, at most a minute, and try again; there is no limit of tries |
//! | 2 | every fourth failure in a row | reset the radio module and join again |
//! | 3 | the *module itself* has not answered for an hour and through eight resets | keep all samples in flash, note why, reboot |
//!
//! A gateway that is away, a network that is away, a certificate that is wrong: none of these is mended by a reboot, and
//! none causes one, however long it lasts. Nor does the hour begin anew with each boot's first failure: a device reboots by
//! this ladder at most once an hour.

use core::time::Duration;

use crate::clock::Uptime;
use crate::network::Lost;

/// Failures in a row between two resets of the module.
pub const FAILURES_PER_RESET: u32 = 4;
/// How long the module must have been silent before the device reboots.
pub const SILENCE_BEFORE_REBOOT: Duration = Duration::from_secs(3600);
/// Resets that the module must have ignored before the device reboots.
pub const RESETS_BEFORE_REBOOT: u32 = 8;

/// What to do beside waiting and trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Nothing.
    TryAgain,
    /// Reset the radio module first.
    ResetModule,
    /// Keep all samples and reboot.
    Reboot,
}

/// Counts failures and says what they call for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ladder {
    in_a_row: u32,
    /// Since when the module has failed at everything.
    silent_since: Option<Uptime>,
    resets_ignored: u32,
}

impl Ladder {
    /// A try has failed.
    pub fn failed(&mut self, lost: Lost, now: Uptime) -> Rung {
        self.in_a_row += 1;
        if lost == Lost::Module {
            self.silent_since.get_or_insert(now);
        } else {
            // The module answered, whatever it had to say.
            self.silent_since = None;
            self.resets_ignored = 0;
        }
        if !self.in_a_row.is_multiple_of(FAILURES_PER_RESET) {
            return Rung::TryAgain;
        }
        let silence = self.silent_since.map_or(Duration::ZERO, |since| now.since(since));
        if silence >= SILENCE_BEFORE_REBOOT && self.resets_ignored >= RESETS_BEFORE_REBOOT {
            return Rung::Reboot;
        }
        if self.silent_since.is_some() {
            self.resets_ignored += 1;
        }
        Rung::ResetModule
    }

    /// A connection stands.
    pub fn connected(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(number: u64) -> Uptime {
        Uptime::from_millis(number * 60_000)
    }

    #[test]
    fn a_gateway_that_is_away_for_a_year_causes_no_reboot() {
        for lost in Lost::ALL.into_iter().filter(|lost| *lost != Lost::Module) {
            let mut ladder = Ladder::default();
            for number in 1..=525_600 {
                let rung = ladder.failed(lost, minute(number));
                let expected = if number % 4 == 0 { Rung::ResetModule } else { Rung::TryAgain };
                assert_eq!(rung, expected, "{lost} {number}");
            }
        }
    }

    #[test]
    fn only_a_module_that_is_dead_for_an_hour_does() {
        let mut ladder = Ladder::default();
        let mut rungs = (1..).map(|number| (number, ladder.failed(Lost::Module, minute(number))));
        let (number, _) = rungs.find(|(_, rung)| *rung == Rung::Reboot).unwrap();
        assert_eq!(number, 64, "the first multiple of four that is an hour after the first");
        let mut ladder = Ladder::default();
        for number in 1..10_000 {
            let lost = if number % 50 == 0 { Lost::Unreachable } else { Lost::Module };
            assert_ne!(
                ladder.failed(lost, minute(number)),
                Rung::Reboot,
                "a module that answers once in a while"
            );
        }
    }
}
