//! A set of offsets as ranges.

/// Sorted ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    /// Adds `first..end`.
    pub(crate) fn insert(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let from = self.0.partition_point(|range| range.1 < first);
        let until = self.0.partition_point(|range| range.0 <= end);
        let touched = self.0.drain(from..until);
        let (first, end) = touched.fold((first, end), |all, range| (all.0.min(range.0), all.1.max(range.1)));
        self.0.insert(from, (first, end));
    }

    /// Forgets everything below `floor`.
    pub(crate) fn forget_below(&mut self, floor: u64) {
        self.0.retain(|range| range.1 > floor);
        if let Some(first) = self.0.first_mut() {
            first.0 = first.0.max(floor);
        }
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        let after = self.0.partition_point(|range| range.0 <= offset);
        after > 0 && offset < self.0[after - 1].1
    }

    /// How many of `first..end` are in the set.
    pub(crate) fn overlap(&self, first: u64, end: u64) -> u64 {
        if first >= end {
            return 0;
        }
        let from = self.0.partition_point(|range| range.1 <= first);
        self.0[from..]
            .iter()
            .take_while(|range| range.0 < end)
            .map(|range| range.1.min(end) - range.0.max(first))
            .sum()
    }

    /// Where the range that begins at or below `offset` ends; `offset` if there is none.
    pub(crate) fn end_of(&self, offset: u64) -> u64 {
        let after = self.0.partition_point(|range| range.0 <= offset);
        after.checked_sub(1).map_or(offset, |at| self.0[at].1.max(offset))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::RangeSet;

    proptest! {
        #[test]
        fn is_the_set_it_stands_for(steps in proptest::collection::vec((0_u64..60, 0_u64..12), 0..40), floor in 0_u64..60) {
            let (mut ranges, mut model) = (RangeSet::default(), BTreeSet::new());
            for (first, len) in steps {
                ranges.insert(first, first + len);
                model.extend(first..first + len);
            }
            ranges.forget_below(floor);
            model.retain(|offset| *offset >= floor);
            for offset in 0..80 {
                prop_assert_eq!(ranges.contains(offset), model.contains(&offset));
                prop_assert_eq!(ranges.overlap(offset, 80), model.range(offset..80).count() as u64);
            }
            let apart = ranges.iter().collect::<Vec<_>>();
            prop_assert!(apart.is_sorted_by(|one, next| one.1 < next.0));
        }
    }
}
