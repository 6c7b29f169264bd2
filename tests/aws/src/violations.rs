//! The second verdict of a run: what the client did that AWS forbids, even if it recovered.

use std::sync::Mutex;

use crate::lock;

/// Texts kept; more are only counted.
const KEPT: usize = 1000;

/// A bounded log of texts with an exact count.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    inner: Mutex<(u64, Vec<String>)>,
}

impl Violations {
    pub(crate) fn add(&self, text: String) {
        tracing::warn!(violation = %text, "the client broke a rule");
        let mut inner = lock(&self.inner);
        inner.0 += 1;
        if inner.1.len() < KEPT {
            inner.1.push(text);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        lock(&self.inner).0
    }

    pub(crate) fn list(&self) -> Vec<String> {
        lock(&self.inner).1.clone()
    }
}
