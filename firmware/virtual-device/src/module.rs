//! A stand-in for the ISM43362: plays its commands over any stream of bytes, with real sockets behind, and fails on demand.
//!
//! It stands at the other end of the emulator's serial line, and of a pipe in the host's tests. It plays what the driver in
//! `firmware/crates/eswifi` says, in the words of the module's AT command set, and refuses everything else.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

/// Commands are short; a longer line is nonsense.
const MAX_LINE: usize = 128;
/// The module's own limit for one read or write.
const MAX_CHUNK: usize = 1460;
const GREETING: &[u8] = b"\r\neS-WiFi\r\n> ";
/// How long the module tries to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// What is wrong with the module; all of it can change while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It hears, and answers nothing; a reset does not help.
    pub is_dead: bool,
    /// It answers nothing until it is reset.
    pub is_stuck: bool,
    /// The access point takes nobody.
    pub refuses_join: bool,
    /// The next so many answers are cut in the middle, without a prompt.
    pub cut_answers: u32,
    /// The next so many answers are noise with a prompt.
    pub noise: u32,
    /// It resets itself before the next command: what was joined and open is gone, and it greets.
    pub resets_itself: bool,
    /// It closes its socket before the next command, as if the peer had.
    pub drops_connection: bool,
}

/// What the module has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Commands, known or not.
    pub commands: u64,
    /// Resets asked for.
    pub resets: u64,
    /// Joins that went well.
    pub joins: u64,
    /// Connections that were tried.
    pub dials: u64,
    /// Connections that were opened.
    pub connections: u64,
}

/// The knobs and the counters of a stand-in.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Mutex<(Faults, Seen)>>);

impl Control {
    /// Changes what is wrong.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().0);
    }

    /// What was done so far.
    pub fn seen(&self) -> Seen {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Faults, Seen)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a fault that holds for one command.
    fn once(&self, fault: impl FnOnce(&mut Faults) -> &mut bool) -> bool {
        std::mem::take(fault(&mut self.lock().0))
    }

    fn count_down(&self, fault: impl FnOnce(&mut Faults) -> &mut u32) -> bool {
        let mut lock = self.lock();
        let left = fault(&mut lock.0);
        let is_left = *left > 0;
        *left = left.saturating_sub(1);
        is_left
    }
}

/// Plays a module to everyone who connects, one after the other, as the emulator does at each start.
///
/// # Errors
/// The listener fails.
pub async fn listen(listener: TcpListener, control: Control) -> io::Result<()> {
    loop {
        let (line, _) = listener.accept().await?;
        line.set_nodelay(true)?;
        // The emulator ends with its line: the module then waits for the next.
        play(line, control.clone()).await.ok();
    }
}

/// Plays a module over one line, until the line ends.
///
/// # Errors
/// The line fails.
pub async fn play(line: impl AsyncRead + AsyncWrite + Unpin, control: Control) -> io::Result<()> {
    let mut module = Module {
        line,
        control,
        is_joined: false,
        address: String::new(),
        port: 0,
        read_size: MAX_CHUNK,
        read_wait: Duration::from_millis(100),
        socket: None,
        is_closed: false,
    };
    loop {
        let Some(command) = module.command().await? else { return Ok(()) };
        module.control.lock().1.commands += 1;
        module.obey(&command).await?;
    }
}

struct Module<L> {
    line: L,
    control: Control,
    is_joined: bool,
    address: String,
    port: u16,
    read_size: usize,
    read_wait: Duration,
    socket: Option<TcpStream>,
    /// The peer has closed the socket.
    is_closed: bool,
}

/// What a command is answered with.
enum Answer {
    Well(Vec<u8>),
    Refused,
}

impl Answer {
    fn text(text: impl Into<String>) -> Self {
        Self::Well(text.into().into_bytes())
    }

    const DONE: Self = Self::Well(Vec::new());
}

