//! `relay`: what the hop between rumqttc and the cloud's connection costs (decision 0021).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use forebay_benches::bench::Bench;
use forebay_benches::figures::Spread;
use forebay_benches::machine;
use forebay_benches::sink::Sink;
use forebay_bridge::testing::{Relayed, relay};
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde::Serialize;
use tokio::net::TcpStream;

/// rumqttc over TCP and over the bridge's relay, one connection to a sink in this process that acks at once
#[derive(Debug, Parser)]
#[command(after_help = "Example, some seconds:\n  relay --rounds 1 --publishes 20000")]
struct Args {
    /// Rounds of all cells in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Publishes of a cell with 32 in flight; a tenth of them with one
    #[arg(long, default_value_t = 500_000)]
    publishes: u32,
    #[command(flatten)]
    bench: Bench,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Way {
    Tcp,
    Relay,
}

/// One way with one window, once.
#[derive(Debug, Serialize)]
struct Run {
    way: Way,
    in_flight: u16,
    cpu_us_per_publish: f64,
    us_per_publish: f64,
}

const WINDOWS: [u16; 2] = [32, 1];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for in_flight in WINDOWS {
            for way in [Way::Tcp, Way::Relay] {
                let publishes = if in_flight == 1 { args.publishes / 10 } else { args.publishes };
                let run = measure(way, in_flight, publishes)?;
                eprintln!(
                    "round {round}: {way:?}, {in_flight} in flight: {:.1} us of CPU, {:.1} us",
                    run.cpu_us_per_publish, run.us_per_publish
                );
                args.bench.run_done(&run)?;
                runs.push(run);
            }
        }
    }
    args.bench.table("relay", &table(&runs, args.rounds)?)
}

/// CPU is that of client, relay and sink together.
fn measure(way: Way, in_flight: u16, publishes: u32) -> anyhow::Result<Run> {
    let sink = Sink::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = MqttOptions::new("bench", sink.address().ip().to_string(), sink.address().port());
        options.set_keep_alive(Duration::from_secs(3600));
        options.set_outgoing_inflight_upper_limit(in_flight);
        let relayed = match way {
            Way::Tcp => None,
            Way::Relay => Some(dial(&sink, &mut options).await?),
        };
        let (client, mut events) = AsyncClient::new(options, usize::from(in_flight));
        acks(&mut events, 0).await?;
        let (began, cpu) = (Instant::now(), machine::own_cpu_seconds()?);
        tokio::try_join!(publish(&client, publishes), acks(&mut events, publishes))?;
        let (cpu, took) = (machine::own_cpu_seconds()? - cpu, began.elapsed());
        ensure!(sink.received() == u64::from(publishes), "the sink got {}", sink.received());
        drop(relayed);
        Ok(Run {
            way,
            in_flight,
            cpu_us_per_publish: cpu * 1e6 / f64::from(publishes),
            us_per_publish: took.as_secs_f64() * 1e6 / f64::from(publishes),
        })
    })
}

async fn dial(sink: &Sink, options: &mut MqttOptions) -> anyhow::Result<Relayed> {
    let stream = TcpStream::connect(sink.address()).await?;
    stream.set_nodelay(true)?;
    let relayed = relay(stream)?;
    // It dials the name that stands where a host's would.
    let mut over = MqttOptions::new("bench", relayed.socket.clone(), 0);
    over.set_keep_alive(options.keep_alive());
    over.set_outgoing_inflight_upper_limit(options.get_outgoing_inflight_upper_limit().unwrap_or(1));
    over.set_transport(Transport::Unix);
    *options = over;
    Ok(relayed)
}

async fn publish(client: &AsyncClient, publishes: u32) -> anyhow::Result<()> {
    let payload = vec![b'x'; 256];
    for _ in 0..publishes {
        client
            .publish("dt/bench/telemetry", QoS::AtLeastOnce, false, payload.clone())
            .await?;
    }
    Ok(())
}

/// Waits for CONNACK (`wanted` is 0) or for so many PUBACKs.
async fn acks(events: &mut EventLoop, wanted: u32) -> anyhow::Result<()> {
    let mut got = 0;
    loop {
        match events.poll().await.context("the connection to the sink ended")? {
            Event::Incoming(Packet::ConnAck(_)) if wanted == 0 => return Ok(()),
            Event::Incoming(Packet::PubAck(_)) => got += 1,
            _ => {}
        }
        if wanted > 0 && got == wanted {
            return Ok(());
        }
    }
}

fn table(runs: &[Run], rounds: usize) -> anyhow::Result<String> {
    let mut text = format!(
        "{}. One connection, MQTT 5, QoS 1, 256 B, no TLS; medians of {rounds} rounds, in turn.\n\n\
         | in flight | way | CPU per publish, us | to TCP | time per publish, us | to TCP |\n|---:|---|---:|---:|---:|---:|\n",
        machine::describe()
    );
    for in_flight in WINDOWS {
        let cell = |way, value: fn(&Run) -> f64| -> Vec<f64> {
            runs.iter()
                .filter(|run| run.way == way && run.in_flight == in_flight)
                .map(value)
                .collect()
        };
        for (way, name) in [(Way::Tcp, "TCP"), (Way::Relay, "Unix socket and relay")] {
            write!(text, "| {in_flight} | {name} ")?;
            for value in [(|run: &Run| run.cpu_us_per_publish) as fn(&Run) -> f64, |run: &Run| {
                run.us_per_publish
            }] {
                let (own, tcp) = (cell(way, value), cell(Way::Tcp, value));
                let ratio = Spread::of(own.iter().zip(&tcp).map(|(own, tcp)| own / tcp));
                write!(text, "| {} | {ratio} ", Spread::of(own))?;
            }
            text.push_str("|\n");
        }
    }
    Ok(text)
}
