//! A cloud that acks everything at once and keeps nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use bytes::{Buf, BytesMut};
use forebay_broker::codec::{self, ConnAck, Packet, ReasonCode, Role, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::transport::MAX_PACKET;

/// An MQTT server on a thread of its own. It ends when dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn start() -> anyhow::Result<Sink> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let (end, ended) = oneshot::channel();
        let counter = Arc::clone(&received);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = listen(listener, counter) => {}
                }
            });
        });
        Ok(Sink {
            address,
            received,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Publishes acked so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn listen(listener: TcpListener, received: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &received).await {
                eprintln!("sink: {error:#}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, received: &AtomicU64) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut out) = (BytesMut::with_capacity(1 << 20), BytesMut::new());
    let version = loop {
        if let Some(connect) = codec::decode_connect(&mut buffer, MAX_PACKET)? {
            break connect.version;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    };
    let accepted = ConnAck {
        session_present: false,
        code: ReasonCode::SUCCESS,
        properties: codec::ConnAckProperties::default(),
    };
    codec::encode(&Packet::ConnAck(Box::new(accepted)), version, &mut out)?;
    loop {
        while let Some(packet) = codec::decode(&mut buffer, version, Role::Server, MAX_PACKET)? {
            answer(packet, version, &mut out, received)?;
        }
        if out.has_remaining() {
            stream.write_all(&out).await.context("acking")?;
            out.clear();
        }
        buffer.reserve(64 << 10);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

fn answer(packet: Packet, version: Version, out: &mut BytesMut, received: &AtomicU64) -> anyhow::Result<()> {
    match packet {
        Packet::Publish(publish) => {
            received.fetch_add(1, Ordering::Relaxed);
            if let Some(id) = publish.packet_id {
                codec::encode_puback(out, version, id, ReasonCode::SUCCESS)?;
            }
        }
        Packet::PingReq => codec::encode(&Packet::PingResp, version, out)?,
        Packet::Disconnect(_) => {}
        other => anyhow::bail!("unexpected {}", other.packet_type()),
    }
    Ok(())
}
