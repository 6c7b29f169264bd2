//! Listening: a task per connection from its first byte on, so that no peer delays another.

mod handshake_meter;
mod heard;
mod incoming;
mod opening;
mod pending_connects;
mod tcp_keep_alive;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_topic::PeerText;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::budget::{Bound, Charge, Exceeded, Owner};
use crate::connection::{self, Hub, Peer};
use crate::context::Context;
use crate::device_threads::{Seat, Seats};
use crate::observe::{Disconnection, add};
use crate::tls::{self, IdentityTemplate, ServerTls, TlsSource};
use handshake_meter::HandshakeMeter;
use incoming::Incoming;
pub use opening::cannot_listen;
use opening::wait_until_open;
pub(crate) use opening::{Opened, open};
pub(crate) use pending_connects::PendingConnects;
use pending_connects::{PendingConnect, Waiting};

/// How long to wait after a failed accept, for instance without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One listener of the configuration.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Gives its certificate and the CAs of its devices; `None` for plain TCP.
    pub tls: Option<TlsSource>,
    /// How a certificate or a client id becomes an identity.
    pub identity: IdentityTemplate,
}

/// A listener, open or not yet.
pub(crate) struct Listener {
    pub(crate) config: ListenerConfig,
    /// `Err` says why the first try failed.
    pub(crate) opened: Result<Opened, String>,
}

/// Bounds shared by all listeners.
#[derive(Clone)]
pub(crate) struct Gates {
    /// Connections that have not sent CONNECT.
    pub(crate) pending: Arc<PendingConnects>,
    /// The threads that connections live on.
    pub(crate) seats: Seats,
}

/// Accepts until shutdown, once the listener is open. Connections run in the context's tasks.
pub(crate) async fn run(listener: Listener, gates: Gates, context: Arc<Context>) {
    let Listener { config, opened } = listener;
    let opened = match opened {
        Ok(opened) => opened,
        Err(why) => match wait_until_open(&config, why, &context).await {
            Some(opened) => opened,
            None => return,
        },
    };
    let identity = Arc::new(config.identity);
    loop {
        let accepted = tokio::select! {
            () = context.shutdown.cancelled() => return,
            accepted = accept(&opened.socket, &context) => accepted,
        };
        let Some((socket, address)) = accepted else { continue };
        let now = std::time::Instant::now();
        let owner = match identity.fixed_word() {
            Some(_) => Owner::FixedWord,
            None => Owner::at(address.ip()),
        };
        let entry = match gates.pending.admit(&owner, now) {
            Ok(admitted) => Entry::Admitted(admitted),
            Err(exceeded) => match gates.pending.wait(&owner, now) {
                Some(waiting) => Entry::Waiting(waiting),
                None => {
                    refuse(exceeded, &owner, address, &context);
                    continue;
                }
            },
        };
        let Some((seat, socket)) = seated(socket, &gates.seats) else {
            continue;
        };
        let (tls, identity) = (opened.tls.clone(), Arc::clone(&identity));
        let tasks = context.tasks.clone();
        let context = Arc::clone(&context);
        // Boxed, so that the handshake's memory is freed: a task keeps the memory of everything it awaits until it ends.
        let opening = Box::pin(async move {
            let (pending, place) = entry.admitted(&owner, address, &context).await?;
            let hub = Arc::clone(&seat.thread.hub);
            let connection = handshake(socket, (address, owner), tls, identity, context, (pending, hub)).await?;
            Some((connection, place, seat))
        });
        let lives = tasks.clone();
        tasks.spawn(async move {
            if let Some((connection, place, seat)) = opening.await {
                let thread = seat.thread.handle.clone();
                let served = async move {
                    connection::in_turns(connection).await;
                    drop((place, seat));
                };
                lives.spawn_on(served, &thread);
            }
        });
    }
}

/// Moves an accepted socket to the thread that its connection will live on. `None` if the system cannot; then it is closed.
fn seated(socket: TcpStream, seats: &Seats) -> Option<(Seat, TcpStream)> {
    let seat = seats.take()?;
    let socket = socket.into_std().and_then(|socket| {
        let _there = seat.thread.handle.enter();
        TcpStream::from_std(socket)
    });
    match socket {
        Ok(socket) => Some((seat, socket)),
        Err(error) => {
            tracing::debug!(%error, "an accepted socket could not be moved to its thread");
            None
        }
    }
}

