//! Every device seen since start: whether it is connected, when its last packet came, and how its last connection ended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::stats::Disconnection;

/// Devices kept; a new one replaces the one without a connection whose last packet is oldest.
const MAX_DEVICES: usize = 20_000;

/// All devices by identity.
#[derive(Debug, Default)]
pub struct Devices(Mutex<HashMap<String, Arc<Device>>>);

/// One device's counters, kept across its connections.
#[derive(Debug, Default)]
pub(crate) struct Device {
    connections: AtomicUsize,
    connects: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    last_seen_ms: AtomicU64,
    last_end: Mutex<Option<(Disconnection, SocketAddr)>>,
}

/// The status of one device.
#[derive(Clone, Debug)]
pub struct DeviceStatus {
    /// Its identity.
    pub identity: String,
    /// Connections open now.
    pub connections: usize,
    /// Connections since start.
    pub connects: u64,
    /// Publishes accepted since start.
    pub accepted: u64,
    /// Publishes refused or dropped since start.
    pub refused: u64,
    /// When its last packet came, in milliseconds since 1970.
    pub last_seen_ms: u64,
    /// How its last connection ended; `None` for its own DISCONNECT.
    pub last_end: Option<(Disconnection, SocketAddr)>,
}

impl Devices {
    /// The device; it is added if it is new.
    pub(crate) fn of(&self, identity: &str) -> Arc<Device> {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(identity) {
            return Arc::clone(device);
        }
        if devices.len() >= MAX_DEVICES
            && let Some(idle) = devices
                .iter()
                .filter(|(_, d)| d.connections.load(Ordering::Relaxed) == 0)
                .min_by_key(|(_, d)| d.last_seen_ms.load(Ordering::Relaxed))
                .map(|(name, _)| name.clone())
        {
            devices.remove(&idle);
        }
        let device = Arc::<Device>::default();
        devices.insert(identity.to_owned(), Arc::clone(&device));
        device
    }

    /// All of them, by identity.
    #[must_use]
    pub fn list(&self) -> Vec<DeviceStatus> {
        let devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = devices.iter().map(|(identity, device)| device.status(identity)).collect();
        drop(devices);
        list.sort_by(|a, b| a.identity.cmp(&b.identity));
        list
    }
}

impl Device {
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self, cause: Option<Disconnection>, address: SocketAddr) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner) = cause.map(|cause| (cause, address));
    }

    pub(crate) fn seen(&self, now_ms: u64) {
        self.last_seen_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn status(&self, identity: &str) -> DeviceStatus {
        DeviceStatus {
            identity: identity.to_owned(),
            connections: self.connections.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_seen_ms: self.last_seen_ms.load(Ordering::Relaxed),
            last_end: *self.last_end.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
