//! Listening: a task per connection from its first byte on, so that no peer delays another.

mod pending_connects;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_topic::PeerText;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{self, Peer};
use crate::context::Context;
use crate::observe::{Disconnection, add};
use crate::tls::{self, IdentityTemplate, ServerTls};
use pending_connects::PendingConnect;
pub(crate) use pending_connects::PendingConnects;

/// How long to wait after a failed accept, for instance without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One listener of the configuration.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Its certificate and the CAs of its devices; `None` for plain TCP.
    pub tls: Option<Arc<ServerTls>>,
    /// How a certificate or a client id becomes an identity.
    pub identity: IdentityTemplate,
}

/// A bound listener.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) identity: Arc<IdentityTemplate>,
}

/// Bounds shared by all listeners.
#[derive(Clone)]
pub(crate) struct Gates {
    /// Connections; one more is closed at accept.
    pub(crate) connections: Arc<Semaphore>,
    /// Connections that have not sent CONNECT.
    pub(crate) pending: Arc<PendingConnects>,
}

/// Accepts until shutdown. Connections run in the context's tasks.
pub(crate) async fn run(listener: Listener, gates: Gates, context: Arc<Context>) {
    loop {
        let accepted = tokio::select! {
            () = context.shutdown.cancelled() => return,
            accepted = accept(&listener.socket, &gates.pending, &context) => accepted,
        };
        let Some((socket, address, pending)) = accepted else { continue };
        let Ok(place) = Arc::clone(&gates.connections).try_acquire_owned() else {
            context.stats.disconnect(Disconnection::TooManyConnections);
            if context.is_first_from(address.ip(), "too_many_connections") {
                tracing::warn!(peer = %address, limit = context.limits.max_connections, "a connection was closed: limits.max_connections is reached");
            }
            continue;
        };
        let (tls, identity) = (listener.tls.clone(), Arc::clone(&listener.identity));
        let tasks = context.tasks.clone();
        let context = Arc::clone(&context);
        tasks.spawn(async move {
            // Boxed, so that the handshake's memory is freed: a task keeps the memory of everything it awaits until it ends.
            let connection = Box::pin(handshake(socket, address, tls, identity, context, pending)).await;
            if let Some(connection) = connection {
                connection.await;
            }
            drop(place);
        });
    }
}

async fn accept(
    socket: &TcpListener,
    pending: &Arc<PendingConnects>,
    context: &Context,
) -> Option<(TcpStream, SocketAddr, PendingConnect)> {
    match socket.accept().await {
        Ok((socket, address)) => Some((socket, address, pending.admit().await?)),
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
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    identity: Arc<IdentityTemplate>,
    context: Arc<Context>,
    pending: PendingConnect,
) -> Option<Connection> {
    let deadline = Instant::now() + context.limits.connect_deadline;
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    // The system finds peers with MQTT keep-alive 0 that are gone.
    if let Err(error) = rustix::net::sockopt::set_socket_keepalive(&socket, true) {
        tracing::debug!(%error, "SO_KEEPALIVE could not be set");
    }
    let evicted = pending.evicted.clone();
    let opened = move || drop(pending);
    let Some(tls) = tls else {
        let peer = Peer {
            address,
            certificate: None,
            identity,
            evicted,
        };
        return Some(Box::pin(connection::serve(socket, peer, context, deadline, opened)));
    };
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
        Ok(accepted) => {
            let peer = Peer {
                address,
                certificate: Some(accepted.peer_certificate),
                identity,
                evicted,
            };
            Some(Box::pin(connection::serve(accepted.stream, peer, context, deadline, opened)))
        }
        Err(failure) => {
            context.stats.disconnect(Disconnection::Handshake);
            context.stats.handshake_fault(failure.fault.label());
            context.wrong_names.note(&failure);
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
