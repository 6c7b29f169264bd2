//! An ordinary device: what it sees is what a storm does to others.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use forebay_broker::codec::{Packet, QoS};
use tokio::time::Instant;

use crate::peer::{self, Input, Output};

/// Bytes of its payload.
const PAYLOAD: usize = 256;
/// Packet ids that it goes round.
const IDS: u16 = 1000;

/// A device that publishes at QoS 1 at a steady rate.
pub struct Canary {
    topic: String,
    input: Input,
    output: Output,
    next: u16,
}

impl Canary {
    /// Connects under this client id and publishes to `devices/{client_id}/telemetry`.
    ///
    /// # Errors
    /// The connection's.
    pub async fn connect(address: SocketAddr, client_id: &str) -> io::Result<Self> {
        let (input, output) = peer::connect(address, client_id, true).await?;
        Ok(Self {
            topic: format!("devices/{client_id}/telemetry"),
            input,
            output,
            next: 0,
        })
    }

    /// Publishes so often, so many times per second, and gives how long each ack took since its publish was due.
    ///
    /// # Errors
    /// The connection ended, or an ack was a refusal or came out of turn.
    pub async fn sing(&mut self, per_second: f64, times: usize) -> io::Result<Vec<Duration>> {
        let began = Instant::now();
        let due = |nth: usize| began + Duration::from_secs_f64(nth as f64 / per_second);
        let mut in_flight = VecDeque::new();
        let (mut sent, mut took) = (0, Vec::with_capacity(times));
        while took.len() < times {
            tokio::select! {
                packet = self.input.next() => {
                    let Some((id, since)) = in_flight.pop_front() else { continue };
                    match packet? {
                        Packet::PubAck(ack) if ack.packet_id.get() == id && !ack.reason.is_error() => took.push(Instant::now() - since),
                        other => return Err(io::Error::other(format!("{other:?} instead of the ack of {id}"))),
                    }
                }
                () = tokio::time::sleep_until(due(sent)), if sent < times => {
                    self.next = self.next % IDS + 1;
                    in_flight.push_back((self.next, due(sent)));
                    let payload = Bytes::from_static(&[b'c'; PAYLOAD]);
                    self.output.send(&peer::publish(self.topic.clone(), QoS::AtLeastOnce, self.next, false, payload)).await?;
                    sent += 1;
                }
            }
        }
        Ok(took)
    }
}

/// What this share (0 to 1) of the times does not exceed; zero if there are none. They are sorted by it.
pub fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
