//! Listeners that cannot serve yet: their files or their address are not there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The listeners that cannot serve yet, and why.
#[derive(Debug, Default)]
pub(crate) struct ClosedListeners(Mutex<BTreeMap<SocketAddr, String>>);

impl ClosedListeners {
    pub(crate) fn list(&self) -> Vec<(SocketAddr, String)> {
        self.lock().iter().map(|(address, why)| (*address, why.clone())).collect()
    }

    pub(crate) fn note(&self, address: SocketAddr, why: &str) {
        self.lock().insert(address, why.to_owned());
    }

    pub(crate) fn opened(&self, address: SocketAddr) {
        self.lock().remove(&address);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
