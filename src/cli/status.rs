//! `forebay status`.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::admin_api::{AdminApi, UrlArgs};
use super::{ConfigArgs, FAILED, report};
use crate::admin::page;
use crate::config::ConfigError;

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
    #[command(flatten)]
    url: UrlArgs,
    /// Print the JSON of /status
    #[arg(long)]
    json: bool,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let api = match api(args)? {
        Ok(api) => api,
        Err(error) => return Ok(report(&error)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            let shown = show(args, &api).await;
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

/// The API at `--url`, else the configuration's, whose files need not be readable for that.
fn api(args: &StatusArgs) -> anyhow::Result<Result<AdminApi, ConfigError>> {
    if let Some(api) = args.url.api()? {
        return Ok(Ok(api));
    }
    match args.config.load_settings() {
        Ok(config) => args.url.api_of(&config.admin).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

async fn show(args: &StatusArgs, api: &AdminApi) -> anyhow::Result<ExitCode> {
    let body = tokio::time::timeout(PATIENCE, fetch(api))
        .await
        .with_context(|| format!("the gateway at {} did not answer within {PATIENCE:?}", api.address()))??;
    let status: Value = serde_json::from_str(&body).context("the answer is not from a Forebay of this version")?;
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

async fn fetch(api: &AdminApi) -> anyhow::Result<String> {
    let address = api.address();
    let mut answer = api
        .send(Method::GET, "/status", vec![])
        .await
        .with_context(|| format!("no gateway answers at {address}: is it running? `--url` names another, `-c` another configuration"))?;
    let body = answer.whole(MAX_ANSWER).await?;
    match answer.head.status {
        StatusCode::OK => Ok(String::from_utf8(body.to_vec())?),
        StatusCode::UNAUTHORIZED => {
            bail!("{address} requires the token: name its file with --token-file (admin.token_file of the gateway)")
        }
        code => bail!("{address} answers {code}: {}", String::from_utf8_lossy(&body).trim()),
    }
}
