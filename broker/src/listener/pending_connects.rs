//! Connections that have not sent CONNECT yet. Their number is bounded (`Limits::max_pending_handshakes`); at the bound,
//! those that have been silent for a second are closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// A connection is not closed before it has been silent for this long: a real handshake takes less.
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// How often a new connection tries again while all permits are taken.
const RETRY: Duration = Duration::from_millis(50);

/// All of them, shared by the listeners.
#[derive(Debug)]
pub(crate) struct PendingConnects {
    permits: Arc<Semaphore>,
    connects: Mutex<VecDeque<(Instant, CancellationToken)>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingConnect {
    /// Cancelled when its permit is needed for another connection.
    pub(crate) evicted: CancellationToken,
    all: Arc<PendingConnects>,
    _permit: OwnedSemaphorePermit,
}

impl PendingConnects {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(limit)),
            connects: Mutex::default(),
        })
    }

    /// Waits for a permit; while there is none, it closes connections that have been silent for a second.
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
        // All of them at once: in a flood, new connections would otherwise wait for one eviction each.
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
        // Marks this one as ended; an evicted one has left the list already.
        self.evicted.cancel();
        self.all.lock().retain(|(_, evicted)| !evicted.is_cancelled());
    }
}
