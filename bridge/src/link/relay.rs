//! Carries bytes between rumqttc and the cloud.
//!
//! rumqttc has no way to be handed a connection; it dials by itself. With its own TLS feature it would bring a second, outdated
//! certificate library (decision 0021). So it dials a Unix socket of ours, and this task carries the bytes between that and the
//! connection that [`Connector`](super::connector::Connector) made.
//!
//! The socket's name is random and in Linux's abstract namespace: no file is made and none can be left behind. Only a socket of
//! this very process is accepted, only one, and the name is gone when it is.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Duration, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connector::Stream;
use super::send_queue::SendQueue;
use super::tap::{Reason, Tap};

/// Bytes per read.
const CHUNK: usize = 32 * 1024;
/// Bytes that wait for the cloud before rumqttc has to wait: the in-flight window's bound, so that rumqttc goes on reading acks
/// while a slow line takes its time.
const MAX_QUEUED: usize = 8 * 1024 * 1024;
/// After a failed write: how long to wait for the peer's last words, which say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

type FromCloud = ReadHalf<Box<dyn Stream>>;
type ToCloud = WriteHalf<Box<dyn Stream>>;

/// The task that carries the bytes. Dropped, it closes the connection at once.
#[derive(Debug)]
pub(crate) struct Relay {
    task: AbortOnDropHandle<()>,
    end: Arc<Mutex<Option<End>>>,
}

/// How the cloud's side of a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer closed it.
    Closed,
    /// It broke.
    Broken(io::Error),
    /// The cloud refused CONNECT.
    Refused(Reason),
    /// The cloud sent DISCONNECT.
    Disconnected(Reason),
    /// The cloud sent what cannot be read, and what that was.
    Unreadable(String),
}

impl Relay {
    /// Starts to carry bytes for a client that connects to the Unix socket of the returned name.
    pub(crate) fn start(cloud: Box<dyn Stream>, tap: Tap) -> io::Result<(Self, String)> {
        let random = || getrandom::u64().map_err(io::Error::other);
        let name = format!("\0forebay-{:016x}{:016x}", random()?, random()?);
        let listener = UnixListener::bind(&name)?;
        let end = Arc::default();
        let told = Arc::clone(&end);
        let task = tokio::spawn(async move {
            if let Ok(client) = accept_own(listener).await {
                carry(client, cloud, tap, &told).await;
            }
        });
        let task = AbortOnDropHandle::new(task);
        Ok((Self { task, end }, name))
    }

    /// How the cloud's side ended, if it did. What rumqttc says of its own side is only a consequence then.
    pub(crate) fn take_end(&self) -> Option<End> {
        lock(&self.end).take()
    }

    /// Waits until all that rumqttc wrote is with the cloud and the connection is closed. Drop rumqttc's side before.
    pub(crate) async fn finish(self, grace: Duration) {
        // Aborted when it takes longer: we leave in any case.
        drop(timeout(grace, self.task).await);
    }
}

fn lock(end: &Mutex<Option<End>>) -> MutexGuard<'_, Option<End>> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first socket that this process connects. With the listener its name is gone.
async fn accept_own(listener: UnixListener) -> io::Result<UnixStream> {
    loop {
        let (socket, _) = listener.accept().await?;
        let peer = socket.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
        if peer == Some(std::process::id()) {
            return Ok(socket);
        }
        tracing::warn!(pid = peer, "another process connected to the bridge's own socket; it was closed");
    }
}

/// Carries both directions until one ends. When it is the cloud's, rumqttc may read all that came before, and then the end.
async fn carry(client: UnixStream, cloud: Box<dyn Stream>, tap: Tap, end: &Mutex<Option<End>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_cloud, mut to_cloud) = tokio::io::split(cloud);
    let ended = {
        let mut inward = std::pin::pin!(inward(&mut from_cloud, tap, &mut to_client));
        tokio::select! {
            ended = &mut inward => ended,
            sent = outward(&mut from_client, &mut to_cloud) => match sent {
                Ok(()) => None,
                Err(error) => timeout(LAST_WORDS, inward).await.unwrap_or(Some(End::Broken(error))),
            },
        }
    };
    let Some(ended) = ended else { return };
    *lock(end) = Some(ended);
    if to_client.shutdown().await.is_ok() {
        // What rumqttc still writes is of no use; refused, it would report that instead of reading on.
        drop(tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await);
    }
}

