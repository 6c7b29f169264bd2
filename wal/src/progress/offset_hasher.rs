//! Hash tables whose keys count up.

use std::hash::{BuildHasher, Hasher};

/// Places neighbouring numbers next to each other in a hash table, so that whoever goes through them in order finds the next
/// one in the cache. For keys that the log hands out itself: nobody can choose them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OffsetHasher;

/// The number itself, and above it bits by which the table tells apart what shares a place.
#[derive(Debug, Default)]
pub(crate) struct Number(u64);

impl BuildHasher for OffsetHasher {
    type Hasher = Number;

    fn build_hasher(&self) -> Number {
        Number::default()
    }
}

impl Hasher for Number {
    fn write_u64(&mut self, number: u64) {
        const PLACE: u64 = (1 << 57) - 1;
        self.0 = (number & PLACE) | (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) & !PLACE);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
