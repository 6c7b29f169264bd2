//! What a save of Mosquitto's whole state writes: it makes one at every autosave.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::bail;
use forebay_benches::certificates::Certificates;
use forebay_benches::generator::{self, Load};
use forebay_benches::system::{Programs, System};
use forebay_broker::codec::Version;
use rustix::process::Signal;
use serde::Serialize;

use crate::meter::Meter;

/// How fast the queue is filled.
const FILL: f64 = 5000.0;
/// A save is over when so long nothing more was written.
const QUIET: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

/// One save.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Save {
    /// Messages in its queue for the cloud, which is away.
    pub(crate) waiting: u64,
    /// Bytes written.
    pub(crate) written: u64,
}

/// Lets `waiting` messages of `payload` bytes wait, has the state saved (SIGUSR1 does what an autosave does) and says what that wrote.
pub(crate) fn save(meter: &Meter, programs: &Programs, certificates: &Certificates, waiting: u64, payload: usize) -> anyhow::Result<Save> {
    let server = System::MosquittoQueue.start(programs, certificates, meter.path())?;
    let mut acked = 0;
    if waiting > 0 {
        let load = Load {
            address: server.plain,
            name: "localhost".into(),
            tls: None,
            version: Version::V311,
            clients: 50,
            in_flight: NonZeroU16::MIN.saturating_add(19),
            size: payload,
            warmup: Duration::ZERO,
            duration: Duration::from_secs_f64(waiting as f64 / FILL),
            rate: Some(FILL),
            topic: "devices/{client}/telemetry".into(),
        };
        let outcome = generator::run(&load, |_| Ok(()))?;
        if !outcome.is_clean(&load) {
            bail!("filling Mosquitto's queue went wrong: {outcome:?}");
        }
        acked = outcome.acked;
    }
    let pid = Some(server.pid());
    let before = meter.written(pid)?;
    server.signal(Signal::USR1)?;
    let state = meter.path().join("mosquitto.db");
    let began = Instant::now();
    let (mut written, mut since) = (0, Instant::now());
    while !state.exists() || since.elapsed() < QUIET {
        if began.elapsed() > PATIENCE {
            bail!("Mosquitto did not save its state within 30 s; its log ends:\n{}", server.log_end());
        }
        std::thread::park_timeout(Duration::from_millis(20));
        let now = meter.written(pid)? - before;
        if now != written {
            (written, since) = (now, Instant::now());
        }
    }
    server.stop()?;
    Ok(Save { waiting: acked, written })
}
