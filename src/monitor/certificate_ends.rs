//! When the certificates that are used end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When each TLS listener's certificate ends, in seconds since 1970, as far as they are open. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateEnds(Arc<Mutex<BTreeMap<String, i64>>>);

impl CertificateEnds {
    /// By listener.
    pub(crate) fn list(&self) -> Vec<(String, i64)> {
        self.lock().iter().map(|(listener, end)| (listener.clone(), *end)).collect()
    }

    /// Notes the certificate that a listener uses from now on.
    pub(crate) fn note(&self, listener: &str, end: i64) {
        self.lock().insert(listener.to_owned(), end);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
