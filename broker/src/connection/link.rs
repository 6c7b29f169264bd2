//! A connection's stream: read by its reader, written by its writer, and by the hub, which writes what the socket takes at once.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::observe::{Stats, add};

/// What can be written to without waiting.
pub(super) trait Sink: Send + Sync {
    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// The socket's.
    fn write_now(&self, bytes: &[u8]) -> io::Result<Written>;
}

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: usize,
    /// All of them have left this process; TLS may keep some.
    pub(super) is_flushed: bool,
}

pub(super) struct Link<S> {
    stream: Mutex<S>,
    stats: Arc<Stats>,
}

/// Both halves are the whole stream.
pub(super) struct Half<S>(Arc<Link<S>>);

impl<S> Link<S> {
    /// What comes and goes is counted.
    pub(super) fn new(stream: S, stats: Arc<Stats>) -> Arc<Self> {
        let stream = Mutex::new(stream);
        Arc::new(Self { stream, stats })
    }

    pub(super) fn half(self: &Arc<Self>) -> Half<S> {
        Half(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, S> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin + Send> Sink for Link<S> {
    fn write_now(&self, bytes: &[u8]) -> io::Result<Written> {
        // Nobody is woken by it: what does not leave now is left to the writer, which then asks with a waker of its own.
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = self.lock();
        let mut written = 0;
        while written < bytes.len() {
            match Pin::new(&mut *stream).poll_write(&mut context, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    written += count;
                    add(&self.stats.bytes_sent, count as u64);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    return Ok(Written {
                        bytes: written,
                        is_flushed: false,
                    });
                }
            }
        }
        let is_flushed = match Pin::new(&mut *stream).poll_flush(&mut context) {
            Poll::Ready(flushed) => flushed.map(|()| true)?,
            Poll::Pending => false,
        };
        Ok(Written {
            bytes: written,
            is_flushed,
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Half<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.0.lock()).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            add(&self.0.stats.bytes_received, count as u64);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Half<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.0.lock()).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            add(&self.0.stats.bytes_sent, *count as u64);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_the_peer_does_not_take_is_not_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let link = Link::new(ours, Arc::default());
        let all = Written {
            bytes: 5,
            is_flushed: true,
        };
        assert_eq!(link.write_now(b"12345").unwrap(), all);
        let part = Written {
            bytes: 3,
            is_flushed: false,
        };
        assert_eq!(link.write_now(b"67890").unwrap(), part);
        let mut read = [0; 8];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"12345678");
        drop(theirs);
        assert!(link.write_now(b"1").is_err());
    }
}
