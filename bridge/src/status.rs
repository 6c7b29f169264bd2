//! The link at a glance, for the status page.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_wal::Timestamp;

use crate::Stats;

/// What the admin page asks. Cheap to clone; give one to [`crate::run`] and keep one.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stats: Stats,
    status: Mutex<BridgeStatus>,
    in_flight: AtomicUsize,
    waiting_devices: AtomicUsize,
    /// The bits of an `f64`; zero = no limit.
    messages_per_second: AtomicU64,
}

/// The link at a glance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BridgeStatus {
    /// What the lane is doing.
    pub state: State,
    /// Since when the present connection stands.
    pub connected_since: Option<Timestamp>,
    /// The last thing that went wrong with the link, in plain words; it stays after the link came back.
    pub last_error: Option<LastError>,
    /// Publishes that wait for the cloud's ack.
    pub in_flight: usize,
    /// Waiting devices: the cloud refused one of their records for now.
    pub waiting_devices: usize,
    /// Publishes per second that the lane allows itself now; `None` if there is no limit.
    pub messages_per_second: Option<f64>,
    /// Pairs of route and device that the cloud denies.
    pub suspended: Vec<Suspension>,
    /// Routes that are suspended as a whole.
    pub suspended_routes: Vec<String>,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Dialling, or in the handshakes.
    #[default]
    Connecting,
    /// Connected, and acks arrive when something is sent.
    Connected,
    /// Waiting before the next try.
    BackingOff {
        /// When that will be.
        until: Timestamp,
    },
    /// Connected, but the cloud has acked nothing for five seconds although it owes acks.
    Stalled,
    /// Ended by the shutdown.
    Stopped,
}

/// Something that went wrong with the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// What, and what to do.
    pub text: String,
    /// When it last happened.
    pub at: Timestamp,
    /// How often in a row.
    pub times: u64,
}

/// A pair of route and device that the cloud denies: its records wait in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// The stream's name.
    pub stream: String,
    /// The route's name.
    pub route: String,
    /// The device's identity.
    pub identity: String,
}

impl Handle {
    /// A handle for a bridge that is still to run.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The link at a glance.
    #[must_use]
    pub fn status(&self) -> BridgeStatus {
        BridgeStatus {
            in_flight: self.shared.in_flight.load(Ordering::Relaxed),
            waiting_devices: self.shared.waiting_devices.load(Ordering::Relaxed),
            messages_per_second: Some(f64::from_bits(self.shared.messages_per_second.load(Ordering::Relaxed))).filter(|rate| *rate > 0.0),
            ..self.lock().clone()
        }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    pub(crate) fn set_load(&self, in_flight: usize, waiting_devices: usize) {
        self.shared.in_flight.store(in_flight, Ordering::Relaxed);
        self.shared.waiting_devices.store(waiting_devices, Ordering::Relaxed);
    }

    pub(crate) fn set_rate(&self, messages_per_second: Option<f64>) {
        let bits = messages_per_second.unwrap_or_default().to_bits();
        self.shared.messages_per_second.store(bits, Ordering::Relaxed);
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut BridgeStatus)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, BridgeStatus> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
