//! `forebay status`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{ConfigArgs, FAILED, report};
use crate::admin::page;
use crate::config::{self, Overrides};

/// The admin listener answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often `--watch` looks again.
const AGAIN: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 16 << 20;
/// Home, and clear what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Where to ask, and how to show it.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask this admin listener instead of the configuration's: http://gateway:9464
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file with the admin listener's token; the configuration's by default
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the JSON of /status
    #[arg(long)]
    json: bool,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// Whom to ask.
struct Target {
    address: String,
    token: Option<String>,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let target = match target(args)? {
        Ok(target) => target,
        Err(error) => return Ok(report(&error)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            let shown = show(args, &target).await;
            if !args.watch {
                return shown;
            }
            if let Err(error) = shown {
                println!("{CLEAR}{error:#}");
            }
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    })
}

/// The admin listener and its token: from the flags, else from the configuration, whose files need not be readable for that.
fn target(args: &StatusArgs) -> anyhow::Result<Result<Target, config::ConfigError>> {
    let mut target = match &args.url {
        Some(url) => Target {
            address: address(url)?,
            token: None,
        },
        None => {
            let origin = args.config.origin();
            let overrides = Overrides {
                skip_files: true,
                ..origin.overrides
            };
            let config = match config::load(&origin.path, &overrides) {
                Ok(config) => config,
                Err(error) => return Ok(Err(error)),
            };
            let mut bind = config.admin.bind;
            if bind.ip().is_unspecified() {
                let loopback: std::net::IpAddr = if bind.is_ipv4() {
                    std::net::Ipv4Addr::LOCALHOST.into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                };
                bind.set_ip(loopback);
            }
            Target {
                address: bind.to_string(),
                token: config.admin.token.map(|token| token.expose().to_owned()),
            }
        }
    };
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        target.token = Some(token.trim().to_owned());
    }
    Ok(Ok(target))
}

/// The host and port of an URL.
fn address(url: &str) -> anyhow::Result<String> {
    ensure!(
        !url.starts_with("https://"),
        "the admin listener speaks plain HTTP: write http://..., over a network that you trust"
    );
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let host = rest.split('/').next().unwrap_or_default();
    ensure!(
        host.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
        "--url {url} has no port: write http://gateway:9464"
    );
    Ok(host.to_owned())
}

async fn show(args: &StatusArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let body = tokio::time::timeout(PATIENCE, fetch(target))
        .await
        .with_context(|| format!("the gateway at {} did not answer within {PATIENCE:?}", target.address))??;
    let status: Value = serde_json::from_str(&body).context("what answers there is not a Forebay of this version")?;
    let mut out = std::io::stdout().lock();
    if args.json {
        out.write_all(body.as_bytes())?;
    } else {
        // https://no-color.org: any value that is not empty.
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let text = page::terminal(&page::page(&status), out.is_terminal() && !is_plain);
        let clear = if args.watch { CLEAR } else { "" };
        write!(out, "{clear}{text}")?;
    }
    out.flush()?;
    Ok(if page::is_well(&status) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

async fn fetch(target: &Target) -> anyhow::Result<String> {
    let address = &target.address;
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("no answer at {address}: is the gateway running? `--url` names another, `-c` another configuration"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get("/status").header(HOST, address);
    if let Some(token) = &target.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await;
    let answer = answer.with_context(|| format!("{address} does not answer as a Forebay's admin listener"))?;
    let code = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body
        .map_err(|error| anyhow::anyhow!("the answer of {address} broke off: {error}"))?
        .to_bytes();
    connection.abort();
    match code {
        StatusCode::OK => Ok(String::from_utf8(body.to_vec())?),
        StatusCode::UNAUTHORIZED => bail!("{address} needs the token: name its file with --token-file (admin.token_file of the gateway)"),
        code => bail!("{address} answers {code}: {}", String::from_utf8_lossy(&body).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_url_is_a_host_and_a_port() {
        assert_eq!(address("http://gateway:9464").unwrap(), "gateway:9464");
        assert_eq!(address("http://[::1]:9464/status").unwrap(), "[::1]:9464");
        assert_eq!(address("10.0.0.1:9464").unwrap(), "10.0.0.1:9464");
        for bad in ["https://gateway:9464", "http://gateway", "http://:9464", "gateway:port", ""] {
            address(bad).unwrap_err();
        }
    }
}
