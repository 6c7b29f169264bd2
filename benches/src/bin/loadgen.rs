//! `loadgen`: an MQTT QoS 1 load from one thread.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use forebay_benches::generator::{Load, Outcome, TlsFiles, run};
use forebay_broker::codec::Version;

/// MQTT load from one thread.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish at QoS 1 and measure the acks.
    Pub(Publish),
}

#[derive(Args)]
struct Publish {
    /// The server; with TLS its certificate must have this name.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Its port.
    #[arg(long)]
    port: u16,
    /// Connections.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// Unacked publishes per connection.
    #[arg(long, default_value = "20")]
    inflight: NonZeroU16,
    /// Payload in bytes.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Measured seconds.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Publishes per second in all; left out: as many as the window allows.
    #[arg(long)]
    rate: Option<f64>,
    /// `{client}` becomes the client id.
    #[arg(long, default_value = "devices/{client}/telemetry")]
    topic: String,
    /// The protocol version.
    #[arg(long, value_enum, default_value_t = Protocol::V311)]
    mqtt: Protocol,
    /// The authority of the server's certificate; turns on mutual TLS.
    #[arg(long, requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// The certificate all clients share.
    #[arg(long, requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// Print one JSON line instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Pub(arguments) = Arguments::parse().command;
    let load = load(&arguments)?;
    let outcome = run(&load, |_| Ok(()))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        print(&outcome);
    }
    Ok(if outcome.is_clean(&load) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn load(arguments: &Publish) -> anyhow::Result<Load> {
    let tls = match (&arguments.tls_ca, &arguments.tls_cert, &arguments.tls_key) {
        (Some(ca), Some(certificate), Some(key)) => Some(TlsFiles {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        _ => None,
    };
    let seconds =
        |value: f64, name| Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value} is not a time in seconds"));
    if let Some(rate) = arguments.rate {
        anyhow::ensure!(
            (0.01..=10_000_000.0).contains(&rate),
            "--rate {rate} is outside 0.01 to 10000000 per second"
        );
    }
    Ok(Load {
        address: resolve(&arguments.host, arguments.port)?,
        name: arguments.host.clone(),
        tls,
        version: match arguments.mqtt {
            Protocol::V311 => Version::V311,
            Protocol::V5 => Version::V5,
        },
        clients: arguments.clients,
        in_flight: arguments.inflight,
        size: arguments.size,
        warmup: seconds(arguments.warmup, "warmup")?,
        duration: seconds(arguments.duration, "duration")?,
        rate: arguments.rate,
        topic: arguments.topic.clone(),
    })
}

fn resolve(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs().with_context(|| format!("looking up {host}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

fn print(outcome: &Outcome) {
    println!(
        "{:.0} acked/s ({} in all), {} clients connected in {:.2} s",
        outcome.acked_per_s, outcome.acked, outcome.connected, outcome.connect_s
    );
    println!(
        "ack p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us",
        outcome.p50_us, outcome.p99_us, outcome.p999_us, outcome.max_us
    );
    println!(
        "generator: {:.2} CPU s, lag p99 {:.0} us, {} not sent",
        outcome.generator_cpu_s, outcome.lag_p99_us, outcome.missed
    );
    for (error, times) in &outcome.errors {
        println!("{times} x {error}");
    }
}
