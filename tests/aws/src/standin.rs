//! The running stand-in: its port, its tasks and the handles on them.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    config::{StandinConfig, TlsConfigError},
    connection::{self, Shared},
    faults::{Faults, ListenCommand},
    hub::Hub,
    ledger::Ledger,
    stats::{ConnectRecord, Counters, Stats, add},
    tls,
    violations::Violations,
    wire::Wire,
};

/// Pending connections the kernel may queue.
const BACKLOG: u32 = 1024;
/// How long the port may stay taken after it was listened on.
const REBIND: Duration = Duration::from_secs(1);

/// A stand-in could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another address, or port 0 for a free one")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The TLS material is not usable.
    #[error("the TLS material of the stand-in is not usable")]
    Tls(#[from] TlsConfigError),
}

/// A running stand-in for AWS IoT Core. Dropping it stops it without waiting; [`shutdown`](Self::shutdown) waits.
#[derive(Debug)]
pub struct Standin {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Standin {
    /// Starts listening. When this returns clients can connect.
    ///
    /// # Errors
    /// When the address cannot be bound or the TLS material is not usable.
    pub async fn start(config: StandinConfig) -> Result<Self, StartError> {
        let violations = Arc::new(Violations::default());
        let acceptor = config
            .tls
            .as_ref()
            .map(|tls| tls::server_config(tls, Arc::clone(&violations)))
            .transpose()?
            .map(TlsAcceptor::from);
        let asked = config.address;
        let listen_error = |source| StartError::Listen { address: asked, source };
        let listener = bind(asked).and_then(|socket| socket.listen(BACKLOG)).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let hub = Arc::new(Hub::default());
        let (commands, receiver) = mpsc::channel(8);
        let faults = Faults::new(config.policy.clone(), Arc::clone(&hub), commands, tasks.clone(), shutdown.clone());
        let shared = Arc::new(Shared {
            ledger: config.ledger.clone().unwrap_or_default(),
            config,
            hub,
            faults,
            violations,
            counters: Counters::new(),
        });
        let front = Front {
            address,
            shared: Arc::clone(&shared),
            acceptor,
            period: Period::new(&shutdown),
        };
        tasks.spawn(front.run(listener, receiver, shutdown.clone()));
        Ok(Self {
            address,
            shared,
            tasks,
            stop: shutdown.drop_guard(),
        })
    }

    /// Where it listens. It keeps this port while the cloud is "away". For TLS dial a name: rustls sends no SNI for an address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was committed. Hand the same ledger to the next stand-in to go on with it.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.shared.ledger)
    }

    /// The fault script.
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// What the clients did that AWS forbids; at most the first thousand.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.list()
    }

    /// How many violations there were.
    pub fn violation_count(&self) -> u64 {
        self.shared.violations.count()
    }

    /// Why handshakes were refused; at most the last thousand.
    pub fn refusals(&self) -> Vec<String> {
        self.shared.counters.refusals()
    }

    /// The CONNECTs that came, oldest first; at most the last ten thousand.
    pub fn connects(&self) -> Vec<ConnectRecord> {
        self.shared.counters.records()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats(self.shared.hub.connected())
    }

    /// Resets every connection, frees the port and waits for all tasks.
    pub async fn shutdown(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A socket that holds the port: not listening, so that connecting is refused.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// [`bind`] for a port that was listened on a moment ago: a process that is being started elsewhere in this one holds a
/// copy of the old socket until its `exec`.
async fn bind_again(address: SocketAddr) -> io::Result<TcpSocket> {
    let until = Instant::now() + REBIND;
    loop {
        match bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => tokio::time::sleep(REBIND / 1000).await,
            bound => return bound,
        }
    }
}

/// The accept loop.
struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<TlsAcceptor>,
    period: Period,
}

/// The connections of one time of listening: they all end with it.
struct Period {
    over: CancellationToken,
    connections: TaskTracker,
}

impl Period {
    fn new(shutdown: &CancellationToken) -> Self {
        Self {
            over: shutdown.child_token(),
            connections: TaskTracker::new(),
        }
    }

    async fn end(&self) {
        self.over.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

enum Socket {
    Listening(TcpListener),
    Held(TcpSocket),
    /// Neither worked; the next command tries again.
    Lost,
}

impl Front {
    async fn run(mut self, listener: TcpListener, mut commands: mpsc::Receiver<ListenCommand>, shutdown: CancellationToken) {
        let mut socket = Socket::Listening(listener);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                command = commands.recv() => match command {
                    Some(ListenCommand::Stop(done)) => {
                        let result = self.stop(&mut socket).await;
                        self.period = Period::new(&shutdown);
                        // The asker may have gone; nobody else wants the answer.
                        drop(done.send(result));
                    }
                    Some(ListenCommand::Resume(done)) => drop(done.send(self.resume(&mut socket))),
                    None => break,
                },
                tcp = accept(&socket) => self.accepted(tcp),
            }
        }
        drop(socket);
        self.period.end().await;
    }

    async fn stop(&self, socket: &mut Socket) -> io::Result<()> {
        if matches!(socket, Socket::Listening(_)) {
            *socket = Socket::Lost;
            *socket = Socket::Held(bind_again(self.address).await?);
        }
        self.period.end().await;
        Ok(())
    }

    fn resume(&self, socket: &mut Socket) -> io::Result<()> {
        let held = match std::mem::replace(socket, Socket::Lost) {
            Socket::Listening(listener) => {
                *socket = Socket::Listening(listener);
                return Ok(());
            }
            Socket::Held(held) => held,
            Socket::Lost => bind(self.address)?,
        };
        *socket = Socket::Listening(held.listen(BACKLOG)?);
        Ok(())
    }

    fn accepted(&self, tcp: TcpStream) {
        add(&self.shared.counters.accepted);
        let shared = Arc::clone(&self.shared);
        let acceptor = self.acceptor.clone();
        let over = self.period.over.clone();
        self.period.connections.spawn(async move {
            let reset = Arc::new(AtomicBool::new(false));
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY is not set");
            }
            let wire = Wire::new(tcp, Arc::clone(&reset));
            let Some(acceptor) = acceptor else {
                return connection::serve(shared, wire, reset, over).await;
            };
            let handshake = tokio::time::timeout(shared.config.limits.handshake, acceptor.accept(wire));
            match over.run_until_cancelled(handshake).await {
                Some(Ok(Ok(stream))) => connection::serve(shared, stream, reset, over).await,
                Some(Ok(Err(error))) => shared.counters.refusal(format!("TLS: {error}")),
                Some(Err(_)) => shared.counters.refusal("TLS: the handshake took too long".to_owned()),
                None => {}
            }
        });
    }
}

async fn accept(socket: &Socket) -> TcpStream {
    let Socket::Listening(listener) = socket else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return tcp,
            // A peer that left before it was accepted, or no descriptors: the next may fare better.
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::task::yield_now().await;
            }
        }
    }
}
