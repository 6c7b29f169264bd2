//! A virtual device: publishes numbered messages at QoS 1, one at a time, and goes on to the next only when it was acked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::figures::Figures;

/// How long a device waits before it dials again.
const REDIAL: Duration = Duration::from_millis(500);
/// How long it waits for an ack before it gives the connection up.
const ACK_DEADLINE: Duration = Duration::from_secs(15);

/// What a device needs.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) gateway: SocketAddr,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) rate: u32,
    pub(super) figures: Arc<Figures>,
}

impl Device {
    /// Publishes until `stop`; says how many messages were acked: numbers 1 to that.
    pub(super) async fn run(self, stop: CancellationToken) -> u64 {
        let mut acked = 0;
        let mut ticks = interval(Duration::from_secs(1) / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            let (client, mut events) = self.dial();
            if self
                .wait_for(&mut events, |packet| matches!(packet, Packet::ConnAck(_)))
                .await
                .is_some()
            {
                self.figures.connected.fetch_add(1, Ordering::Relaxed);
                self.publish(&client, &mut events, &mut acked, &mut ticks, &stop).await;
                self.figures.connected.fetch_sub(1, Ordering::Relaxed);
            }
            if !stop.is_cancelled() {
                tokio::time::sleep(REDIAL).await;
            }
        }
        acked
    }

    async fn publish(
        &self,
        client: &AsyncClient,
        events: &mut EventLoop,
        acked: &mut u64,
        ticks: &mut tokio::time::Interval,
        stop: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                // Between two messages the line may end, or be pinged.
                ended = self.wait_for(events, |_| false) => if ended.is_none() { return },
            }
            let payload = format!(r#"{{"device":"{}","seq":{},"temp":21.5}}"#, self.name, *acked + 1);
            let began = Instant::now();
            if client
                .publish(format!("devices/{}/telemetry/env", self.name), QoS::AtLeastOnce, false, payload)
                .await
                .is_err()
            {
                return;
            }
            let answered = timeout(ACK_DEADLINE, self.wait_for(events, |packet| matches!(packet, Packet::PubAck(_)))).await;
            let Ok(Some(Packet::PubAck(ack))) = answered else { return };
            if matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
                *acked += 1;
                self.figures.acked(began.elapsed());
            } else {
                self.figures.refused();
            }
        }
    }

    /// The next packet that `wanted` accepts; none when the line has ended.
    async fn wait_for(&self, events: &mut EventLoop, wanted: impl Fn(&Packet) -> bool) -> Option<Packet> {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(packet)) if wanted(&packet) => return Some(packet),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    fn dial(&self) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(&self.name, "localhost", self.gateway.port());
        options.set_keep_alive(Duration::from_secs(30)).set_clean_start(true);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::clone(&self.tls))));
        AsyncClient::new(options, 4)
    }
}
