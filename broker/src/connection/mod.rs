//! One connection from CONNECT to its end.
//!
//! A reader task decodes and decides. The [`Outbox`] keeps the order and lets no answer leave before its commit. The thread's [`Hub`]
//! sends what its socket takes at once, a writer task the rest. The reader ends first. Then the connection waits until all that it appended is committed
//! or failed, publishes the will if it is due, and gives its session back: the next connection of the session begins with
//! its true state.

mod aliases;
mod chunk;
mod connect;
mod deliveries;
mod hub;
mod input;
mod link;
mod outbox;
mod outgoing;
mod reader;
mod turn;
mod will;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::{Disconnect, Packet, ReasonCode, Version, encode};
use crate::context::Context;
use crate::observe::{Disconnection, add, sub};
use crate::tls::{IdentityTemplate, PeerCertificate};
pub(crate) use hub::Hub;
use input::Input;
pub(crate) use input::{LOOK, SILENCE};
use outbox::{Closing, Outbox};
pub(crate) use turn::in_turns;
pub(crate) use will::resume as resume_will;

/// What is known of a peer before its CONNECT.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Option<PeerCertificate>,
    pub(crate) identity: Arc<IdentityTemplate>,
    /// Cancelled when its permit is needed for another connection, before CONNECT.
    pub(crate) evicted: CancellationToken,
    /// The hub of the thread that it is served on.
    pub(crate) hub: Arc<Hub>,
}

/// Serves one connection to its end. `opened` is called once it is past CONNECT.
pub(crate) async fn serve<S>(mut stream: S, peer: Peer, context: Arc<Context>, deadline: Instant, opened: impl FnOnce())
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (open, input) = match Box::pin(connect::open(&mut stream, &peer, &context, deadline, opened)).await {
        Ok(opened) => opened,
        Err(cause) => {
            context.stats.disconnect(cause);
            return;
        }
    };
    add(&context.stats.connects, 1);
    let connected = context.stats.connected.fetch_add(1, Ordering::Relaxed) + 1;
    context.stats.most_connected.fetch_max(connected, Ordering::Relaxed);
    open.ingress.device.connected();
    open.ingress.device.seen(context.clock.now().wall_ms);
    let device = Arc::clone(&open.ingress.device);
    let identity = Arc::clone(&open.ingress.key.identity);
    context.observer.connected(&identity, peer.address, context.clock.now());
    let cause = run(stream, input, open, &context).await;
    device.disconnected(cause, peer.address);
    context.observer.ended(&identity, peer.address, cause, context.clock.now());
    sub(&context.stats.connected, 1);
    match cause {
        Some(cause) => context.stats.disconnect(cause),
        None => add(&context.stats.clean_disconnects, 1),
    }
}

/// The future that a connection is in for most of its life. It contains nothing that only its beginning or its end needs.
fn run<S>(stream: S, input: Input, open: connect::Open, context: &Arc<Context>) -> impl Future<Output = Option<Disconnection>> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let link = link::Link::new(stream, Arc::clone(&context.stats));
    let (read, output) = (link.half(), link.half());
    let outbox = Arc::clone(&open.outbox);
    outbox.connect(Some(link));
    let writer = tokio::spawn(writer::run(output, Arc::clone(&outbox), Arc::clone(context)));
    let mut reader = Box::new(reader(open, context));
    let context = Arc::clone(context);
    async move {
        let closing = reader.run(read, input).await;
        outbox.seal(closing);
        Box::pin(finish(reader.end(), writer, outbox, closing, &context)).await
    }
}

fn reader(open: connect::Open, context: &Arc<Context>) -> reader::Reader {
    let deliveries = deliveries::Deliveries::new(Arc::clone(context), &open);
    reader::Reader::new(open, deliveries)
}

async fn finish(
    ended: reader::Ended,
    writer: JoinHandle<()>,
    outbox: Arc<Outbox>,
    closing: Closing,
    context: &Arc<Context>,
) -> Option<Disconnection> {
    let reader::Ended {
        mut ingress,
        mut attached,
        deliveries,
        will,
    } = ended;
    // The writer ends once nothing is pending: all that was appended is committed or failed.
    if let Err(error) = writer.await {
        tracing::error!(%error, "a connection's writer failed");
    }
    drop(deliveries);
    reader::forget_failed(&outbox, &mut attached.state.qos2);
    let closing = outbox.closing().unwrap_or(closing);
    let expiry = attached.state.expiry_seconds;
    let delay = will.as_ref().map_or(0, |will| will.delay()).min(expiry);
    match will {
        Some(will) if delay == 0 => will.publish(&mut ingress, context, outbox.commits.latest_committed()).await,
        Some(will) => {
            will.note_delay(delay, &ingress.key, context);
            let fate = context.registry.detach(attached).await;
            let delay = Duration::from_secs(u64::from(delay));
            context
                .tasks
                .spawn(will.publish_later(delay, fate, ingress, Arc::clone(context), outbox.commits.latest_committed()));
            return closing.cause;
        }
        None => {}
    }
    context.registry.detach(attached).await;
    closing.cause
}

/// A DISCONNECT with a reason, for version 5 only (MQTT-3.14.0-1).
fn write_disconnect(version: Version, reason: ReasonCode, out: &mut BytesMut) {
    if version == Version::V5 && encode(&Packet::Disconnect(Disconnect::new(reason)), version, out).is_err() {
        tracing::debug!(%reason, "a DISCONNECT could not be encoded");
    }
}

impl Closing {
    fn because(cause: Disconnection, say: ReasonCode) -> Self {
        Self {
            cause: Some(cause),
            say: Some(say),
        }
    }

    fn silently(cause: Disconnection) -> Self {
        Self {
            cause: Some(cause),
            say: None,
        }
    }
}