/// How an accepted connection comes to its place.
enum Entry {
    Admitted((PendingConnect, Charge)),
    Waiting(Waiting),
}

impl Entry {
    /// Its place before CONNECT and among the connections. `None` if it got none; then it is counted.
    async fn admitted(self, owner: &Owner, address: SocketAddr, context: &Context) -> Option<(PendingConnect, Charge)> {
        let waiting = match self {
            Self::Admitted(admitted) => return Some(admitted),
            Self::Waiting(waiting) => waiting,
        };
        tokio::select! {
            admitted = waiting.admit(context.limits.connect_timeout) => match admitted {
                Ok(admitted) => Some(admitted),
                Err(exceeded) => {
                    refuse(exceeded, owner, address, context);
                    None
                }
            },
            () = context.shutdown.cancelled() => {
                context.stats.disconnect(Disconnection::Shutdown);
                None
            }
        }
    }
}

/// Counts and logs a connection that is closed because there is no place for it.
fn refuse(exceeded: Exceeded, owner: &Owner, address: SocketAddr, context: &Context) {
    let cause = match exceeded.bound {
        Bound::Pending => Disconnection::TooManyPending,
        _ => Disconnection::TooManyConnections,
    };
    context.stats.disconnect(cause);
    context.budget.note(exceeded, owner);
    if context.is_first_from(address.ip(), cause.label()) {
        tracing::warn!(peer = %address, "a connection was closed: {exceeded}");
    }
}

async fn accept(socket: &TcpListener, context: &Context) -> Option<(TcpStream, SocketAddr)> {
    match socket.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            if context.is_first("listener", "accept") {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// A connection past its handshake.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends the TLS handshake, if the listener has TLS. `None` if it failed; then it is counted.
async fn handshake(
    socket: TcpStream,
    (address, owner): (SocketAddr, Owner),
    tls: Option<Arc<ServerTls>>,
    identity: Arc<IdentityTemplate>,
    context: Arc<Context>,
    (pending, hub): (PendingConnect, Arc<Hub>),
) -> Option<Connection> {
    let deadline = Instant::now() + context.limits.connect_timeout;
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    if let Err(error) = tcp_keep_alive::set(&socket, context.limits.max_keep_alive) {
        tracing::debug!(%error, "TCP's own keep-alive could not be set");
    }
    let heard = Arc::clone(&pending.heard);
    let evicted = pending.evicted.clone();
    let opened = move || drop(pending);
    let Some(tls) = tls else {
        let peer = Peer {
            address,
            certificate: None,
            identity,
            evicted,
            hub,
        };
        let socket = Incoming::plain(socket, heard);
        return Some(Box::pin(connection::serve(socket, peer, context, deadline, opened)));
    };
    let socket = Incoming::with_handshake(socket, heard, HandshakeMeter::new(owner, &context.budget));
    add(&context.stats.handshakes_pending, 1);
    let accepted = tokio::select! {
        accepted = Box::pin(tls::accept(socket, &tls, deadline)) => Ok(accepted),
        () = context.shutdown.cancelled() => Err(Disconnection::Shutdown),
        () = evicted.cancelled() => Err(Disconnection::Evicted),
    };
    context.stats.handshakes_pending.fetch_sub(1, Ordering::Relaxed);
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(cause) => {
            context.stats.disconnect(cause);
            return None;
        }
    };
    match accepted {
        Ok(mut accepted) => {
            accepted.stream.get_mut().0.end_handshake();
            let peer = Peer {
                address,
                certificate: Some(accepted.peer_certificate),
                identity,
                evicted,
                hub,
            };
            Some(Box::pin(connection::serve(accepted.stream, peer, context, deadline, opened)))
        }
        Err(failure) => {
            context.stats.disconnect(Disconnection::Handshake);
            context.stats.handshake_fault(failure.fault.label());
            context.wrong_names.note(&failure, address.ip());
            if failure.fault.is_noise() {
                tracing::debug!(peer = %address, "a TLS handshake failed: {failure}");
            } else if context.is_first_claiming(address.ip(), &failure.claimed(), failure.fault.label()) {
                let sni = PeerText::new(failure.sni.as_deref().unwrap_or("none"));
                tracing::warn!(peer = %address, ?sni, "a TLS handshake failed: {failure}");
            }
            None
        }
    }
}
