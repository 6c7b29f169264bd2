//! The stand-in cloud as a process. Prints `ready ADDRESS`, then obeys the JSON lines on stdin that
//! [`forebay_aws_standin::control`] documents, until stdin ends or SIGINT or SIGTERM comes.

use std::{error::Error, io::Write, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Parser;
use forebay_aws_standin::{Ledger, LedgerConfig, RateOutcome, Rates, Standin, StandinConfig, TlsConfig, control};
use tokio::sync::mpsc;

/// A small strict MQTT server that behaves like AWS IoT Core.
#[derive(Debug, Parser)]
#[command(name = "aws-standin")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server's certificate chain, PEM. Without it the listener is plain TCP.
    #[arg(long, requires_all = ["key", "client_ca"])]
    cert: Option<PathBuf>,
    /// The server's key, PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// The authority of client certificates, PEM.
    #[arg(long, requires = "cert")]
    client_ca: Option<PathBuf>,
    /// The name clients must ask for; left out, any or none will do.
    #[arg(long, requires = "cert")]
    sni: Option<String>,
    /// Append one JSON line per committed publish here; what is there already is read back first.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Publishes per second per connection.
    #[arg(long)]
    rate: Option<u32>,
    /// Bytes per second per connection; more is delayed.
    #[arg(long)]
    bandwidth: Option<u32>,
    /// What happens to publishes over --rate: as-aws, silent, answer-97 or disconnect.
    #[arg(long, default_value = "as-aws", value_parser = outcome)]
    over_rate: RateOutcome,
    /// Do not read stdin; run until SIGINT or SIGTERM.
    #[arg(long)]
    no_control: bool,
}

fn outcome(text: &str) -> Result<RateOutcome, String> {
    match text {
        "as-aws" => Ok(RateOutcome::AsAws),
        "silent" => Ok(RateOutcome::Silent),
        "answer-97" => Ok(RateOutcome::Answer97),
        "disconnect" => Ok(RateOutcome::Disconnect),
        other => Err(format!("{other} is none of as-aws, silent, answer-97, disconnect")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let standin = Standin::start(config(&arguments)?).await?;
    say(&format!("ready {}", standin.address()))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = obey(&standin), if !arguments.no_control => result?,
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    standin.shutdown().await;
    Ok(())
}

fn config(arguments: &Arguments) -> Result<StandinConfig, Box<dyn Error>> {
    let mut config = StandinConfig {
        address: arguments.listen,
        rates: Rates {
            publishes: arguments.rate,
            publishes_outcome: arguments.over_rate,
            bytes: arguments.bandwidth,
            ..Rates::default()
        },
        ..StandinConfig::default()
    };
    if let (Some(cert), Some(key), Some(client_ca)) = (&arguments.cert, &arguments.key, &arguments.client_ca) {
        config.tls = Some(TlsConfig::from_pem(
            &read(cert)?,
            &read(key)?,
            &read(client_ca)?,
            arguments.sni.as_deref(),
        )?);
    }
    if let Some(path) = &arguments.ledger {
        let ledger = Ledger::open(LedgerConfig::default(), path).map_err(|error| format!("ledger {}: {error}", path.display()))?;
        config.ledger = Some(Arc::new(ledger));
    }
    Ok(config)
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

async fn obey(standin: &Standin) -> Result<(), Box<dyn Error>> {
    let mut lines = stdin_lines()?;
    while let Some(line) = lines.recv().await {
        if !line.trim().is_empty() {
            say(&control::answer(standin, &line).await)?;
        }
    }
    Ok(())
}

/// Reads stdin on a thread of its own: a blocked read cannot be cancelled, and must not keep the process from ending.
fn stdin_lines() -> std::io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
