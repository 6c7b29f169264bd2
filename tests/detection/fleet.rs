//! Devices that publish a reading each so often, and can be made to misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use forebay_broker::codec::{Packet, QoS, Version};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::support::device::Device;

/// One device; ends when dropped.
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

/// What it does next; a test changes it.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) topic: String,
    pub(crate) every: Duration,
    /// Connected, and says nothing.
    pub(crate) is_mute: bool,
    /// Ends its connection without DISCONNECT after each publish.
    pub(crate) flaps: bool,
    pub(crate) boot: u32,
    /// The number of the next reading.
    pub(crate) seq: u64,
    /// Sends these many of its last readings again, once.
    pub(crate) replays: u64,
    pub(crate) temperature: f64,
    /// Degrees that it climbs with each reading.
    pub(crate) climb: f64,
    /// Bytes that each payload is filled up with.
    pub(crate) fill: usize,
}

impl Board {
    /// Publishes on `devices/NAME/telemetry`.
    pub(crate) fn start(gateway: SocketAddr, name: &str, every: Duration) -> Self {
        let state = Arc::new(Mutex::new(State {
            topic: format!("devices/{name}/telemetry"),
            every,
            is_mute: false,
            flaps: false,
            boot: 1,
            seq: 1,
            replays: 0,
            temperature: 21.0,
            climb: 0.0,
            fill: 0,
        }));
        let task = tokio::spawn(talk(gateway, name.to_owned(), Arc::clone(&state)));
        Self {
            state,
            task: task.abort_handle(),
        }
    }

    /// Its state, to be changed.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(gateway: SocketAddr, name: String, state: Arc<Mutex<State>>) {
    let mut line: Option<Device> = None;
    let mut id = 0;
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        let (now, readings) = {
            let mut state = state.lock().unwrap();
            // What a slow machine holds up is not made up for: a burst would be a fault of its own.
            next = (next + state.every).max(Instant::now());
            let now = state.clone();
            (now, if state.is_mute { Vec::new() } else { state.readings() })
        };
        let Some(device) = connected(&mut line, gateway, &name).await else {
            continue;
        };
        let mut is_lost = now.flaps;
        for reading in readings {
            id = id % 60_000 + 1;
            let sent = device.publish(&now.topic, reading.as_bytes(), QoS::AtLeastOnce, id, false).await;
            is_lost |= sent.is_none() || !is_acked(device).await;
        }
        if is_lost {
            line = None;
        }
    }
}

/// Whether the next packet is an ack that says success; a gateway that stops says goodbye instead.
async fn is_acked(device: &mut Device) -> bool {
    matches!(device.next().await, Some(Packet::PubAck(ack)) if !ack.reason.is_error())
}

async fn connected<'a>(line: &'a mut Option<Device>, gateway: SocketAddr, name: &str) -> Option<&'a mut Device> {
    if line.is_none() {
        *line = Device::connect(gateway, name, Version::V5, true).await;
    }
    line.as_mut()
}

impl State {
    /// What is due now: repeats, and one new reading.
    fn readings(&mut self) -> Vec<String> {
        let repeats = self.seq.saturating_sub(std::mem::take(&mut self.replays));
        self.temperature += self.climb;
        let readings = (repeats..=self.seq).map(|seq| {
            // Some noise that is the same in each run.
            let noise = f64::from(u32::try_from(seq * 7919 % 11).unwrap()) / 100.0;
            format!(
                r#"{{"boot":{},"seq":{seq},"temp":{:.2},"fill":"{}"}}"#,
                self.boot,
                self.temperature + noise,
                "x".repeat(self.fill)
            )
        });
        let readings = readings.collect();
        self.seq += 1;
        readings
    }
}
