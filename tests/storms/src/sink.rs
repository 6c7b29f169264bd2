//! A server that answers everything at once and keeps nothing: what a storm costs its own side shows here.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use bytes::BytesMut;
use forebay_broker::codec::{self, Ack, AckProperties, Packet, ReasonCode, Role, SubAck, UnsubAck, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const MAX_PACKET: usize = 1 << 20;

/// A server on a thread of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = listen(listener) => {}
                }
            });
        });
        Ok(Self {
            address,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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

async fn listen(listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // A peer that breaks the rules is closed, and that is all.
            tokio::spawn(serve(stream));
        }
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut out) = (BytesMut::new(), BytesMut::new());
    while codec::decode_connect(&mut buffer, MAX_PACKET).map_err(io::Error::other)?.is_none() {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
    let accepted = Packet::ConnAck(Box::default());
    codec::encode(&accepted, Version::V5, &mut out).map_err(io::Error::other)?;
    loop {
        while let Some(packet) = codec::decode(&mut buffer, Version::V5, Role::Server, MAX_PACKET).map_err(io::Error::other)? {
            if let Some(answer) = answer(packet) {
                codec::encode(&answer, Version::V5, &mut out).map_err(io::Error::other)?;
            }
        }
        stream.write_all(&out).await?;
        out.clear();
        buffer.reserve(64 << 10);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

fn answer(packet: Packet) -> Option<Packet> {
    let ack = |packet_id| Ack::new(packet_id, ReasonCode::SUCCESS);
    Some(match packet {
        Packet::Publish(publish) => match publish.qos {
            codec::QoS::AtMostOnce => return None,
            codec::QoS::AtLeastOnce => Packet::PubAck(ack(publish.packet_id?)),
            codec::QoS::ExactlyOnce => Packet::PubRec(ack(publish.packet_id?)),
        },
        Packet::PubRel(release) => Packet::PubComp(ack(release.packet_id)),
        Packet::Subscribe(subscribe) => Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            codes: vec![ReasonCode::SUCCESS; subscribe.filters.len()],
            properties: AckProperties::default(),
        }),
        Packet::Unsubscribe(unsubscribe) => Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            codes: vec![ReasonCode::SUCCESS; unsubscribe.filters.len()],
            properties: AckProperties::default(),
        }),
        Packet::PingReq => Packet::PingResp,
        _ => return None,
    })
}
