//! One connection from CONNECT to its end.
//!
//! A reader task decodes and decides, a writer task sends. Between them is the [`Outbox`], which keeps the order and lets no
//! answer leave before its commit. The reader ends first. Then the connection waits until all that it appended is committed
//! or failed, publishes the will if it is due, and gives its session back: the next connection of the session begins with
//! its true state.

mod chunk;
mod connect;
mod deliveries;
mod outbox;
mod outgoing;
mod reader;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::{Disconnect, Packet, QoS, ReasonCode, Version, Will, encode};
use crate::commits::Outcome;
use crate::context::Context;
use crate::fanout::Message;
use crate::ingress::{Inbound, Ingress, Taken};
use crate::observe::{Disconnection, Unretained, add, sub};
use crate::refusal::RefusedPublish;
use crate::session::Fate;
use crate::tls::{IdentityTemplate, PeerCertificate};
use outbox::{Closing, Outbox};

/// What is known of a peer before its CONNECT.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Option<PeerCertificate>,
    pub(crate) identity: Arc<IdentityTemplate>,
    /// Cancelled when its permit is needed for another connection, before CONNECT.
    pub(crate) evicted: CancellationToken,
}

/// Serves one connection to its end. `opened` is called once it is past CONNECT.
pub(crate) async fn serve<S>(mut stream: S, peer: Peer, context: Arc<Context>, deadline: Instant, opened: impl FnOnce())
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut buffer = BytesMut::new();
    let open = match Box::pin(connect::open(&mut stream, &mut buffer, &peer, &context, deadline, opened)).await {
        Ok(open) => open,
        Err(cause) => {
            context.stats.disconnect(cause);
            return;
        }
    };
    add(&context.stats.connects, 1);
    add(&context.stats.connected, 1);
    open.ingress.device.connected();
    let device = Arc::clone(&open.ingress.device);
    let identity = Arc::clone(&open.ingress.key.identity);
    context.observer.connected(&identity, peer.address, context.clock.now());
    let cause = run(stream, buffer, open, &context).await;
    device.disconnected(cause, peer.address);
    context.observer.ended(&identity, peer.address, cause, context.clock.now());
    sub(&context.stats.connected, 1);
    match cause {
        Some(cause) => context.stats.disconnect(cause),
        None => add(&context.stats.clean_disconnects, 1),
    }
}

/// The future that a connection is in for most of its life. It contains nothing that only its beginning or its end needs.
fn run<S>(stream: S, buffer: BytesMut, open: connect::Open, context: &Arc<Context>) -> impl Future<Output = Option<Disconnection>> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (input, output) = tokio::io::split(stream);
    let outbox = Arc::clone(&open.outbox);
    let writer = tokio::spawn(writer::run(output, Arc::clone(&outbox), Arc::clone(context)));
    let mut reader = Box::new(reader(open, context));
    let context = Arc::clone(context);
    async move {
        let closing = reader.run(input, buffer).await;
        outbox.seal(closing);
        Box::pin(finish(reader.end(), writer, outbox, closing, &context)).await
    }
}

fn reader(open: connect::Open, context: &Arc<Context>) -> reader::Reader {
    let outbox = Arc::clone(&open.outbox);
    let deliveries = deliveries::Deliveries::new(Arc::clone(context), outbox, open.version, &open.ingress, open.peer_limit);
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
    let delay = will.as_ref().and_then(|will| will.properties.delay).unwrap_or(0).min(expiry);
    match will {
        Some(will) if delay == 0 => publish_will(will, &mut ingress, context, &outbox).await,
        Some(will) => {
            let fate = context.registry.detach(attached).await;
            let delay = Duration::from_secs(u64::from(delay));
            context
                .tasks
                .spawn(delayed_will(will, delay, fate, ingress, Arc::clone(context), outbox));
            return closing.cause;
        }
        None => {}
    }
    context.registry.detach(attached).await;
    closing.cause
}

/// Publishes a will after its delay, unless its session is resumed before (MQTT-3.1.3-9); at once when the session ends or
/// the gateway stops.
async fn delayed_will(
    will: Will,
    delay: Duration,
    fate: oneshot::Receiver<Fate>,
    mut ingress: Ingress,
    context: Arc<Context>,
    outbox: Arc<Outbox>,
) {
    tokio::select! {
        fate = fate => if fate == Ok(Fate::Resumed) {
            return;
        },
        () = context.shutdown.cancelled() => {}
        () = tokio::time::sleep(delay) => {}
    }
    publish_will(will, &mut ingress, &context, &outbox).await;
}

/// Publishes a will as its device would have (MQTT-3.1.2-8).
async fn publish_will(will: Will, ingress: &mut Ingress, context: &Context, outbox: &Outbox) {
    let publish = crate::codec::Publish {
        dup: false,
        // A will has no packet id: only the message is appended.
        qos: will.qos,
        retain: will.retain,
        topic: will.topic.clone(),
        packet_id: None,
        properties: crate::codec::PublishProperties {
            expiry: will.properties.expiry,
            travelling: will.properties.travelling,
            ..crate::codec::PublishProperties::default()
        },
        payload: will.payload,
    };
    let inbound = Inbound {
        topic: will.topic.into_bytes(),
        publish,
    };
    match ingress.take(&inbound, &mut std::collections::BTreeSet::new(), context.clock.now()) {
        Taken::Appended(batch, message, _) => {
            if outbox.commits.wait(batch).await == Outcome::Failed {
                refuse_will(&RefusedPublish::CommitFailed, &inbound, ingress, context);
            }
            publish_locally(message, context, outbox);
        }
        Taken::Unlogged(message) => publish_locally(message, context, outbox),
        Taken::Duplicate => {}
        Taken::Refused(refused) => {
            refuse_will(&refused, &inbound, ingress, context);
            if refused.is_temporary() {
                if inbound.publish.retain && inbound.publish.qos != QoS::AtMostOnce {
                    // A will is tried once.
                    context.stats.unretain(Unretained::LogUnavailable);
                }
                publish_locally(ingress.message(&inbound), context, outbox);
            }
        }
    }
}

fn publish_locally(message: Option<Message>, context: &Context, outbox: &Outbox) {
    if let Some(message) = message {
        context.fanout.publish(outbox.commits.latest_committed(), message);
    }
}

/// A refused will counts as dropped, whatever its QoS: its device cannot know.
fn refuse_will(refused: &RefusedPublish, inbound: &Inbound, ingress: &Ingress, context: &Context) {
    refused.count(QoS::AtMostOnce, &context.stats);
    refused.log_will(&ingress.key.identity, &inbound.topic, context);
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
