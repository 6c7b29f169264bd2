//! `forebay device`: virtual devices that run the firmware's core and TLS on this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use forebay_virtual_device::{Credentials, Handle, Options, Outcome, VirtualDevice};
use serde::Serialize;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::FAILED;
use crate::config::duration;

/// Time between two lines of progress.
const ROW: Duration = Duration::from_secs(5);
/// How long a device may take to send what waits once it is stopped.
const GRACE: Duration = Duration::from_secs(10);
/// As the firmware does.
const HEALTH_EVERY: Duration = Duration::from_secs(3600);

/// Which devices, where to, how long.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each device measures (simulated sensors), keeps what is not acked, reconnects without end, and publishes to\n\
                  devices/NAME/telemetry/env and devices/NAME/health. Stops on Ctrl-C or after --for, once all is acked.\n\
                  Exit code 0 if every sample is acked, or waits in --flash.\n\nExamples:\n  \
                  forebay certs device board-1 board-2 && forebay device --gateway localhost:8883 board-1 board-2\n  \
                  forebay device --gateway plant-7.local:8883 --every 100ms --for 1m --json board-1\n  \
                  forebay device --gateway 192.168.10.2:8883 --server-name plant-7.local --flash /var/tmp board-1"
)]
pub(super) struct DeviceArgs {
    /// Names of the devices, as in their certificates: NAME.pem and NAME.key in --certs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The gateway's TLS listener
    #[arg(short, long, value_name = "HOST:PORT")]
    gateway: String,
    /// The name in the gateway's certificate, if it is not the host that is dialled
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Folder with devices-ca.pem, NAME.pem and NAME.key
    #[arg(long, value_name = "DIR", default_value = "certs")]
    certs: PathBuf,
    /// Time between two samples of a device
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    every: Duration,
    /// How long devices measure; until Ctrl-C by default
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// Folder for the devices' flash, so that waiting samples survive this command; in memory by default
    #[arg(long, value_name = "DIR")]
    flash: Option<PathBuf>,
    /// Print the result as one JSON line on stdout
    #[arg(long)]
    json: bool,
}

/// The result of all devices together.
#[derive(Debug, Default, Serialize)]
struct Total {
    devices: usize,
    boots: u64,
    measured: u64,
    acked: u64,
    waiting: usize,
    evicted: u64,
}

pub(super) fn run(args: &DeviceArgs) -> anyhow::Result<ExitCode> {
    if args.every.is_zero() {
        bail!("--every must be more than 0");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let total = runtime.block_on(LocalSet::new().run_until(work(args)))?;
    if args.json {
        println!("{}", serde_json::to_string(&total)?);
    }
    let lost = total.evicted > 0 || (total.waiting > 0 && args.flash.is_none());
    if lost {
        eprintln!(
            "{} samples never reached the gateway: {} dropped because flash was full, {} still waiting",
            total.evicted + total.waiting as u64,
            total.evicted,
            total.waiting
        );
    }
    Ok(if lost { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

async fn work(args: &DeviceArgs) -> anyhow::Result<Total> {
    let (host, port) = args.gateway.rsplit_once(':').with_context(|| no_port(&args.gateway))?;
    if port.parse::<u16>().is_err() {
        bail!(no_port(&args.gateway));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (mut handles, mut tasks) = (Vec::new(), JoinSet::new());
    for name in &args.names {
        let device = VirtualDevice::new(Options {
            name: name.clone(),
            gateway: args.gateway.clone(),
            server_name: args.server_name.clone().unwrap_or_else(|| host.to_owned()),
            credentials: Credentials {
                ca: args.certs.join("devices-ca.pem"),
                certificate: args.certs.join(format!("{name}.pem")),
                key: args.certs.join(format!("{name}.key")),
            },
            sample_every: args.every,
            health_every: HEALTH_EVERY,
            flash: args.flash.clone(),
        })
        .with_context(|| {
            format!(
                "{name} cannot start; `forebay certs --dir {} device {name}` makes its files",
                args.certs.display()
            )
        })?;
        handles.push(device.handle());
        tasks.spawn_local(device.run());
    }
    eprintln!("{} devices dial {}", handles.len(), args.gateway);
    let ended_early = watch(args, &handles, &mut tasks).await?;
    for handle in &handles {
        handle.stop();
    }
    let mut total = Total {
        devices: handles.len(),
        ..Total::default()
    };
    if let Some(outcome) = ended_early {
        total.add(&outcome);
    }
    let deadline = Instant::now() + GRACE;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(outcome) => total.add(&outcome??),
                None => break,
            },
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    // Whoever has not ended cannot reach the gateway.
    for status in handles.iter().map(Handle::status) {
        total.measured += u64::from(status.counters.measured);
        total.acked += u64::from(status.counters.acked);
        total.evicted += u64::from(status.queue.evicted);
        total.waiting += status.waiting;
        total.boots += u64::from(status.counters.measured > 0);
    }
    eprintln!(
        "{} samples measured, {} acked, {} waiting",
        total.measured, total.acked, total.waiting
    );
    Ok(total)
}

/// Tells how it goes until the time is over, Ctrl-C comes, or a device ends by itself.
async fn watch(
    args: &DeviceArgs,
    handles: &[Handle],
    tasks: &mut JoinSet<Result<Outcome, forebay_virtual_device::NotUsable>>,
) -> anyhow::Result<Option<Outcome>> {
    let end = async {
        match args.length {
            Some(length) => sleep(length).await,
            None => std::future::pending().await,
        }
    };
    let mut end = std::pin::pin!(end);
    let mut rows = interval_at(Instant::now() + ROW, ROW);
    rows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut end => return Ok(None),
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                return Ok(None);
            }
            Some(outcome) = tasks.join_next() => return Ok(Some(outcome??)),
            _ = rows.tick() => row(handles),
        }
    }
}

fn row(handles: &[Handle]) {
    let (mut connected, mut measured, mut acked, mut waiting) = (0, 0, 0, 0);
    for status in handles.iter().map(Handle::status) {
        connected += usize::from(status.is_connected);
        measured += status.counters.measured;
        acked += status.counters.acked;
        waiting += status.waiting;
    }
    eprintln!(
        "{connected} of {} connected, {measured} measured, {acked} acked, {waiting} waiting",
        handles.len()
    );
    let why = handles.iter().find_map(|handle| handle.status().last_lost);
    if let (Some(lost), true) = (why, connected < handles.len()) {
        eprintln!("  the last connection ended with: {lost}");
    }
}

fn no_port(gateway: &str) -> String {
    format!("--gateway {gateway} has no port: give HOST:PORT, such as plant-7.local:8883")
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.boots += u64::from(outcome.boots);
        self.measured += outcome.measured;
        self.acked += outcome.acked;
        self.waiting += outcome.waiting;
        self.evicted += outcome.evicted;
    }
}
