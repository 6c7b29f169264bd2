//! What a TLS handshake may make the gateway keep: a message of it can have 64 KiB, and comes before anybody is known.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::budget::Charge;

/// Bytes of a handshake without a charge: more than a device needs whose chain is its certificate alone.
const FREE: u64 = 4 << 10;
/// Bytes that are read at once.
const STEP: usize = 4 << 10;
/// How often it is tried whether there is room.
const RETRY: Duration = Duration::from_millis(100);

/// A stream whose bytes are charged until the handshake is over. While there is no room for them it is not read.
pub(super) struct Metered<S> {
    stream: S,
    meter: Option<Box<Meter>>,
}

struct Meter {
    charge: Charge,
    read: u64,
    /// Set while there is no room.
    retry: Option<Pin<Box<Sleep>>>,
    is_noted: bool,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, charge: Charge) -> Self {
        let meter = Meter {
            charge,
            read: 0,
            retry: None,
            is_noted: false,
        };
        Self {
            stream,
            meter: Some(Box::new(meter)),
        }
    }

    /// The handshake is over: its bytes are worked on.
    pub(super) fn end(&mut self) {
        self.meter = None;
    }
}

impl Meter {
    /// Ready when there is room for what is read next.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(context));
                self.retry = None;
            }
            match self.charge.set((self.read + STEP as u64).saturating_sub(FREE)) {
                Ok(()) => return Poll::Ready(()),
                Err(exceeded) => {
                    if !self.is_noted {
                        self.charge.note(exceeded);
                        self.is_noted = true;
                    }
                    self.retry = Some(Box::pin(sleep(RETRY)));
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, meter } = &mut *self;
        let Some(meter) = meter else {
            return Pin::new(stream).poll_read(context, buffer);
        };
        ready!(meter.poll_room(context));
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(buffer.remaining().min(STEP)));
        ready!(Pin::new(stream).poll_read(context, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        meter.read += count as u64;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
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
