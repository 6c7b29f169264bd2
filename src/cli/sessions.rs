//! `forebay sessions`: what is kept for devices, whether they are connected or not.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use forebay_topic::PeerText;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::admin_api::{AdminApi, UrlArgs};
use super::log::table;
use super::{ConfigArgs, FAILED, report};
use crate::admin::SessionName;
use crate::config::ConfigError;

/// A session whose connection has to end first takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 64 << 20;

/// List, show and drop the sessions of a running gateway
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A session is named by its device and its client id.\n\nExamples:\n  forebay sessions ls\n  forebay sessions show board-1 board-1\n  \
                  forebay sessions drop board-1 old-client --yes"
)]
pub(super) struct SessionsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all sessions, connected or not
    #[command(after_help = "Examples:\n  forebay sessions ls\n  forebay sessions ls --json")]
    Ls(Args),
    /// Show one session with its filters
    #[command(after_help = "Examples:\n  forebay sessions show board-1 board-1\n  forebay sessions show board-1 board-1 --json")]
    Show {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        args: Args,
    },
    /// End a session: its connection is closed, what is kept of it is removed, its will is published
    #[command(
        after_help = "Without --yes it only says what it would do.\n\nExamples:\n  forebay sessions drop board-1 old-client\n  \
                      forebay sessions drop board-1 old-client --yes"
    )]
    Drop {
        #[command(flatten)]
        name: Name,
        /// Do it
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        args: Args,
    },
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The device
    #[arg(value_name = "IDENTITY")]
    identity: String,
    /// Its client id
    #[arg(value_name = "CLIENT_ID")]
    client_id: String,
}

#[derive(Debug, clap::Args)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    url: UrlArgs,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

impl SessionsCommand {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.action {
            Action::Ls(args) => args.ask(Method::GET, "/sessions", None, list),
            Action::Show { name, args } => args.ask(Method::POST, "/sessions/show", Some(name), show),
            Action::Drop { name, yes: true, args } => args.ask(Method::POST, "/sessions/drop", Some(name), dropped),
            Action::Drop { name, args, .. } => args.ask(Method::POST, "/sessions/show", Some(name), would_drop),
        }
    }
}

impl Args {
    fn ask(&self, method: Method, path: &str, name: Option<&Name>, say: fn(&Value) -> (String, bool)) -> anyhow::Result<ExitCode> {
        let api = match self.api()? {
            Ok(api) => api,
            Err(error) => return Ok(report(&error)),
        };
        let body = match name {
            Some(Name { identity, client_id }) => serde_json::to_vec(&SessionName {
                identity: identity.clone(),
                client_id: client_id.clone(),
            })?,
            None => Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, fetch(&api, method, path, body)).await });
        let answer = answer.with_context(|| format!("the gateway at {} did not answer within {PATIENCE:?}", api.address()))??;
        let value: Value = serde_json::from_str(&answer).context("the answer is not from a Forebay of this version")?;
        let (said, is_well) = say(&value);
        if self.json {
            print!("{answer}");
        } else {
            println!("{said}");
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    /// The API at `--url`, else the configuration's, whose files need not be readable for that.
    fn api(&self) -> anyhow::Result<Result<AdminApi, ConfigError>> {
        if let Some(api) = self.url.api()? {
            return Ok(Ok(api));
        }
        match self.config.load_settings() {
            Ok(config) => self.url.api_of(&config.admin).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }
}

async fn fetch(api: &AdminApi, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<String> {
    let address = api.address();
    let mut answer = api
        .send(method, path, body)
        .await
        .with_context(|| format!("no gateway answers at {address}: is it running? `--url` names another, `-c` another configuration"))?;
    let body = answer.whole(MAX_ANSWER).await?;
    match answer.head.status {
        StatusCode::OK => Ok(String::from_utf8(body.to_vec())?),
        StatusCode::UNAUTHORIZED => {
            bail!("{address} requires the token: name its file with --token-file (admin.token_file of the gateway)")
        }
        StatusCode::NOT_FOUND => bail!(
            "{}; `forebay sessions ls` lists those that there are",
            String::from_utf8_lossy(&body).trim()
        ),
        code => bail!("{address} answers {code}: {}", String::from_utf8_lossy(&body).trim()),
    }
}

fn list(answer: &Value) -> (String, bool) {
    let sessions = answer["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if sessions.is_empty() {
        return ("there are no sessions".to_owned(), true);
    }
    let head = ["IDENTITY", "CLIENT ID", "STATE", "SUBSCRIPTIONS", "PACKET IDS", "EXPIRES AFTER"]
        .map(str::to_owned)
        .to_vec();
    let rows = std::iter::once(head).chain(sessions.iter().map(row)).collect::<Vec<_>>();
    (table(&rows), true)
}

fn row(session: &Value) -> Vec<String> {
    let peer = |field: &str| PeerText::new(session[field].as_str().unwrap_or_default()).to_string();
    let number = |field: &str| session[field].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let seconds = |field: &str| session[field].as_u64().map(|seconds| format!("{seconds} s"));
    let state = match (session["connected"].as_bool(), seconds("absent_seconds")) {
        (Some(true), _) => "connected".to_owned(),
        (_, Some(absent)) => format!("absent for {absent}"),
        (_, None) => "absent".to_owned(),
    };
    vec![
        peer("identity"),
        peer("client_id"),
        state,
        number("subscriptions"),
        number("packet_ids"),
        seconds("expiry_seconds").unwrap_or_else(|| "-".to_owned()),
    ]
}

fn show(session: &Value) -> (String, bool) {
    let titles = ["identity", "client id", "state", "subscriptions", "packet ids", "expires after"];
    let mut rows: Vec<Vec<String>> = titles
        .iter()
        .zip(row(session))
        .map(|(title, cell)| vec![(*title).to_owned(), cell])
        .collect();
    for filter in session["filters"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        rows.push(vec!["filter".to_owned(), PeerText::new(filter).to_string()]);
    }
    (table(&rows), true)
}

fn would_drop(session: &Value) -> (String, bool) {
    (format!("{}\nnothing was done; --yes drops this session", show(session).0), true)
}

fn dropped(answer: &Value) -> (String, bool) {
    if answer["changed"].as_u64().unwrap_or(0) > 0 {
        ("dropped".to_owned(), true)
    } else {
        (
            "there is no such session; `forebay sessions ls` lists those that there are".to_owned(),
            false,
        )
    }
}
