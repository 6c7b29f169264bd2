//! What a TLS handshake may make the gateway keep: a message of it can have 64 KiB, and comes before anybody is known. Who is
//! silent in the middle of one while others wait for room gives way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::budget::{Budget, Charge, Owner, Waiting};
use crate::connection::{LOOK, SILENCE};

/// Bytes of a handshake without a charge: more than a device needs whose chain is its certificate alone.
const FREE: usize = 4 << 10;
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
    budget: Arc<Budget>,
    read: usize,
    /// When bytes came last.
    heard: Instant,
    /// Set while there is no room.
    retry: Option<Pin<Box<Sleep>>>,
    waiting: Option<Waiting>,
    /// When it is looked next whether others wait.
    look: Option<Pin<Box<Sleep>>>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, owner: Owner, budget: &Arc<Budget>) -> Self {
        let meter = Meter {
            charge: budget.input_bytes.open(owner),
            budget: Arc::clone(budget),
            read: 0,
            heard: Instant::now(),
            retry: None,
            waiting: None,
            look: None,
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
    /// How many bytes may be read now. A handshake within [`FREE`] waits for nothing. One that holds room and
    /// finds no more ends: several that each hold a part would wait for each other.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let free = FREE.saturating_sub(self.read);
        if free > 0 {
            return Poll::Ready(Ok(free));
        }
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(context));
                self.retry = None;
            }
            match self.charge.set((self.read + STEP - FREE) as u64) {
                Ok(()) => {
                    self.waiting = None;
                    return Poll::Ready(Ok(STEP));
                }
                Err(exceeded) if self.charge.amount() > 0 => {
                    self.charge.note(exceeded);
                    return Poll::Ready(Err(io::Error::other(exceeded.to_string())));
                }
                Err(exceeded) => {
                    if self.waiting.is_none() {
                        self.charge.note(exceeded);
                        self.waiting = Some(self.budget.wait_for_input());
                    }
                    self.retry = Some(Box::pin(sleep(RETRY)));
                }
            }
        }
    }

    /// Ready when the peer holds room that others wait for, and has been silent for too long.
    fn poll_in_the_way(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.charge.amount() > 0 {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            ready!(look.as_mut().poll(context));
            self.look = None;
            if self.heard.elapsed() >= SILENCE && self.budget.waits_for_input() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, meter } = &mut *self;
        let Some(meter) = meter else {
            return Pin::new(stream).poll_read(context, buffer);
        };
        let most = ready!(meter.poll_room(context))?;
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(buffer.remaining().min(most)));
        match Pin::new(stream).poll_read(context, &mut part) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(meter.poll_in_the_way(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let count = part.filled().len();
        buffer.advance(count);
        meter.read += count;
        meter.heard = Instant::now();
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
