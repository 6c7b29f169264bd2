//! Reads from a socket without a buffer for each idle connection.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read from a socket at once.
pub(super) const BYTES: usize = 16 << 10;

thread_local! {
    /// The buffer that the connections of this thread read into, one after the other.
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; BYTES].into());
}

/// Reads what is there, `most` bytes and 16 KiB at most, and appends it; 0 if the peer has closed. A connection that waits here has no read
/// buffer: most connections wait most of the time. Cancel safe.
///
/// # Errors
/// The socket's.
pub(super) async fn read<R: AsyncRead + Unpin>(input: &mut R, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    std::future::poll_fn(|context| {
        CHUNK.with_borrow_mut(|chunk| {
            let mut chunk = ReadBuf::new(&mut chunk[..most.min(BYTES)]);
            ready!(Pin::new(&mut *input).poll_read(context, &mut chunk))?;
            buffer.extend_from_slice(chunk.filled());
            Poll::Ready(Ok(chunk.filled().len()))
        })
    })
    .await
}

/// Frees the memory of an empty buffer: the whole chunk that the last packet was a part of.
pub(super) fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_read_is_appended_and_an_emptied_buffer_holds_nothing() {
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        let mut input = &sent[..];
        let mut buffer = BytesMut::from(&b"before"[..]);
        while read(&mut input, &mut buffer, BYTES).await.unwrap() > 0 {}
        assert_eq!(buffer.split_to(6), b"before"[..]);
        assert_eq!(buffer, sent);
        release(&mut buffer);
        assert_eq!(buffer, sent, "what is not yet decoded stays");
        let packets = buffer.split_to(sent.len());
        release(&mut buffer);
        assert_eq!((buffer.capacity(), packets.len()), (0, sent.len()));
    }
}
