//! A server under test: started, found ready, looked at, stopped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::Value;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A running server with a plain and a mutual TLS listener. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    /// Plain TCP.
    pub plain: SocketAddr,
    /// Mutual TLS.
    pub tls: SocketAddr,
    /// Its admin page, where it says that it has one.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Starts a server that says `ready listeners=PLAIN,TLS ...` on stdout.
    ///
    /// # Errors
    ///
    /// It does not start, ends early, or is not ready in 30 s; the end of its log says why.
    pub fn announced(mut command: Command, directory: &Path) -> anyhow::Result<Server> {
        let log = directory.join("server.log");
        let mut child = spawn(command.stdout(Stdio::piped()), &log)?;
        let stdout = child.stdout.take().context("its stdout is piped")?;
        let (announce, announced) = mpsc::sync_channel(1);
        // Reads on to the end, so that the server never waits for us.
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            if let Some(line) = lines.find(|line| line.starts_with("ready ")) {
                announce.send(line).ok();
            }
            lines.for_each(drop);
        });
        let mut server = Server {
            child,
            log,
            plain: unspecified(),
            tls: unspecified(),
            admin: None,
        };
        let Ok(line) = announced.recv_timeout(READY_TIMEOUT) else {
            bail!("no `ready` line within 30 s; its log ends:\n{}", server.log_end())
        };
        let listeners = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("listeners="));
        let parse = || {
            let (plain, tls) = listeners?.split_once(',')?;
            Some((plain.parse().ok()?, tls.parse().ok()?))
        };
        let admin = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("admin="));
        server.admin = admin.and_then(|address| address.parse().ok());
        (server.plain, server.tls) = parse().with_context(|| format!("two listeners expected in `{line}`"))?;
        Ok(server)
    }

    /// Starts a server that says nothing; it is ready when both ports take connections.
    ///
    /// # Errors
    ///
    /// As [`Server::announced`].
    pub fn silent(mut command: Command, directory: &Path, plain: SocketAddr, tls: SocketAddr) -> anyhow::Result<Server> {
        let log = directory.join("server.log");
        let child = spawn(command.stdout(Stdio::null()), &log)?;
        let mut server = Server {
            child,
            log,
            plain,
            tls,
            admin: None,
        };
        let deadline = Instant::now() + READY_TIMEOUT;
        while TcpStream::connect(plain).is_err() || TcpStream::connect(tls).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("it ended at once ({status}); its log ends:\n{}", server.log_end());
            }
            if Instant::now() > deadline {
                bail!("not listening after 30 s; its log ends:\n{}", server.log_end());
            }
            thread::park_timeout(POLL);
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            signal,
        )?)
    }

    /// Kills it, as a power cut ends it, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// It has ended by itself.
    pub fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended by itself with {status}; its log ends:\n{}", self.log_end());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    ///
    /// It ends with a failure, or not within 30 s.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("it ended with {status}; its log ends:\n{}", self.log_end()),
                None if Instant::now() > deadline => bail!("still running 30 s after SIGTERM; its log ends:\n{}", self.log_end()),
                None => thread::park_timeout(POLL),
            }
        }
    }

    /// What its admin page says of itself.
    ///
    /// # Errors
    ///
    /// It has no admin page, or does not answer within 10 s.
    pub fn status(&self) -> anyhow::Result<Value> {
        let address = self.admin.context("it has no admin page")?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        write!(stream, "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading /status")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("/status has no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// The last lines it logged.
    pub fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let lines: Vec<_> = String::from_utf8_lossy(&log).lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is fine: this is the way out after a failure.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that nobody listens on right now.
///
/// # Errors
///
/// Loopback has none left.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The first line a command prints.
pub fn first_line(command: &mut Command) -> Option<String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    child.wait().ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("creating {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))
}

fn unspecified() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
