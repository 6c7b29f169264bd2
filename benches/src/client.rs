//! One publishing client.

use std::cell::RefCell;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use forebay_broker::codec::{self, Disconnect, Packet, PublishHeader, QoS, Role, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::diary::Diary;
use crate::transport::{MAX_PACKET, Stream};

/// How long the last acks are waited for.
const GRACE: Duration = Duration::from_secs(5);

/// A client between its CONNACK and its DISCONNECT.
pub(crate) struct Client {
    version: Version,
    /// One whole PUBLISH; packet id and sequence number are written over it.
    template: Vec<u8>,
    id_at: usize,
    /// Where the number of the reading stands, if it has one.
    number_at: Option<usize>,
    sequence: u64,
    /// When the publish with packet id `index + 1` was due, while it is in flight.
    in_flight: Vec<Option<Instant>>,
    free: Vec<u16>,
    out: BytesMut,
    /// Due times when paced; a closed loop has none.
    due: Option<mpsc::Receiver<Instant>>,
    diary: Rc<RefCell<Diary>>,
}

/// Before the number of a reading.
const HEAD: &[u8] = br#"{"seq":"#;
/// After it, before what fills the payload up.
const MIDDLE: &[u8] = br#","fill":""#;
const TAIL: &[u8] = br#""}"#;
const AROUND: usize = HEAD.len() + DIGITS + MIDDLE.len() + TAIL.len();
const NUMBER_AT: usize = HEAD.len();
/// So many digits has each number: a payload keeps its length.
const DIGITS: usize = 16;
const FIRST_NUMBER: u64 = 1_000_000_000_000_000;

/// A reading as devices send it, in JSON with a number that counts; what is too short for that is filled with `x`.
fn payload(size: usize) -> Vec<u8> {
    let Some(fill) = size.checked_sub(AROUND) else {
        return vec![b'x'; size];
    };
    [HEAD, FIRST_NUMBER.to_string().as_bytes(), MIDDLE, &vec![b'x'; fill], TAIL].concat()
}

impl Client {
    /// # Errors
    ///
    /// A topic that MQTT cannot carry.
    pub(crate) fn new(
        version: Version,
        topic: &str,
        size: usize,
        in_flight: NonZeroU16,
        due: Option<mpsc::Receiver<Instant>>,
        diary: Rc<RefCell<Diary>>,
    ) -> anyhow::Result<Client> {
        let header = PublishHeader {
            qos: QoS::AtLeastOnce,
            topic: topic.as_bytes(),
            packet_id: Some(NonZeroU16::MIN),
            payload_len: size,
            ..PublishHeader::default()
        };
        let mut template = BytesMut::new();
        codec::encode_publish_header(&header, version, &mut template)?;
        let payload_at = template.len();
        // The packet id ends the header but for the empty properties of MQTT 5.
        let id_at = payload_at - if version == Version::V5 { 3 } else { 2 };
        template.extend_from_slice(&payload(size));
        let in_flight = in_flight.get();
        Ok(Client {
            version,
            template: template.to_vec(),
            id_at,
            number_at: (size >= AROUND).then_some(payload_at + NUMBER_AT),
            sequence: 0,
            in_flight: vec![None; usize::from(in_flight)],
            free: (1..=in_flight).rev().collect(),
            out: BytesMut::new(),
            due,
            diary,
        })
    }

    /// Publishes until the diary's end, waits for the last acks and disconnects.
    pub(crate) async fn run(mut self, mut stream: Stream, mut buffer: BytesMut) -> anyhow::Result<()> {
        let until = self.diary.borrow().until();
        let end = tokio::time::sleep_until(until.into());
        tokio::pin!(end);
        let mut woken = None;
        while Instant::now() < until {
            self.stage(woken.take());
            self.send(&mut stream).await?;
            let wait_for_due = self.due.is_some() && !self.free.is_empty();
            tokio::select! {
                biased;
                read = stream.read_buf(&mut buffer) => self.read(read?, &mut buffer)?,
                due = next_due(&mut self.due), if wait_for_due => woken = due,
                () = &mut end => {}
            }
        }
        tokio::time::timeout(GRACE, self.drain(&mut stream, &mut buffer))
            .await
            .context("the last acks did not come within 5 s")??;
        codec::encode(&Packet::Disconnect(Disconnect::default()), self.version, &mut self.out)?;
        self.send(&mut stream).await?;
        stream.shutdown().await.context("closing")
    }

    /// Fills the window, or sends what is due.
    fn stage(&mut self, mut first: Option<Instant>) {
        let now = Instant::now();
        while !self.free.is_empty() {
            let since = match &mut self.due {
                None => now,
                Some(due) => {
                    let Some(due) = first.take().or_else(|| due.try_recv().ok()) else {
                        return;
                    };
                    self.diary.borrow_mut().late(due, now);
                    due
                }
            };
            let Some(id) = self.free.pop() else { return };
            self.in_flight[usize::from(id) - 1] = Some(since);
            self.template[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
            if let Some(digits) = self.number_at.and_then(|at| self.template.get_mut(at..at + DIGITS)) {
                digits.copy_from_slice((FIRST_NUMBER + self.sequence).to_string().as_bytes());
            }
            self.sequence += 1;
            self.out.extend_from_slice(&self.template);
        }
    }

    async fn send(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        if self.out.has_remaining() {
            stream.write_all(&self.out).await.context("sending")?;
            stream.flush().await.context("sending")?;
            self.out.clear();
        }
        Ok(())
    }

    fn read(&mut self, length: usize, buffer: &mut BytesMut) -> anyhow::Result<()> {
        if length == 0 {
            bail!("closed by the server");
        }
        let now = Instant::now();
        while let Some(packet) = codec::decode(buffer, self.version, Role::Client, MAX_PACKET)? {
            match packet {
                Packet::PubAck(ack) => self.acked(ack.packet_id, now, ack.reason)?,
                Packet::Disconnect(disconnect) => bail!("disconnected by the server: {}", disconnect.reason),
                other => bail!("unexpected {}", other.packet_type()),
            }
        }
        Ok(())
    }

    fn acked(&mut self, id: NonZeroU16, now: Instant, reason: codec::ReasonCode) -> anyhow::Result<()> {
        let slot = self.in_flight.get_mut(usize::from(id.get()) - 1);
        let Some(since) = slot.and_then(Option::take) else {
            bail!("an ack for a publish that was not in flight")
        };
        self.free.push(id.get());
        let mut diary = self.diary.borrow_mut();
        if reason.is_error() {
            diary.error(format!("publish refused: {reason}"));
        } else {
            diary.acked(since, now);
        }
        Ok(())
    }

    async fn drain(&mut self, stream: &mut Stream, buffer: &mut BytesMut) -> anyhow::Result<()> {
        while self.free.len() < self.in_flight.len() {
            let length = stream.read_buf(buffer).await?;
            self.read(length, buffer)?;
        }
        Ok(())
    }
}

/// The next due time; waits for ever where there is none to come.
async fn next_due(due: &mut Option<mpsc::Receiver<Instant>>) -> Option<Instant> {
    if let Some(due) = due
        && let Some(time) = due.recv().await
    {
        return Some(time);
    }
    std::future::pending().await
}
