//! The demo's devices: the firmware's own core and TLS, many of them on this thread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use forebay_virtual_device::{Credentials, Handle, NotUsable, Options, Outcome, VirtualDevice};
use tokio::task::JoinSet;

use super::balance::Sent;
use super::figures::{Figures, p99};
use crate::certs::make::CA_CERTIFICATE;

/// As the firmware does: once at the start, then hourly.
const HEALTH_EVERY: Duration = Duration::from_secs(3600);
/// How long the devices may take to send what waits.
const DRAIN: Duration = Duration::from_secs(60);

/// Devices at work.
pub(super) struct Devices {
    handles: Vec<Handle>,
    tasks: JoinSet<(String, Result<Outcome, NotUsable>)>,
    acked: u64,
}

impl Devices {
    /// Starts a device for each name; its certificate is in `certs`. Needs a `LocalSet`.
    pub(super) fn start(names: &[String], certs: &Path, gateway: SocketAddr, rate: u32) -> anyhow::Result<Self> {
        let (mut handles, mut tasks) = (Vec::new(), JoinSet::new());
        for name in names {
            let device = VirtualDevice::new(Options {
                name: name.clone(),
                gateway: gateway.to_string(),
                server_name: "localhost".to_owned(),
                credentials: Credentials {
                    ca: certs.join(CA_CERTIFICATE),
                    certificate: certs.join(format!("{name}.pem")),
                    key: certs.join(format!("{name}.key")),
                },
                sample_every: Duration::from_secs(1) / rate,
                health_every: HEALTH_EVERY,
                flash: None,
            })?;
            handles.push(device.handle());
            let name = name.clone();
            tasks.spawn_local(async move { (name, device.run().await) });
        }
        Ok(Self { handles, tasks, acked: 0 })
    }

    /// What they did since the last look.
    pub(super) fn look(&mut self) -> Figures {
        let mut waits = Vec::new();
        let (mut connected, mut acked) = (0, 0);
        for handle in &self.handles {
            let status = handle.status();
            connected += usize::from(status.is_connected);
            acked += u64::from(status.counters.acked);
            handle.take_ack_waits(|wait| waits.push(wait));
        }
        let since = acked.saturating_sub(self.acked);
        self.acked = acked;
        Figures {
            connected,
            acked: since,
            p99: p99(waits),
        }
    }

    /// Ends measuring and waits until all is acked; what each device sent.
    pub(super) async fn stop(&mut self) -> anyhow::Result<BTreeMap<String, Sent>> {
        for handle in &self.handles {
            handle.stop();
        }
        let all = async {
            let mut sent = BTreeMap::new();
            while let Some(ended) = self.tasks.join_next().await {
                let (name, outcome) = ended?;
                let outcome = outcome?;
                sent.insert(
                    name,
                    Sent {
                        measured: outcome.measured,
                        evicted: outcome.evicted,
                        refused: outcome.refused,
                    },
                );
            }
            anyhow::Ok(sent)
        };
        tokio::time::timeout(DRAIN, all)
            .await
            .context("the devices could not send all their samples")?
    }
}