/// From rumqttc to the cloud, until rumqttc closes its side. Reads ahead of what the cloud takes.
async fn outward(from_client: &mut OwnedReadHalf, to_cloud: &mut ToCloud) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut queue = SendQueue::default();
    let mut is_flushed = true;
    loop {
        tokio::select! {
            read = from_client.read(&mut chunk), if queue.len() < MAX_QUEUED => match read {
                Ok(read) if read > 0 => queue.push(&chunk[..read]),
                // A close with unread bytes is a reset: rumqttc has been dropped either way.
                _ => break,
            },
            sent = push(to_cloud, queue.bytes()), if !queue.bytes().is_empty() || !is_flushed => {
                let sent = sent?;
                is_flushed = sent == 0;
                queue.advance(sent);
            }
        }
    }
    to_cloud.write_all(queue.bytes()).await?;
    to_cloud.shutdown().await
}

/// Writes some of the queue, or flushes if it is empty. Returns the bytes written. Cancel safe.
async fn push(to_cloud: &mut ToCloud, queue: &[u8]) -> io::Result<usize> {
    if queue.is_empty() {
        to_cloud.flush().await?;
        return Ok(0);
    }
    match to_cloud.write(queue).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

/// From the cloud to rumqttc. Returns how the cloud's side ended; `None` if rumqttc's did.
async fn inward(from_cloud: &mut FromCloud, mut tap: Tap, to_client: &mut OwnedWriteHalf) -> Option<End> {
    let mut chunk = vec![0; CHUNK];
    let mut packets = BytesMut::new();
    loop {
        let ended = match from_cloud.read(&mut chunk).await {
            Ok(0) => Some(End::Closed),
            Ok(read) => tap.take(&chunk[..read], &mut packets),
            Err(error) => Some(End::Broken(error)),
        };
        // Acks that came before the end count.
        to_client.write_all(&packets).await.ok()?;
        packets.clear();
        if ended.is_some() {
            return ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tap::Reasons;
    use super::*;
    use crate::Version;

    const DEADLINE: Duration = Duration::from_secs(60);
    const CONNACK_AND_ACK: &[u8] = &[0x20, 3, 0, 0, 0, 0x40, 2, 0, 1];
    const STRANGER: &str = "FOREBAY_TEST_STRANGER";

    async fn connected() -> (Relay, UnixStream, tokio::io::DuplexStream) {
        let (cloud, peer) = tokio::io::duplex(1024);
        let (relay, name) = Relay::start(Box::new(cloud), Tap::new(Version::V5, Reasons::default())).unwrap();
        (relay, UnixStream::connect(name).await.unwrap(), peer)
    }

    #[tokio::test]
    async fn what_the_peer_sent_before_it_closed_is_read_before_the_end() {
        let (relay, mut client, mut peer) = connected().await;
        client.write_all(b"unread").await.unwrap();
        peer.write_all(CONNACK_AND_ACK).await.unwrap();
        drop(peer);
        let mut read = Vec::new();
        timeout(DEADLINE, client.read_to_end(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, CONNACK_AND_ACK);
        assert!(matches!(relay.take_end(), Some(End::Closed)));
    }

    #[tokio::test]
    async fn what_rumqttc_wrote_is_sent_before_the_close() {
        let (relay, mut client, mut peer) = connected().await;
        // Packets of nine bytes.
        let sent = vec![7; 99_999];
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            read
        });
        client.write_all(&sent).await.unwrap();
        drop(client);
        relay.finish(DEADLINE).await;
        assert!(timeout(DEADLINE, reading).await.unwrap().unwrap() == sent);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_does_not_keep_rumqttc_from_writing() {
        let (_relay, mut client, _peer) = connected().await;
        let written = timeout(DEADLINE, client.write_all(&vec![7; MAX_QUEUED / 2])).await;
        assert!(written.is_ok());
    }

    #[tokio::test]
    async fn only_a_socket_of_this_process_is_taken() {
        if let Ok(name) = std::env::var(STRANGER) {
            let mut socket = UnixStream::connect(format!("\0{name}")).await.unwrap();
            let mut read = Vec::new();
            // Closed at once, with or without a reset.
            drop(timeout(DEADLINE, socket.read_to_end(&mut read)).await.unwrap());
            assert_eq!(read, b"");
            return;
        }
        let (cloud, mut peer) = tokio::io::duplex(1024);
        let (_relay, name) = Relay::start(Box::new(cloud), Tap::new(Version::V5, Reasons::default())).unwrap();
        peer.write_all(CONNACK_AND_ACK).await.unwrap();
        let stranger = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "link::relay::tests::only_a_socket_of_this_process_is_taken"])
            .env(STRANGER, name.trim_start_matches('\0'))
            .output();
        let stranger = timeout(DEADLINE, stranger).await.unwrap().unwrap();
        assert!(stranger.status.success(), "{stranger:?}");
        let mut client = UnixStream::connect(&name).await.unwrap();
        let mut read = [0; CONNACK_AND_ACK.len()];
        timeout(DEADLINE, client.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, CONNACK_AND_ACK);
        assert!(UnixStream::connect(&name).await.is_err(), "the name is gone");
    }
}
