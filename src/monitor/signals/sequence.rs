//! A device's counter: what came twice, late, or not at all.

use serde::{Deserialize, Serialize};

/// Gaps remembered for each series, the newest: a number that comes late closes what it lies in.
const MAX_GAPS: usize = 16;
/// Without a boot id a counter that falls by more has restarted.
const FALL: u64 = 1024;
/// A counter that jumps further ahead counts something else from now on.
const JUMP: u64 = 1_000_000;
/// Numbers that 0 may follow: counters of 8, 16 and 32 bits.
const ENDS: [u64; 3] = [u8::MAX as u64, u16::MAX as u64, u32::MAX as u64];
/// Bytes of a boot id that are compared.
const MAX_BOOT: usize = 64;

/// What a counter has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sequence {
    boot: Option<String>,
    previous_boot: Option<String>,
    highest: Option<u64>,
    /// Numbers that never came, inclusive.
    missing: Vec<(u64, u64)>,
    /// Numbers may have come that are not known here: the next one ahead is taken as it comes.
    #[serde(skip)]
    unsure: bool,
}

/// What one number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The first one, or the one that was due.
    Due,
    /// These did not come.
    Gap(u64, u64),
    /// It came before.
    Duplicate,
    /// It belongs into a gap, or to the boot before: it was overtaken.
    Late,
    /// The device, or its counter, began anew.
    Restart,
}

impl Sequence {
    /// Numbers may have been missed here: no gap is told until the next one ahead has come.
    pub(super) const fn become_unsure(&mut self) {
        self.unsure = true;
    }

    /// Takes the next message's boot id and number.
    pub(super) fn take(&mut self, boot: Option<&str>, number: u64) -> Step {
        if let Some(boot) = boot.map(shortened) {
            if self.boot.is_some() && self.boot.as_deref() == Some(boot) {
            } else if self.boot.is_none() {
                self.boot = Some(boot.to_owned());
            } else if self.previous_boot.as_deref() == Some(boot) {
                return Step::Late;
            } else {
                self.previous_boot = self.boot.replace(boot.to_owned());
                return self.restart(number);
            }
        }
        let Some(highest) = self.highest.replace(number) else {
            return Step::Due;
        };
        let unsure = self.unsure;
        if number > highest {
            self.unsure = false;
            let skipped = number - highest - 1;
            return match skipped {
                0 => Step::Due,
                _ if unsure => Step::Due,
                JUMP.. => self.restart(number),
                _ => self.gap(highest + 1, number - 1),
            };
        }
        if number == 0 && ENDS.contains(&highest) {
            return Step::Due;
        }
        if boot.is_none() && highest - number > FALL {
            return self.restart(number);
        }
        self.highest = Some(highest);
        if self.fill(number) { Step::Late } else { Step::Duplicate }
    }

    fn restart(&mut self, number: u64) -> Step {
        self.highest = Some(number);
        self.missing.clear();
        self.unsure = false;
        Step::Restart
    }

    fn gap(&mut self, first: u64, last: u64) -> Step {
        if self.missing.len() == MAX_GAPS {
            self.missing.remove(0);
        }
        self.missing.push((first, last));
        Step::Gap(first, last)
    }

    /// Takes a number out of the gap that it lies in.
    fn fill(&mut self, number: u64) -> bool {
        let Some(at) = self.missing.iter().position(|(first, last)| (*first..=*last).contains(&number)) else {
            return false;
        };
        let (first, last) = self.missing.remove(at);
        if number < last {
            self.missing.insert(at, (number + 1, last));
        }
        if first < number {
            self.missing.insert(at, (first, number - 1));
        }
        self.missing.truncate(MAX_GAPS);
        true
    }

    /// The gaps that are open, oldest first, inclusive.
    pub(super) fn missing(&self) -> &[(u64, u64)] {
        &self.missing
    }
}

fn shortened(boot: &str) -> &str {
    let end = (0..=MAX_BOOT.min(boot.len())).rev().find(|at| boot.is_char_boundary(*at));
    &boot[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(sequence: &mut Sequence, numbers: impl IntoIterator<Item = u64>) -> Vec<Step> {
        numbers.into_iter().map(|number| sequence.take(None, number)).collect()
    }

    #[test]
    fn a_counter_in_order_says_nothing() {
        let mut sequence = Sequence::default();
        assert!(steps(&mut sequence, 41..200).iter().all(|step| *step == Step::Due));
        assert!(sequence.missing().is_empty());
    }

    #[test]
    fn a_gap_has_its_range_and_late_numbers_close_it() {
        let mut sequence = Sequence::default();
        steps(&mut sequence, 1..=100);
        assert_eq!(sequence.take(None, 118), Step::Gap(101, 117));
        assert_eq!(sequence.take(None, 105), Step::Late);
        assert_eq!(sequence.missing(), [(101, 104), (106, 117)]);
        assert_eq!(sequence.take(None, 105), Step::Duplicate, "it came late, and now a second time");
        steps(&mut sequence, (101..=104).chain(106..=117));
        assert!(sequence.missing().is_empty());
        assert_eq!(sequence.take(None, 119), Step::Due);
    }

    #[test]
    fn a_number_seen_before_is_a_duplicate() {
        let mut sequence = Sequence::default();
        steps(&mut sequence, 1..=10);
        assert_eq!(steps(&mut sequence, [10, 3, 11]), [Step::Duplicate, Step::Duplicate, Step::Due]);
    }

    #[test]
    fn a_new_boot_is_a_restart_once_and_stragglers_of_the_old_one_are_late() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(Some("a"), 500), Step::Due);
        assert_eq!(sequence.take(Some("b"), 1), Step::Restart);
        assert_eq!(sequence.take(Some("a"), 501), Step::Late);
        assert_eq!(sequence.take(Some("b"), 2), Step::Due);
        assert_eq!(sequence.take(Some("b"), 5), Step::Gap(3, 4));
    }

    #[test]
    fn with_a_boot_id_a_far_fall_is_a_duplicate_and_no_restart() {
        let mut sequence = Sequence::default();
        sequence.take(Some("a"), 10_000);
        assert_eq!(sequence.take(Some("a"), 1), Step::Duplicate);
    }

    #[test]
    fn without_a_boot_id_a_counter_that_falls_far_has_restarted() {
        let mut sequence = Sequence::default();
        assert_eq!(steps(&mut sequence, [5000, 0, 1]), [Step::Due, Step::Restart, Step::Due]);
    }

    #[test]
    fn counters_may_wrap() {
        for end in ENDS {
            let mut sequence = Sequence::default();
            assert!(steps(&mut sequence, [end - 1, end, 0, 1]).iter().all(|step| *step == Step::Due));
        }
    }

    #[test]
    fn who_may_have_missed_numbers_tells_no_gap_but_still_duplicates() {
        let mut sequence = Sequence::default();
        steps(&mut sequence, 1..=100);
        sequence.become_unsure();
        assert_eq!(steps(&mut sequence, [100, 129, 130]), [Step::Duplicate, Step::Due, Step::Due]);
        assert_eq!(sequence.take(None, 132), Step::Gap(131, 131));
    }

    #[test]
    fn gaps_and_boot_ids_are_bounded() {
        let mut sequence = Sequence::default();
        steps(&mut sequence, (0..1000).map(|number| number * 3));
        assert_eq!(sequence.missing().len(), MAX_GAPS);
        sequence.take(Some(&"é".repeat(1000)), 0);
        assert!(sequence.boot.unwrap().len() <= MAX_BOOT);
        assert_eq!(Sequence::default().take(None, u64::MAX), Step::Due);
    }
}
