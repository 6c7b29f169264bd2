//! The writer: sends what leaves the outbox, and counts it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::outbox::{Closing, KEPT_BYTES, Outbox, Released};
use super::turn::give_way_since;
use crate::codec::Version;
use crate::context::Context;
use crate::observe::{Disconnection, add};
use crate::refusal::RefusedPublish;

/// How long a peer may take to read what it is sent.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// The same for a connection that ends: the next connection of its session waits for it.
const CLOSING_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes that are written before others get their turn.
const PIECE: usize = 64 << 10;

/// Runs until the connection is closing and nothing is pending. If its socket fails before, it goes on without it, so that
/// the outbox is still drained.
pub(super) async fn run<W: AsyncWrite + Unpin>(mut output: W, outbox: Arc<Outbox>, context: Arc<Context>) {
    let mut is_open = true;
    let mut bytes = BytesMut::new();
    loop {
        let mut released = outbox.release(&context.fanout, bytes);
        settle(&released, &outbox, &context);
        let mut is_written = false;
        if is_open && (!released.bytes.is_empty() || released.is_unflushed) {
            match write(&mut output, &released.bytes, &outbox).await {
                Ok(()) => {
                    is_written = true;
                    report(&released, &context);
                }
                Err(cause) => {
                    is_open = false;
                    outbox.close(Closing::silently(cause));
                }
            }
        }
        trace(&mut released, is_written, &context);
        // They are with the peer, or it is gone.
        drop(released.output.take());
        if let Some(closing) = released.finished {
            // Who still knows the outbox must not keep the socket open.
            outbox.connect(None);
            if is_open {
                send_disconnect(&mut output, closing, outbox.version()).await;
            }
            return;
        }
        if released.bytes.is_empty() && !released.is_unflushed {
            wait(&outbox, released.next).await;
        }
        // The memory of a burst is freed.
        bytes = if released.bytes.capacity() > KEPT_BYTES {
            BytesMut::new()
        } else {
            released.bytes
        };
    }
}

async fn wait(outbox: &Outbox, next: Option<Instant>) {
    let woken = outbox.writer.notified();
    match next {
        None => woken.await,
        Some(at) => {
            tokio::select! {
                () = woken => {}
                () = sleep_until(at) => {}
            }
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(output: &mut W, bytes: &[u8], outbox: &Outbox) -> Result<(), Disconnection> {
    let ended = async {
        outbox.closed().await;
        sleep_until(Instant::now() + CLOSING_DEADLINE).await;
    };
    let write = async {
        for piece in bytes.chunks(PIECE) {
            let began = std::time::Instant::now();
            output.write_all(piece).await?;
            give_way_since(Some(began)).await;
        }
        output.flush().await
    };
    tokio::select! {
        biased;
        written = timeout(WRITE_DEADLINE, write) => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Disconnection::ConnectionLost),
            Err(_) => Err(Disconnection::SlowReader),
        },
        () = ended => Err(Disconnection::SlowReader),
    }
}

/// The bytes are sent before the close: with a reset, the peer's system might discard them. The reader goes on reading for
/// the same reason.
async fn send_disconnect<W: AsyncWrite + Unpin>(output: &mut W, closing: Closing, version: Version) {
    let mut out = BytesMut::new();
    if let Some(reason) = closing.say {
        super::write_disconnect(version, reason, &mut out);
    }
    let goodbye = async {
        output.write_all(&out).await?;
        output.flush().await?;
        output.shutdown().await
    };
    // The peer may have closed first, or be gone.
    timeout(CLOSING_DEADLINE, goodbye).await.ok();
}

pub(super) fn settle(released: &Released, outbox: &Outbox, context: &Context) {
    outbox.uncommitted.give_back(released.budget);
    add(&context.stats.packets_sent, released.packets);
    for qos in &released.failed {
        RefusedPublish::CommitFailed.count(*qos, &context.stats);
    }
}

pub(super) fn report(released: &Released, context: &Context) {
    if let Some(oldest) = released.oldest {
        add(&context.stats.acked, released.acked);
        context.observer.acked(oldest.elapsed(), released.acked);
    }
}

pub(super) fn trace(released: &mut Released, is_written: bool, context: &Context) {
    for mut publish in released.traced.drain(..) {
        publish.answered = (is_written && publish.qos > 0).then(std::time::Instant::now);
        context.observer.traced(&publish);
    }
}
