//! Connections that have not sent CONNECT yet: so many may wait, and when more come those go that have been
//! silent for a second.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Nobody is sent away before this: an honest handshake ends sooner.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a full room is looked at again.
const LOOK: Duration = Duration::from_millis(50);

/// The room in which they wait, shared by all listeners.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    permits: Arc<Semaphore>,
    places: Mutex<VecDeque<(Instant, CancellationToken)>>,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// Cancelled when the place is needed for another.
    pub(crate) evicted: CancellationToken,
    room: Arc<WaitingRoom>,
    _permit: OwnedSemaphorePermit,
}

impl WaitingRoom {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(places)),
            places: Mutex::default(),
        })
    }

    /// A place; if there is none, that of a peer that has been silent for a second.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<Place> {
        let permit = loop {
            match timeout(LOOK, Arc::clone(&self.permits).acquire_owned()).await {
                Ok(permit) => break permit.ok()?,
                Err(_) => self.evict(),
            }
        };
        let evicted = CancellationToken::new();
        self.lock().push_back((Instant::now(), evicted.clone()));
        Some(Place {
            evicted,
            room: Arc::clone(self),
            _permit: permit,
        })
    }

    fn evict(&self) {
        let mut places = self.lock();
        // All of them: in a flood those behind would otherwise wait for each one by itself.
        while let Some((_, evicted)) = places.pop_front_if(|(since, _)| since.elapsed() >= PATIENCE) {
            evicted.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, CancellationToken)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Marks it as left: an evicted one is off the list already.
        self.evicted.cancel();
        self.room.lock().retain(|(_, evicted)| !evicted.is_cancelled());
    }
}
