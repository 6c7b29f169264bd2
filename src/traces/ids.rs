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

use super::share::Numbers;

/// The ids of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordIds {
    pub(super) trace: TraceId,
    pub(super) publish: SpanId,
    pub(super) commit: SpanId,
}

/// What the ids of a stream's records have in common, digested once.
#[derive(Clone)]
pub(super) struct Prefix {
    context: Context,
    numbers: Numbers,
}

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
        let seed = u64::from_be_bytes(part(context.clone().finish().as_ref(), 0));
        Self {
            context,
            numbers: Numbers::new(seed),
        }
    }

    /// What decides which of the records are traced.
    pub(super) const fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The ids of the record at this offset.
    pub(super) fn ids(&self, offset: Offset) -> RecordIds {
        let mut context = self.context.clone();
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
        let bytes = digest.as_ref();
        Self {
            trace: TraceId::from_bytes(part(bytes, 0)),
            publish: SpanId::from_bytes(part(bytes, 16)),
            commit: SpanId::from_bytes(part(bytes, 24)),
        }
    }
}

/// So many bytes of a digest, which is long enough.
fn part<const LENGTH: usize>(digest: &[u8], from: usize) -> [u8; LENGTH] {
    let mut part = [0; LENGTH];
    part.copy_from_slice(&digest[from..from + LENGTH]);
    part
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
    fn a_streams_numbers_follow_from_what_its_ids_begin_with() {
        // printf %s plant-7/0000000000000abc/telemetry/ | sha256sum | head -c 16
        assert_eq!(
            Prefix::new("plant-7", Epoch(0xabc), "telemetry").numbers(),
            Numbers::new(0xae6e_5752_82e9_20d9)
        );
    }
}
