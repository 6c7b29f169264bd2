//! Logs on stderr, for people or for machines.
//!
//! A line is put into a bounded queue ([`queue`]) that a thread of its own writes out ([`writer`]). So no part of the gateway
//! waits for whoever reads the log, and none meets an error of it: with stderr closed, its disk full or its pipe unread,
//! lines are dropped, counted (`forebay_log_lines_dropped_total`) and told once there is room.

mod announce;
mod queue;
mod writer;

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use queue::Queue;

pub(crate) use announce::announce;
pub(crate) use queue::Losses;

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
/// Libraries warn of what a peer sent, once for each packet. What matters of it is told by lines of ours, which are limited. A filter
/// that names one shows its lines.
const LIBRARIES: &str = "rumqttc=off,rustls=off,tokio_rustls=off,hyper=off,hyper_util=off";
/// How long the last lines of a process may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// There is one stderr.
static QUEUE: Queue = Queue::new();

/// What is written of all lines.
fn filter(log: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(format!("{LIBRARIES},{log},{QUIET}")).with_context(|| format!("--log `{log}` is not a filter"))
}

impl LogArgs {
    /// Starts logging for the whole process: lines, panics among them, and [`say`].
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let filter = filter(&self.log)?;
        // A descriptor of our own: who writes through `std::io::stderr` holds its lock for as long as a pipe is full.
        let stderr = io::stderr().as_fd().try_clone_to_owned().context("stderr cannot be used")?;
        let format = self.log_format;
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer::run(&QUEUE, File::from(stderr), |lost| notice(format, lost)))
            .context("the log's thread cannot be started")?;
        // Its own errors would go to `eprintln!`, which panics when stderr is gone.
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| Line)
            .log_internal_errors(false);
        let started = match format {
            LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("logging could not start: {error}"))?;
        // The usual hook writes to stderr itself, and waits for it.
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("no message");
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let backtrace = std::backtrace::Backtrace::capture();
            let thread = std::thread::current();
            tracing::error!(thread = thread.name(), place, %backtrace, "panic: {message}; please report it");
        }));
        Ok(())
    }
}

/// Puts a line of plain text into the log, whatever its filter: the last words of the process.
pub(crate) fn say(text: &str) {
    QUEUE.push(format!("{text}\n").as_bytes(), Instant::now());
}

/// Waits until all is written, for a second at most.
pub(crate) fn flush() {
    QUEUE.flush(LAST_LINES);
}

/// Whether the thread that writes is there.
pub(crate) fn is_alive() -> bool {
    writer::is_alive()
}

/// Log lines lost so far.
pub(crate) fn losses() -> Losses {
    QUEUE.losses(Instant::now())
}

/// One line on its way to the queue; `tracing_subscriber` gives it whole.
struct Line;

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line, Instant::now());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that tells of lost ones; empty if warnings are not wanted. It takes no place in the queue, which is full when
/// lines are lost.
fn notice(format: LogFormat, lost: u64) -> Vec<u8> {
    if !tracing::enabled!(tracing::Level::WARN) {
        return Vec::new();
    }
    let mut time = String::new();
    if SystemTime.format_time(&mut Writer::new(&mut time)).is_err() {
        time.clear();
    }
    let message = if lost == 1 {
        "1 log line was dropped".to_owned()
    } else {
        format!("{lost} log lines were dropped")
    };
    let message = format!("{message}: stderr was not read fast enough, or could not be written");
    let target = module_path!();
    let mut line = String::new();
    let written = match format {
        LogFormat::Text => writeln!(line, "{time}  WARN {target}: {message} dropped={lost}"),
        LogFormat::Json => writeln!(
            line,
            "{}",
            serde_json::json!({"timestamp": time, "level": "WARN", "message": message, "dropped": lost, "target": target})
        ),
    };
    debug_assert!(written.is_ok(), "a String takes all");
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_of_libraries_that_peers_cause_are_shown_only_to_who_names_them() {
        let written = |log: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let writer = file.reopen().unwrap();
            let builder = tracing_subscriber::fmt().with_env_filter(filter(log).unwrap());
            let guard = tracing::subscriber::set_default(builder.with_writer(Mutex::new(writer)).finish());
            tracing::warn!(target: "rumqttc::v5::state", "PubAck");
            tracing::warn!(target: "rustls::msgs::handshake", "Illegal SNI");
            tracing::error!(target: "hyper::server", "parse");
            tracing::warn!(target: "rumqttd::router", "router");
            tracing::warn!(target: "forebay_broker", "ours");
            drop(guard);
            std::fs::read_to_string(file.path()).unwrap().lines().count()
        };
        for (log, lines) in [
            ("info", 1),
            ("debug", 1),
            ("info,forebay_bridge=debug", 1),
            ("info,rustls=warn", 2),
            ("error", 0),
        ] {
            assert_eq!(written(log), lines, "{log}");
        }
    }

    #[test]
    fn losses_are_told_in_the_form_of_the_log() {
        let _guard = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(io::sink).finish());
        let text = String::from_utf8(notice(LogFormat::Text, 12)).unwrap();
        assert!(
            text.contains("  WARN forebay::logging: 12 log lines were dropped: ") && text.ends_with("dropped=12\n"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_slice(&notice(LogFormat::Json, 1)).unwrap();
        assert_eq!((&json["level"], &json["dropped"]), (&"WARN".into(), &1.into()));
        assert!(json["message"].as_str().unwrap().starts_with("1 log line was dropped: "), "{json}");
    }
}
