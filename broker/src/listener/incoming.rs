//! The stream of a connection that has not sent CONNECT yet: when bytes of it came, and how much of a TLS handshake is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake_meter::HandshakeMeter;
use super::heard::Heard;

/// A stream whose reads are noted, and metered while a handshake goes on.
pub(super) struct Incoming<S> {
    stream: S,
    heard: Arc<Heard>,
    meter: Option<Box<HandshakeMeter>>,
}

impl<S> Incoming<S> {
    /// One without a handshake.
    pub(super) fn plain(stream: S, heard: Arc<Heard>) -> Self {
        Self {
            stream,
            heard,
            meter: None,
        }
    }

    /// One that begins with a handshake.
    pub(super) fn with_handshake(stream: S, heard: Arc<Heard>, meter: HandshakeMeter) -> Self {
        Self {
            stream,
            heard,
            meter: Some(Box::new(meter)),
        }
    }

    /// The handshake is over: its bytes are worked on.
    pub(super) fn end_handshake(&mut self) {
        self.meter = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Incoming<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, heard, meter } = &mut *self;
        let Some(meter) = meter else {
            let before = buffer.filled().len();
            ready!(Pin::new(stream).poll_read(context, buffer))?;
            heard.note_if(buffer.filled().len() > before);
            return Poll::Ready(Ok(()));
        };
        let most = ready!(meter.poll_room(context))?;
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(buffer.remaining().min(most)));
        if Pin::new(stream).poll_read(context, &mut part)?.is_pending() {
            ready!(meter.poll_in_the_way(context, heard));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let count = part.filled().len();
        buffer.advance(count);
        heard.note_if(count > 0);
        meter.took(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Incoming<S> {
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
