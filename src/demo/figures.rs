//! What all devices together did since the last look.

use std::time::Duration;

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Devices that the gateway has.
    pub(super) connected: usize,
    /// Samples acked.
    pub(super) acked: u64,
    /// The wait for an ack that 99 of 100 stayed within; the devices' clock counts milliseconds.
    pub(super) p99: Option<Duration>,
}

/// The wait that 99 of 100 stayed within.
pub(super) fn p99(mut waits: Vec<Duration>) -> Option<Duration> {
    waits.sort_unstable();
    waits.get((waits.len() * 99).div_ceil(100).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_is_the_wait_that_99_of_100_stay_within() {
        assert_eq!(p99((1..=100).map(Duration::from_millis).collect()), Some(Duration::from_millis(99)));
        assert_eq!(p99(Vec::new()), None);
    }
}