impl<L: AsyncRead + AsyncWrite + Unpin> Module<L> {
    /// The next line; none when the line has ended.
    async fn command(&mut self) -> io::Result<Option<String>> {
        let mut command = Vec::new();
        loop {
            match self.line.read_u8().await {
                Ok(b'\r') => return Ok(Some(String::from_utf8_lossy(&command).into_owned())),
                // What fills a command up.
                Ok(b'\n') => {}
                Ok(byte) if command.len() < MAX_LINE => command.push(byte),
                Ok(_) => command.clear(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    async fn obey(&mut self, command: &str) -> io::Result<()> {
        let faults = self.control.lock().0;
        // Bytes that belong to a write are taken off the line whatever becomes of it.
        let payload = match command.strip_prefix("S3=").map(str::parse) {
            Some(Ok(length)) if (1..=MAX_CHUNK).contains(&length) => {
                let mut payload = vec![0; length];
                self.line.read_exact(&mut payload).await?;
                Some(payload)
            }
            _ => None,
        };
        if faults.is_dead {
            return Ok(());
        }
        if command == "ZR" {
            self.control.lock().1.resets += 1;
            self.control.set(|faults| faults.is_stuck = false);
            return self.greet().await;
        }
        if faults.is_stuck || command.is_empty() {
            return Ok(());
        }
        if self.control.once(|faults| &mut faults.resets_itself) {
            // The command that woke it is lost.
            return self.greet().await;
        }
        if self.control.once(|faults| &mut faults.drops_connection) {
            self.socket = None;
            self.is_closed = true;
        }
        let answer = self.answer(command, payload).await;
        self.say(answer).await
    }

    async fn greet(&mut self) -> io::Result<()> {
        self.is_joined = false;
        self.socket = None;
        self.is_closed = false;
        self.line.write_all(GREETING).await?;
        self.line.flush().await
    }

    async fn say(&mut self, answer: Answer) -> io::Result<()> {
        let mut bytes = b"\r\n".to_vec();
        match answer {
            Answer::Well(body) if body.is_empty() => bytes.extend(b"\r\nOK\r\n> "),
            Answer::Well(body) => {
                bytes.extend(body);
                bytes.extend(b"\r\nOK\r\n> ");
            }
            Answer::Refused => bytes.extend(b"ERROR: it cannot be done\r\nERROR\r\n> "),
        }
        if self.control.count_down(|faults| &mut faults.cut_answers) {
            bytes.truncate(bytes.len() / 2);
        }
        if self.control.count_down(|faults| &mut faults.noise) {
            bytes = b"\xff\x15\x00ERR\r\n> ".to_vec();
        }
        self.line.write_all(&bytes).await?;
        self.line.flush().await
    }

    async fn answer(&mut self, command: &str, payload: Option<Vec<u8>>) -> Answer {
        let (name, value) = command.split_once('=').unwrap_or((command, ""));
        match name {
            // The network's name, pass phrase, kind and DHCP; protocol and number of the socket; time-out of writes.
            "C1" | "C2" | "C3" | "C4" | "P0" | "P1" | "S2" => Answer::DONE,
            "C0" => self.join(),
            "CS" => Answer::text(if self.is_joined { "1" } else { "0" }),
            "CR" if self.is_joined => Answer::text("-58"),
            "D0" => self.resolve(value).await,
            "P3" => self.set(value, |module, address: std::net::Ipv4Addr| module.address = address.to_string()),
            "P4" => self.set(value, |module, port| module.port = port),
            "P6" => self.connect(value == "1").await,
            "R1" => self.set(value, |module, size: usize| module.read_size = size.clamp(1, MAX_CHUNK)),
            "R2" => self.set(value, |module, millis| module.read_wait = Duration::from_millis(millis)),
            "R0" => self.read().await,
            "S3" => self.write(payload).await,
            _ => Answer::Refused,
        }
    }

    fn set<V: std::str::FromStr>(&mut self, value: &str, set: impl FnOnce(&mut Self, V)) -> Answer {
        match value.parse() {
            Ok(value) => {
                set(self, value);
                Answer::DONE
            }
            Err(_) => Answer::Refused,
        }
    }

    fn join(&mut self) -> Answer {
        if self.control.lock().0.refuses_join {
            return Answer::Refused;
        }
        self.is_joined = true;
        self.control.lock().1.joins += 1;
        Answer::text("JOIN   plant,192.168.10.77,0,0")
    }

    async fn resolve(&self, name: &str) -> Answer {
        if !self.is_joined {
            return Answer::Refused;
        }
        let found = lookup_host((name, 0)).await;
        match found.ok().and_then(|mut found| found.find(std::net::SocketAddr::is_ipv4)) {
            Some(address) => Answer::text(address.ip().to_string()),
            None => Answer::Refused,
        }
    }

    async fn connect(&mut self, start: bool) -> Answer {
        let was_open = self.socket.take().is_some() || std::mem::take(&mut self.is_closed);
        if !start {
            return if was_open { Answer::DONE } else { Answer::Refused };
        }
        if !self.is_joined {
            return Answer::Refused;
        }
        self.control.lock().1.dials += 1;
        let dialled = timeout(CONNECT, TcpStream::connect((self.address.as_str(), self.port))).await;
        let Ok(Ok(socket)) = dialled else { return Answer::Refused };
        if socket.set_nodelay(true).is_err() {
            return Answer::Refused;
        }
        self.socket = Some(socket);
        self.control.lock().1.connections += 1;
        Answer::DONE
    }

    async fn read(&mut self) -> Answer {
        let closed = || Answer::text("-1");
        if self.is_closed {
            return closed();
        }
        let Some(socket) = &mut self.socket else { return Answer::Refused };
        let mut bytes = vec![0; self.read_size];
        match timeout(self.read_wait, socket.read(&mut bytes)).await {
            Err(_) => Answer::DONE,
            Ok(Ok(0) | Err(_)) => {
                self.is_closed = true;
                closed()
            }
            Ok(Ok(count)) => {
                bytes.truncate(count);
                Answer::Well(bytes)
            }
        }
    }

    async fn write(&mut self, payload: Option<Vec<u8>>) -> Answer {
        let (Some(socket), Some(payload)) = (&mut self.socket, payload) else {
            return Answer::text("-1");
        };
        match socket.write_all(&payload).await {
            Ok(()) => Answer::text(payload.len().to_string()),
            Err(_) => Answer::text("-1"),
        }
    }
}
