//! What arrived from one device, by its sequence numbers, in memory that grows with the gaps and not with the messages.

use std::collections::BTreeMap;

use serde::Serialize;

/// The arrivals of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    /// Runs of numbers seen: first to last, inclusive, never touching.
    runs: BTreeMap<u64, u64>,
    unique: u64,
    duplicates: u64,
    out_of_order: u64,
}

/// A summary of one device's arrivals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// The lowest sequence number that arrived.
    pub lowest: u64,
    /// The highest sequence number that arrived.
    pub highest: u64,
    /// Different sequence numbers that arrived.
    pub unique: u64,
    /// Arrivals of a number that had arrived before.
    pub duplicates: u64,
    /// First arrivals of a number below one that had arrived.
    pub out_of_order: u64,
    /// Numbers missing between `lowest` and `highest`.
    pub gaps: u64,
}

impl Sequence {
    /// Notes an arrival; false when the number had arrived before.
    pub(crate) fn arrive(&mut self, number: u64) -> bool {
        if self.contains(number) {
            self.duplicates += 1;
            return false;
        }
        self.unique += 1;
        if self.highest().is_some_and(|highest| number < highest) {
            self.out_of_order += 1;
        }
        let mut first = number;
        let mut last = number;
        if let Some(run) = number.checked_sub(1).and_then(|before| self.run_at(before)) {
            first = run.0;
            self.runs.remove(&run.0);
        }
        if let Some(after) = number.checked_add(1)
            && let Some(end) = self.runs.remove(&after)
        {
            last = end;
        }
        self.runs.insert(first, last);
        true
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.run_at(number).is_some()
    }

    pub(crate) fn report(&self) -> DeviceReport {
        let lowest = self.runs.keys().next().copied().unwrap_or_default();
        let highest = self.highest().unwrap_or_default();
        let span = if self.runs.is_empty() {
            0
        } else {
            (highest - lowest).saturating_add(1)
        };
        DeviceReport {
            lowest,
            highest,
            unique: self.unique,
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
            gaps: span.saturating_sub(self.unique),
        }
    }

    fn run_at(&self, number: u64) -> Option<(u64, u64)> {
        let (&first, &last) = self.runs.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }

    fn highest(&self) -> Option<u64> {
        self.runs.values().next_back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_duplicates_and_backward_first_arrivals_are_counted() {
        let mut sequence = Sequence::default();
        for number in [1, 2, 5, 4, 2, 9, u64::MAX, 0] {
            sequence.arrive(number);
        }
        let report = sequence.report();
        assert_eq!((report.unique, report.duplicates, report.out_of_order), (7, 1, 2));
        assert!(sequence.contains(4) && !sequence.contains(3));
        assert_eq!(sequence.runs.len(), 4, "0-2, 4-5, 9, max");
        sequence.arrive(3);
        assert_eq!(sequence.runs.len(), 3);
        assert_eq!(Sequence::default().report(), DeviceReport::default());
    }
}
