//! Logs on stderr, for people or for machines.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: error, warn, info, debug, or a filter such as `info,forebay_bridge=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "FOREBAY_LOG")]
    log: String,
    /// Log lines as text or JSON
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The router behind the local fan-out tells of every subscription; what matters of it is told by the fan-out.
const QUIET: &str = "rumqttd=off";

impl LogArgs {
    /// Starts logging for the whole process.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let filter =
            EnvFilter::try_new(format!("{},{QUIET}", self.log)).with_context(|| format!("--log `{}` is not a filter", self.log))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started = match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("logging could not start: {error}"))
    }
}
