//! Connections that have not sent CONNECT yet: so many may wait, and when more come those go that have been
//! silent for a second.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Nobody is sent away before this: an honest handshake ends sooner.
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// How often a full all is looked at again.
const RETRY: Duration = Duration::from_millis(50);

/// The all in which they wait, shared by all listeners.
#[derive(Debug)]
pub(crate) struct PendingConnects {
    permits: Arc<Semaphore>,
    connects: Mutex<VecDeque<(Instant, CancellationToken)>>,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingConnect {
    /// Cancelled when the place is needed for another.
    pub(crate) evicted: CancellationToken,
    all: Arc<PendingConnects>,
    _permit: OwnedSemaphorePermit,
}

impl PendingConnects {
    pub(crate) fn new(connects: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(connects)),
            connects: Mutex::default(),
        })
    }

    /// A place; if there is none, that of a peer that has been silent for a second.
    pub(crate) async fn admit(self: &Arc<Self>) -> Option<PendingConnect> {
        let permit = loop {
            match timeout(RETRY, Arc::clone(&self.permits).acquire_owned()).await {
                Ok(permit) => break permit.ok()?,
                Err(_) => self.evict(),
            }
        };
        let evicted = CancellationToken::new();
        self.lock().push_back((Instant::now(), evicted.clone()));
        Some(PendingConnect {
            evicted,
            all: Arc::clone(self),
            _permit: permit,
        })
    }

    fn evict(&self) {
        let mut connects = self.lock();
        // All of them: in a flood those behind would otherwise wait for each one by itself.
        while let Some((_, evicted)) = connects.pop_front_if(|(since, _)| since.elapsed() >= MIN_SILENCE) {
            evicted.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, CancellationToken)>> {
        self.connects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingConnect {
    fn drop(&mut self) {
        // Marks it as left: an evicted one is off the list already.
        self.evicted.cancel();
        self.all.lock().retain(|(_, evicted)| !evicted.is_cancelled());
    }
}
