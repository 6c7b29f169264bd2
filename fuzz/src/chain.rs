//! Certificate chains: the peer's own certificate, then others, each behind its length in two bytes.

use forebay_chain::{MAX_BYTES, MAX_INTERMEDIATES, bounded};

/// 1. Nothing panics.
/// 2. What is let through was sent, once, and is within the limits.
/// 3. The order in which certificates were sent makes no difference.
pub(crate) fn target(data: &[u8]) {
    let mut sent = Vec::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (certificate, after) = after.split_at(length);
        sent.push(certificate);
        rest = after;
    }
    let Some((leaf, others)) = sent.split_first() else { return };
    let reversed: Vec<_> = others.iter().rev().copied().collect();
    let (one, other) = (bounded(leaf, others), bounded(leaf, &reversed));
    assert_eq!(one.is_ok(), other.is_ok(), "one order is refused and another is not");
    let (Ok(mut one), Ok(mut other)) = (one, other) else { return };
    assert!(one.len() <= MAX_INTERMEDIATES);
    assert!(leaf.len() + one.iter().map(|certificate| certificate.len()).sum::<usize>() <= MAX_BYTES);
    assert!(one.iter().all(|certificate| others.contains(certificate)));
    one.sort_unstable();
    other.sort_unstable();
    assert_eq!(one, other, "one order lets others through than another");
    one.dedup();
    assert_eq!(one.len(), other.len(), "a certificate is let through twice");
}
