//! Latencies by size.

use std::time::Duration;

/// Buckets per power of two: a value is known to within 0.8 %.
const SUB_BUCKETS: u64 = 128;
/// Values from 2^40 ns (18 minutes) on share the last bucket.
const POWERS: u64 = 34;

/// A histogram of durations with constant relative error and constant size.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: vec![0; (SUB_BUCKETS * POWERS) as usize],
            total: 0,
            max: Duration::ZERO,
        }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: Duration) {
        let bucket = bucket(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX)).min(self.counts.len() - 1);
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// How many values were counted.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The largest value.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The value that the share `quantile` (0 to 1) of all values does not exceed; zero when there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(bucket)).min(self.max);
            }
        }
        self.max
    }
}

/// Below 256 every value has a bucket; above, each power of two has `SUB_BUCKETS`.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BUCKETS.ilog2() + 1);
    (u64::from(shift) * SUB_BUCKETS + (nanos >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / SUB_BUCKETS).saturating_sub(1);
    ((bucket - shift * SUB_BUCKETS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_bucket_within_one_percent() {
        for nanos in (0..3000).chain((10..40).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let bucket = bucket(nanos);
            let below = if bucket == 0 { None } else { Some(upper(bucket - 1)) };
            assert!(nanos <= upper(bucket) && below.is_none_or(|below| below < nanos), "{nanos}");
            assert!(upper(bucket) - nanos <= nanos / 100, "{nanos}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        histogram.record(Duration::from_secs(40_000));
        for (quantile, micros) in [(0.5, 500.0), (0.99, 991.0)] {
            let found = histogram.quantile(quantile).as_nanos() as f64 / 1000.0;
            assert!((found - micros).abs() / micros < 0.01, "{quantile}: {found}");
        }
        assert_eq!((histogram.len(), histogram.max()), (1001, Duration::from_secs(40_000)));
    }
}
