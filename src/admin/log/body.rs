//! Answers that are made while they are sent: lines from a blocking thread over a bounded queue.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::inspect::Line;
use crate::json;

/// Bytes gathered before they are handed over.
const FRAME: usize = 64 << 10;
/// Frames between the reading thread and the socket.
const QUEUE: usize = 4;

/// What an answer consists of.
pub(in crate::admin) enum AnswerBody {
    /// Made before it is sent.
    Whole(Full<Bytes>),
    /// Made while it is sent. `None` if that was all; without it the connection is cut, so that half is not taken for all.
    Lines(mpsc::Receiver<Option<Bytes>>, Arc<Progress>),
    /// All was sent.
    Ended,
}

/// How an answer of lines gets on, so that a peer that takes nothing can be told from one that waits.
#[derive(Debug, Default)]
pub(in crate::admin) struct Progress {
    is_streaming: AtomicBool,
    /// The queue is full: it is the peer's turn.
    is_full: AtomicBool,
    taken: AtomicU64,
}

impl Progress {
    /// Whether the connection may go on, asked again and again; `seen` is what was taken when it was last asked.
    pub(in crate::admin) fn may_go_on(&self, seen: &mut u64) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        let has_moved = std::mem::replace(seen, taken) != taken;
        self.is_streaming.load(Ordering::Relaxed) && (has_moved || !self.is_full.load(Ordering::Relaxed))
    }
}

/// Where a reading thread puts its lines.
pub(super) struct Out {
    queue: mpsc::Sender<Option<Bytes>>,
    buffer: Vec<u8>,
    progress: Arc<Progress>,
}

/// An answer of lines, and where they go.
pub(super) fn lines(progress: Arc<Progress>) -> (AnswerBody, Out) {
    let (queue, receiver) = mpsc::channel(QUEUE);
    progress.is_streaming.store(true, Ordering::Relaxed);
    let out = Out {
        queue,
        buffer: Vec::new(),
        progress: Arc::clone(&progress),
    };
    (AnswerBody::Lines(receiver, progress), out)
}

impl Out {
    /// Takes a line; false = nobody wants more. Waits for the peer to take what was sent.
    pub(super) fn put(&mut self, line: &Line) -> bool {
        let Ok(json) = json::to_string(line) else { return false };
        self.buffer.extend_from_slice(json.as_bytes());
        self.buffer.push(b'\n');
        let is_now = self.buffer.len() >= FRAME || matches!(line, Line::Searched { .. });
        !is_now || self.flush()
    }

    /// Takes an answer that is one object.
    pub(super) fn put_json(&mut self, value: &impl serde::Serialize) {
        if let Ok(json) = json::to_string(value) {
            self.buffer.extend_from_slice(json.as_bytes());
            self.buffer.push(b'\n');
        }
    }

    /// Hands over what was gathered.
    pub(super) fn flush(&mut self) -> bool {
        if self.buffer.is_empty() {
            return !self.queue.is_closed();
        }
        let frame = Bytes::from(std::mem::take(&mut self.buffer));
        self.send(Some(frame))
    }

    /// Hands over the rest, and that it was all.
    pub(super) fn end(mut self) {
        if self.flush() {
            self.send(None);
        }
    }

    /// Passes some time; false = nobody listens any more.
    pub(super) fn wait(&mut self, runtime: &Handle, time: Duration) -> bool {
        self.flush()
            && runtime.block_on(async {
                tokio::select! {
                    () = self.queue.closed() => false,
                    () = tokio::time::sleep(time) => true,
                }
            })
    }

    fn send(&self, frame: Option<Bytes>) -> bool {
        let Err(error) = self.queue.try_send(frame) else { return true };
        self.progress.is_full.store(true, Ordering::Relaxed);
        let is_sent = self.queue.blocking_send(error.into_inner()).is_ok();
        self.progress.is_full.store(false, Ordering::Relaxed);
        is_sent
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Lines(receiver, progress) => {
                let frame = ready!(receiver.poll_recv(context));
                progress.taken.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(match frame {
                    Some(Some(bytes)) => Some(Ok(Frame::data(bytes))),
                    Some(None) => {
                        *self = Self::Ended;
                        None
                    }
                    None => {
                        *self = Self::Ended;
                        Some(Err(io::Error::other("the log's reader ended early")))
                    }
                })
            }
            Self::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Lines(..) => false,
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Lines(..) => SizeHint::default(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}
