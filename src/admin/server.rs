//! Sockets: accept, bound, serve one request each, end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_broker::cannot_listen;
use forebay_topic::Repeated;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::log::{AnswerBody, LogPages, Progress, whole};
use super::places::Places;
use super::{State, host, pages, sessions};

/// Bytes of a request's head, and of the buffer for it.
const MAX_HEAD: usize = 16 * 1024;
/// How long open answers may take at shutdown.
const GRACE: Duration = Duration::from_secs(1);
/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the figures are sampled for rates.
const SAMPLE: Duration = Duration::from_secs(1);

/// The admin server, not yet answering.
#[derive(Debug)]
pub(crate) struct Server {
    /// `Err` if the address cannot be had yet, and why; it is tried again each second.
    listener: Result<TcpListener, String>,
    address: SocketAddr,
    pub(super) limits: Limits,
}

/// What one peer, and all of them, may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once, a quarter of them from one address; further ones are closed at once.
    pub(super) connections: usize,
    /// How long a request's head may take.
    pub(super) head: Duration,
    /// How long a connection may last in all.
    pub(super) connection: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(30),
};

/// Takes the address, or leaves that to [`Server::run`] if it cannot be had yet.
pub(crate) async fn bind(address: SocketAddr) -> Server {
    let listener = listen(address).await;
    let bound = listener.as_ref().ok().and_then(|listener| listener.local_addr().ok());
    Server {
        listener,
        address: bound.unwrap_or(address),
        limits: LIMITS,
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| cannot_listen(&error))
}

/// The next connection; never ends while there is no listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

impl Server {
    /// The address, with its real port once it is bound.
    #[must_use]
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until shutdown, and samples the figures every second. Open answers get a second more.
    pub(crate) async fn run(mut self, state: State, shutdown: CancellationToken) {
        let (mut tasks, mut was_slow) = (JoinSet::new(), false);
        let places = Places::new(self.limits.connections);
        let mut sample = tokio::time::interval(SAMPLE);
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = sample.tick() => {
                    let now = Instant::now();
                    let slow = state.telemetry.look(now).and_then(|look| look.commit_slow);
                    if slow.is_some() && !was_slow {
                        tracing::error!("records have waited ten seconds for a commit: the disk does not answer; devices wait for their acks. Check the disk (`dmesg`)");
                    }
                    was_slow = slow.is_some();
                    self.try_again(&state).await;
                    for Repeated { who, reason, more } in state.peer_log.due(now) {
                        tracing::warn!(who, reason, "{more} more in the last minute");
                    }
                }
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a task of the admin server failed");
                    }
                }
                accepted = accept(self.listener.as_ref().ok()) => match accepted {
                    Ok((socket, peer)) => match places.take(peer.ip()) {
                        Some(place) => {
                            // `/status` is for those on this machine, reached over its loopback.
                            let is_local = is_local(self.address, peer);
                            let serving = serve(socket, peer, is_local, state.clone(), self.limits);
                            tasks.spawn(async move {
                                serving.await;
                                drop(place);
                            });
                        }
                        None if state.peer_log.is_first_from(peer.ip(), "admin_connections", Instant::now()) => {
                            tracing::warn!(%peer, "an admin connection was closed: {} are open, or a quarter of these from this address; look for a program that opens many", self.limits.connections);
                        }
                        None => {}
                    },
                    Err(error) => {
                        tracing::warn!(%error, "the admin server cannot accept connections; raise the limit of open files if this repeats");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::debug!("admin connections were closed at shutdown");
        }
    }

    /// Another try to take an address that could not be had.
    async fn try_again(&mut self, state: &State) {
        let Err(why) = &self.listener else { return };
        if state.peer_log.is_first(&self.address.to_string(), "admin_closed", Instant::now()) {
            tracing::error!(address = %self.address, "the admin server cannot serve: {why}; it is tried again each second, and devices are served meanwhile");
        }
        self.listener = listen(self.address).await;
        if self.listener.is_ok() {
            tracing::info!(address = %self.address, "the admin server serves now");
        }
    }
}

/// Whether the peer is on this machine: no other peer can have that address.
pub(super) fn is_local(bound: SocketAddr, peer: SocketAddr) -> bool {
    [bound, peer].iter().all(|address| address.ip().to_canonical().is_loopback())
}

async fn serve(socket: TcpStream, peer: SocketAddr, is_local: bool, state: State, limits: Limits) {
    let progress = Arc::new(Progress::default());
    let answer = service_fn(|request| {
        let (state, progress) = (state.clone(), Arc::clone(&progress));
        async move { Ok::<_, Infallible>(answer(request, state, peer, is_local, progress).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), answer);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%peer, %error, "an admin request failed");
        },
        () = overdue(&progress, limits.connection) => {
            tracing::debug!(%peer, "an admin client read nothing for {:?}; its connection was closed", limits.connection);
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    state: State,
    peer: SocketAddr,
    is_local: bool,
    progress: Arc<Progress>,
) -> Response<AnswerBody> {
    if let Some(refused) = host::refusal(&request, &state, peer) {
        return whole(refused);
    }
    if sessions::has(request.uri().path())
        && let Some(front) = state.front.get()
    {
        return whole(sessions::answer(front, request, &state, peer, is_local).await);
    }
    match state.log.get().filter(|_| LogPages::has(request.uri().path())) {
        Some(log) => log.answer(request, &state, peer, is_local, progress).await,
        None => whole(pages::answer(&request, &state, is_local)),
    }
}

/// Ends when a connection has lasted too long, or, where its answer is made while it is sent, when nothing of that was
/// taken for so long.
async fn overdue(progress: &Progress, limit: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(limit).await;
        if !progress.may_go_on(&mut seen) {
            return;
        }
    }
}
