//! Which records are traced.
//!
//! Every publish asks, so the answer costs two multiplications and no digest: the record at an offset is traced if the
//! number at that offset of its stream's sequence lies below the share. The sequence is SplitMix64 (Steele, Lea, Flood: Fast
//! splittable pseudorandom number generators, 2014), seeded by the first eight bytes of the SHA-256 of
//! `gateway/epoch/stream/`, which gives each number by its place. Nothing is drawn and nothing stored: every process gives the
//! same answer, for ever, and a larger share takes what a smaller one takes.

use forebay_wal::Offset;

/// Bits that are compared: all that a double holds, so that 0 % is none and 100 % is all.
const BITS: u32 = 53;
/// By how much the state of SplitMix64 grows with each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A share of all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// A number below is taken.
    below: u64,
}

/// A stream's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    seed: u64,
}

impl Share {
    /// `share` is 0 to 1.
    pub(super) fn new(share: f64) -> Self {
        Self {
            below: (share * (1u64 << BITS) as f64) as u64,
        }
    }

    /// Whether it takes the record at this offset.
    pub(super) const fn takes(self, numbers: Numbers, offset: Offset) -> bool {
        numbers.at(offset) >> (u64::BITS - BITS) < self.below
    }
}

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The first number is at 0.
    const fn at(self, offset: Offset) -> u64 {
        let state = self.seed.wrapping_add(offset.0.wrapping_add(1).wrapping_mul(STEP));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u64 = 100_000;

    fn taken(share: f64, seed: u64) -> Vec<u64> {
        let (share, numbers) = (Share::new(share), Numbers::new(seed));
        (0..COUNT).filter(|offset| share.takes(numbers, Offset(*offset))).collect()
    }

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // The first three of the reference implementation seeded with 1234567.
        let numbers = Numbers::new(1_234_567);
        let first = [0, 1, 2].map(|offset| numbers.at(Offset(offset)));
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_share_takes_that_share_and_a_larger_one_takes_it_too() {
        for seed in [0, 1, u64::MAX] {
            assert_eq!((taken(0.0, seed).len(), taken(1.0, seed).len()), (0, COUNT as usize));
            let (small, large) = (taken(0.01, seed), taken(0.02, seed));
            // Five standard deviations: 1,000 +- 157.
            assert!((843..1157).contains(&small.len()), "{}", small.len());
            assert!(small.iter().all(|offset| large.contains(offset)));
        }
    }

    #[test]
    fn offsets_side_by_side_are_taken_independently() {
        let taken = taken(0.1, 7);
        let pairs = taken.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        // One in a hundred, five standard deviations: 1,000 +- 157.
        assert!((843..1157).contains(&pairs), "{pairs}");
    }

    #[test]
    fn two_streams_have_nothing_to_do_with_each_other() {
        let (one, other) = (taken(0.1, 7), taken(0.1, 8));
        let both = one.iter().filter(|offset| other.binary_search(offset).is_ok()).count();
        assert!((843..1157).contains(&both), "{both}");
    }
}
