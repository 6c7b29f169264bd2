//! `forebay device`: virtual devices that run the firmware's core and TLS on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use forebay_virtual_device::{Credentials, Handle, Options, Outcome, VirtualDevice};
use serde::Serialize;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};

use super::FAILED;
use crate::config::duration;

/// Time between two lines of progress.
const ROW: Duration = Duration::from_secs(5);
/// Time between two looks at why devices are not connected.
const LOOK: Duration = Duration::from_millis(500);
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
    let verb = if handles.len() == 1 { "dials" } else { "dial" };
    eprintln!("{} {verb} {}", devices(handles.len()), args.gateway);
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
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reasons = Reasons::default();
    loop {
        tokio::select! {
            () = &mut end => return Ok(None),
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                return Ok(None);
            }
            Some(outcome) = tasks.join_next() => return Ok(Some(outcome??)),
            _ = rows.tick() => row(handles),
            _ = looks.tick() => {
                let troubles = handles.iter().filter_map(Handle::trouble);
                reasons.lines(troubles, Instant::now()).iter().for_each(|line| eprintln!("{line}"));
            }
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
}

/// How long a reason is not told again.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Says why devices are not connected: each reason once, and again each minute with the number of devices.
#[derive(Debug, Default)]
struct Reasons(BTreeMap<String, Instant>);

impl Reasons {
    /// The lines to print now for the reasons of all devices that are not connected.
    fn lines(&mut self, troubles: impl Iterator<Item = String>, now: Instant) -> Vec<String> {
        let mut troubled: BTreeMap<String, usize> = BTreeMap::new();
        troubles.for_each(|trouble| *troubled.entry(trouble).or_default() += 1);
        self.0.retain(|_, told| now.duration_since(*told) < TOLD_AGAIN);
        let due: Vec<_> = troubled.into_iter().filter(|(trouble, _)| !self.0.contains_key(trouble)).collect();
        let tell = |(trouble, count): (String, usize)| {
            let line = format!("not connected ({}): {trouble}", devices(count));
            self.0.insert(trouble, now);
            line
        };
        due.into_iter().map(tell).collect()
    }
}

fn devices(count: usize) -> String {
    format!("{count} {}", if count == 1 { "device" } else { "devices" })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_devices_are_not_connected_is_told_once_and_then_each_minute_with_a_count() {
        let (mut reasons, start) = (Reasons::default(), Instant::now());
        let name = || "the name cannot be resolved".to_owned();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            reasons.lines([name()].into_iter(), at(0)),
            ["not connected (1 device): the name cannot be resolved"]
        );
        assert!(reasons.lines([name(), name()].into_iter(), at(59)).is_empty());
        let other = "TLS failed".to_owned();
        assert_eq!(
            reasons.lines([name(), other].into_iter(), at(59)),
            ["not connected (1 device): TLS failed"]
        );
        let again = reasons.lines([name(), name()].into_iter(), at(61));
        assert_eq!(again, ["not connected (2 devices): the name cannot be resolved"]);
    }
}
