//! Random numbers that are always the same, because the emulator has no generator. Never for a device: whoever knows this file
//! knows its keys. The real board's linker script refuses any image that holds [`FOREBAY_FIXED_SEED`].
#![no_std]

/// Marks an image that is not fit for a device.
#[used]
#[unsafe(no_mangle)]
pub static FOREBAY_FIXED_SEED: u8 = 1;

/// A generator (SplitMix64) that starts from a known seed.
#[derive(Debug)]
pub struct FixedSeed(u64);

impl FixedSeed {
    /// The generator, at its beginning moved by `salt` so that two runs of one test differ.
    pub fn new(salt: u64) -> FixedSeed {
        FixedSeed(u64::from(FOREBAY_FIXED_SEED) ^ salt)
    }

    /// Fills `into`.
    pub fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}
