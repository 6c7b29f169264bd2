//! A TCP proxy that cuts lines: what a mobile network, a NAT and a pulled plug do to a connection.
#![allow(dead_code, unreachable_pub, reason = "shared by integration tests; each uses its part")]

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// No limit on the bytes forwarded.
const UNLIMITED: u64 = u64::MAX;

/// How the line is now. Each change wakes every connection.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Connections of an earlier generation are reset.
    generation: u64,
    refuse: bool,
    black_hole: bool,
    delay: Duration,
}

/// A proxy in front of `upstream`. Dropping it closes all connections and frees its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    /// Bytes that may still be forwarded, both ways together.
    budget: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    forwarded: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let line = Arc::new(watch::Sender::new(Line::default()));
        let shared = Shared {
            line: Arc::clone(&line),
            budget: Arc::new(AtomicU64::new(UNLIMITED)),
            forwarded: Arc::new(AtomicU64::new(0)),
        };
        let (budget, forwarded) = (Arc::clone(&shared.budget), Arc::clone(&shared.forwarded));
        let accepted = Arc::new(AtomicU64::new(0));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, upstream, shared, Arc::clone(&accepted)));
        Self {
            address,
            line,
            budget,
            accepted,
            forwarded,
            _task: task,
        }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, on both sides.
    pub fn cut(&self) {
        self.line.send_modify(|line| line.generation += 1);
    }

    /// While on, new connections are accepted and reset at once; the ones that are stay.
    pub fn refuse(&self, on: bool) {
        self.line.send_modify(|line| line.refuse = on);
    }

    /// While on, connections are accepted and kept and nothing is forwarded, as behind a NAT that forgot them.
    /// Nothing is lost: what waits goes on when it is off.
    pub fn black_hole(&self, on: bool) {
        self.line.send_modify(|line| line.black_hole = on);
    }

    /// Every piece of data arrives this much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.line.send_modify(|line| line.delay = delay);
    }

    /// Forwards this many more bytes, both ways together, then resets the connections, in the middle of a packet if need
    /// be. Connections made after that are not limited.
    pub fn cut_after_bytes(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Bytes forwarded so far, both ways together.
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Debug)]
struct Shared {
    line: Arc<watch::Sender<Line>>,
    budget: Arc<AtomicU64>,
    forwarded: Arc<AtomicU64>,
}

async fn accept(listener: TcpListener, upstream: SocketAddr, shared: Shared, accepted: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let Ok((client, _)) = incoming else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connect(client, upstream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut client: TcpStream, upstream: SocketAddr, shared: Shared) {
    let mut watch = shared.line.subscribe();
    let Line { generation, refuse, .. } = *watch.borrow_and_update();
    if refuse {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return reset(&client);
    };
    for stream in [&client, &server] {
        warn(stream.set_nodelay(true));
    }
    let ended_well = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            _ = watch.wait_for(|line| line.generation != generation) => false,
            both = async { tokio::try_join!(pump(client_read, server_write, &shared), pump(server_read, client_write, &shared)) } => both.is_ok(),
        }
    };
    if !ended_well {
        reset(&client);
        reset(&server);
    }
}

/// Makes the coming close an RST.
fn reset(stream: &TcpStream) {
    warn(stream.set_zero_linger());
}

fn warn(result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("proxy: a socket option is not set: {error}");
    }
}

/// Forwards one direction until its end, which is passed on as FIN.
async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, shared: &Shared) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::try_join!(read(from, sender, shared), write(to, receiver, shared)).map(|_| ())
}

/// Reads pieces and notes when each is due.
async fn read(mut from: ReadHalf<'_>, pieces: mpsc::Sender<(Instant, Vec<u8>)>, shared: &Shared) -> io::Result<()> {
    let mut watch = shared.line.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        open(&mut watch).await;
        let count = from.read(&mut buffer).await?;
        let delay = watch.borrow().delay;
        let piece = (Instant::now() + delay, buffer[..count].to_vec());
        if pieces.send(piece).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}

/// Writes each piece when it is due; an empty one is the end.
async fn write(mut to: WriteHalf<'_>, mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>, shared: &Shared) -> io::Result<()> {
    let mut watch = shared.line.subscribe();
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        // What was read just before the line went dark waits here.
        open(&mut watch).await;
        if piece.is_empty() {
            return to.shutdown().await;
        }
        let allowed = shared.spend(piece.len());
        to.write_all(&piece[..allowed]).await?;
        shared.forwarded.fetch_add(allowed as u64, Ordering::SeqCst);
        if allowed < piece.len() {
            shared.budget.store(UNLIMITED, Ordering::SeqCst);
            shared.line.send_modify(|line| line.generation += 1);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    Ok(())
}

async fn open(watch: &mut watch::Receiver<Line>) {
    if watch.wait_for(|line| !line.black_hole).await.is_err() {
        // The proxy is gone, and this task with it.
        std::future::pending::<()>().await;
    }
}

impl Shared {
    /// Takes up to `count` bytes of the budget.
    fn spend(&self, count: usize) -> usize {
        let mut allowed = count;
        let taken = self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            allowed = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            (left != UNLIMITED).then(|| left - allowed as u64)
        });
        if taken.is_err() {
            return count;
        }
        allowed
    }
}
