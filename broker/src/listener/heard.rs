//! When a peer was last heard, before its CONNECT.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The last time that bytes of one peer came.
#[derive(Debug)]
pub(super) struct Heard {
    accepted: Instant,
    /// Milliseconds since then, and one; 0 for nothing heard.
    last_ms: AtomicU64,
    /// It has its CONNECT: nothing is noted any more.
    is_over: AtomicBool,
}

/// A stream whose reads are noted.
pub(super) struct Noted<S> {
    stream: S,
    heard: Arc<Heard>,
}

impl Heard {
    pub(super) fn new(accepted: Instant) -> Self {
        Self {
            accepted,
            last_ms: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Bytes came.
    pub(super) fn note(&self, now: Instant) {
        if !self.is_over.load(Ordering::Relaxed) {
            let elapsed = now.duration_since(self.accepted).as_millis();
            self.last_ms
                .store(u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Notes nothing any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// For how long the peer has been silent, and whether anything ever came.
    pub(super) fn silence(&self, now: Instant) -> (Duration, bool) {
        let last = self.last_ms.load(Ordering::Relaxed);
        let since = self.accepted + Duration::from_millis(last.saturating_sub(1));
        (now.saturating_duration_since(since), last > 0)
    }
}

impl<S> Noted<S> {
    pub(super) fn new(stream: S, heard: Arc<Heard>) -> Self {
        Self { stream, heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before && !self.heard.is_over.load(Ordering::Relaxed) {
            self.heard.note(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
