//! Wills: what a device leaves to be published when its connection is lost.
//!
//! A delayed will outlives its connection, by days if its session does. So a will is charged while it is kept, and holds no more
//! than itself of the CONNECT that it came in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::outbox::Outbox;
use crate::budget::{Charge, Exceeded, Owner};
use crate::codec::{Publish, PublishProperties, QoS, Will};
use crate::commits::{Commits, Outcome};
use crate::context::Context;
use crate::fanout::Message;
use crate::ingress::{Inbound, Ingress, Taken};
use crate::observe::Unretained;
use crate::refusal::RefusedPublish;
use crate::retained::RetainedBeforeAcks;
use crate::session::Fate;

/// Bytes that a will counts for besides its text and payload: what waits with it for its delay.
const OVERHEAD: usize = 1024;

/// A will that is kept, and charged as long as it is.
#[derive(Debug)]
pub(super) struct HeldWill {
    will: Will,
    _charge: Charge,
}

impl HeldWill {
    /// Charges a will and copies it out of its CONNECT.
    ///
    /// # Errors
    /// The bound that it would exceed; that is counted.
    pub(super) fn keep(will: &Will, owner: &Owner, context: &Context) -> Result<Self, Exceeded> {
        let bytes = OVERHEAD + will.topic.as_bytes().len() + will.payload.len() + will.properties.travelling.len();
        let mut charge = context.budget.will_bytes.open(owner.clone());
        charge.grow(bytes as u64)?;
        let mut will = will.clone();
        will.topic = will.topic.detached();
        will.payload = Bytes::copy_from_slice(&will.payload);
        will.properties.travelling = Bytes::copy_from_slice(&will.properties.travelling);
        Ok(Self { will, _charge: charge })
    }

    /// Seconds to wait for the device to come back.
    pub(super) fn delay(&self) -> u32 {
        self.will.properties.delay.unwrap_or(0)
    }

    /// Publishes it after its delay, unless its session is resumed before (MQTT-3.1.3-9); at once when the session ends or
    /// the gateway stops.
    pub(super) async fn publish_later(
        self,
        delay: Duration,
        fate: oneshot::Receiver<Fate>,
        mut ingress: Ingress,
        context: Arc<Context>,
        outbox: Arc<Outbox>,
    ) {
        tokio::select! {
            fate = fate => if fate == Ok(Fate::Resumed) {
                return;
            },
            () = context.shutdown.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
        self.publish(&mut ingress, &context, &outbox).await;
    }

    /// Publishes it as its device would have (MQTT-3.1.2-8).
    pub(super) async fn publish(self, ingress: &mut Ingress, context: &Context, outbox: &Outbox) {
        let inbound = inbound(self.will);
        // The hub tells nobody but connections of commits, and this one has ended.
        let commits = Arc::<Commits>::default();
        ingress.producer = context.log.producer(Arc::new(RetainedBeforeAcks {
            retained: Arc::clone(&context.retained),
            commits: Arc::clone(&commits),
        }));
        match ingress.take(&inbound, &mut BTreeSet::new(), context.clock.now()) {
            Taken::Appended(batch, message, _) => {
                if commits.wait(batch).await == Outcome::Failed {
                    refuse(&RefusedPublish::CommitFailed, &inbound, ingress, context);
                }
                if let Some(message) = message {
                    context
                        .fanout
                        .publish(commits.latest_committed().max(outbox.commits.latest_committed()), message);
                }
            }
            Taken::Unlogged(message) => publish_locally(message, context, outbox),
            Taken::Duplicate => {}
            Taken::Refused(refused) => {
                refuse(&refused, &inbound, ingress, context);
                if refused.is_temporary() {
                    if inbound.publish.retain && inbound.publish.qos != QoS::AtMostOnce {
                        // A will is tried once.
                        context.stats.unretain(Unretained::LogUnavailable);
                    }
                    publish_locally(ingress.message(&inbound), context, outbox);
                }
            }
        }
    }
}

fn inbound(will: Will) -> Inbound {
    let topic = will.topic.clone().into_bytes();
    let publish = Publish {
        dup: false,
        // A will has no packet id: only the message is appended.
        qos: will.qos,
        retain: will.retain,
        topic: will.topic,
        packet_id: None,
        properties: PublishProperties {
            expiry: will.properties.expiry,
            travelling: will.properties.travelling,
            ..PublishProperties::default()
        },
        payload: will.payload,
    };
    Inbound { topic, publish }
}

fn publish_locally(message: Option<Message>, context: &Context, outbox: &Outbox) {
    if let Some(message) = message {
        context.fanout.publish(outbox.commits.latest_committed(), message);
    }
}

/// A refused will counts as dropped, whatever its QoS: its device cannot know.
fn refuse(refused: &RefusedPublish, inbound: &Inbound, ingress: &Ingress, context: &Context) {
    refused.count(QoS::AtMostOnce, &context.stats);
    refused.log_will(&ingress.key.identity, &inbound.topic, context);
}
