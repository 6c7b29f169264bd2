//! Trace and span ids, derived from a record's id.
//!
//! The SHA-256 of the text `gateway/epoch/stream/offset`, which the cloud gets as `forebay-id`: bytes 0 to 15 are the trace, 16
//! to 23 the span `publish`, 24 to 31 the span `commit`. So whoever holds a message can find its trace:
//!
//! ```text
//! printf %s plant-7/0000000000000abc/telemetry/42 | sha256sum | head -c 32
//! ```

use std::io::Write as _;

use forebay_wal::{Epoch, Offset};
use opentelemetry::trace::{SpanId, TraceId};
use ring::digest::{Context, Digest, SHA256};

/// What sampling looks at: the last 7 bytes of the trace id, as W3C Trace Context level 2 has it.
const RANDOM_BITS: u32 = 56;

/// The ids of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordIds {
    pub(super) trace: TraceId,
    pub(super) publish: SpanId,
    pub(super) commit: SpanId,
    random: u64,
}

/// What the ids of a stream's records have in common, digested once: sampling asks for those of every record.
#[derive(Clone)]
pub(super) struct Prefix(Context);

impl std::fmt::Debug for Prefix {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Prefix").finish_non_exhaustive()
    }
}

impl Prefix {
    /// `gateway/epoch/stream`.
    pub(super) fn new(gateway: &str, epoch: Epoch, stream: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(format!("{gateway}/{epoch}/{stream}/").as_bytes());
        Self(context)
    }

    /// The ids of the record at this offset.
    pub(super) fn ids(&self, offset: Offset) -> RecordIds {
        let mut context = self.0.clone();
        let mut digits = [0; 20];
        let mut rest = &mut digits[..];
        // The largest number has twenty digits.
        let left = write!(rest, "{}", offset.0).map_or(0, |()| rest.len());
        context.update(&digits[..digits.len() - left]);
        RecordIds::from_digest(&context.finish())
    }
}

impl RecordIds {
    fn from_digest(digest: &Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        let part = |from: usize| {
            let mut part = [0; 8];
            part.copy_from_slice(&bytes[from..from + 8]);
            part
        };
        let mut trace = [0; 16];
        trace.copy_from_slice(&bytes[..16]);
        Self {
            trace: TraceId::from_bytes(trace),
            publish: SpanId::from_bytes(part(16)),
            commit: SpanId::from_bytes(part(24)),
            random: u64::from_be_bytes(part(8)) & ((1 << RANDOM_BITS) - 1),
        }
    }

    /// Whether a share of `sample`, 0 to 1, takes it: the same answer in every process, for ever.
    pub(super) fn is_sampled(&self, sample: f64) -> bool {
        // Both sides are exact enough: a share is given in percent.
        self.random as f64 >= (1.0 - sample) * (1u64 << RANDOM_BITS) as f64
    }
}

/// An id for a span that nobody refers to.
pub(super) fn random() -> SpanId {
    // Zero is no id. A system without randomness has long refused to start.
    SpanId::from_bytes(getrandom::u64().unwrap_or(1).max(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_sha256sum_gives() {
        let text = |ids: RecordIds| ids.trace.to_string() + &ids.publish.to_string() + &ids.commit.to_string();
        let prefix = Prefix::new("plant-7", Epoch(0xabc), "telemetry");
        assert_eq!(text(prefix.ids(Offset(42))), DIGEST);
        assert_eq!(text(prefix.ids(Offset(u64::MAX))), LAST_DIGEST);
        assert_ne!(prefix.ids(Offset(42)), prefix.ids(Offset(43)));
    }

    /// printf %s plant-7/0000000000000abc/telemetry/42 | sha256sum
    const DIGEST: &str = "32cf4f5c3cd5eabcb68fa6d7b26e44ea858aa494eb6684ce10a175373f467c3c";
    /// printf %s plant-7/0000000000000abc/telemetry/18446744073709551615 | sha256sum
    const LAST_DIGEST: &str = "239f7f368bb7aaf9714709b31f03e969e38f6691cdeb7827f01e81198ba66619";

    #[test]
    fn a_share_takes_that_share_and_a_larger_one_takes_it_too() {
        let prefix = Prefix::new("g", Epoch(1), "s");
        let ids: Vec<_> = (0..20_000).map(|offset| prefix.ids(Offset(offset))).collect();
        let taken = |sample| ids.iter().filter(|ids| ids.is_sampled(sample)).count();
        assert_eq!((taken(0.0), taken(1.0)), (0, ids.len()));
        assert!((150..250).contains(&taken(0.01)), "{}", taken(0.01));
        assert!(ids.iter().all(|ids| !ids.is_sampled(0.01) || ids.is_sampled(0.02)));
    }
}
