//! Wills: what a device leaves to be published when its connection is lost.
//!
//! A delayed will outlives its connection, by days if its session does. So a will is charged while it is kept, and holds no more
//! than itself of the CONNECT that it came in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_topic::PeerText;
use forebay_wal::Batch;
use tokio::sync::oneshot;

use crate::budget::{Charge, Exceeded, Owner};
use crate::codec::{Publish, PublishProperties, QoS, Version, Will};
use crate::commits::{Commits, Outcome};
use crate::context::Context;
use crate::fanout::Message;
use crate::ingress::{Inbound, Ingress, Taken};
use crate::observe::Unretained;
use crate::refusal::RefusedPublish;
use crate::retained::RetainedBeforeAcks;
use crate::session::{Fate, SessionId, SessionKey};
use crate::wills::{self, StoredWill, WillNumber};

/// Bytes that a will counts for besides its text and payload: what waits with it for its delay.
const OVERHEAD: usize = 1024;

/// A will that is kept, and charged as long as it is.
#[derive(Debug)]
pub(crate) struct HeldWill {
    will: Will,
    /// If it is in the log.
    number: Option<WillNumber>,
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
        Ok(Self {
            will,
            number: None,
            _charge: charge,
        })
    }

    /// One that a start found in the log; it is charged whatever the bound says now.
    fn found(stored: &StoredWill, owner: &Owner, context: &Context) -> Self {
        let will = stored.will.clone();
        let mut charge = context.budget.will_bytes.open(owner.clone());
        charge.force((OVERHEAD + will.topic.as_bytes().len() + will.payload.len() + will.properties.travelling.len()) as u64);
        Self {
            will,
            number: Some(stored.number),
            _charge: charge,
        }
    }

    /// Commits it, so that it outlives the process. If the log cannot, it does not.
    pub(super) async fn store(&mut self, key: &SessionKey, context: &Context) {
        self.number = context.wills.keep(key, &self.will).await;
        if self.number.is_none() && context.is_first(&key.identity, "will_not_stored") {
            let identity = PeerText::new(&key.identity);
            tracing::warn!(
                ?identity,
                "a will could not be written to the log; it is lost if the gateway is restarted before it is due"
            );
        }
    }

    /// It is not to be published.
    pub(super) fn forget(self, key: &SessionKey, context: &Context) {
        if let Some(number) = self.number {
            context.wills.forget(number, key);
        }
    }

    /// Its client is gone, and it waits for so many seconds.
    pub(super) fn note_delay(&self, delay: u32, key: &SessionKey, context: &Context) {
        if let Some(number) = self.number {
            context.wills.note_delay(number, key, &self.will, delay);
        }
    }

    /// Seconds to wait for the device to come back.
    pub(super) fn delay(&self) -> u32 {
        self.will.properties.delay.unwrap_or(0)
    }

    /// Publishes it after its delay, unless its session is resumed before (MQTT-3.1.3-9); at once when the session ends. If the
    /// gateway stops before, the next start finds it in the log.
    pub(super) async fn publish_later(
        self,
        delay: Duration,
        fate: oneshot::Receiver<Fate>,
        mut ingress: Ingress,
        context: Arc<Context>,
        after: Batch,
    ) {
        tokio::select! {
            fate = fate => if fate == Ok(Fate::Resumed) {
                return self.forget(&ingress.key, &context);
            },
            () = context.shutdown.cancelled() => if self.number.is_some() {
                return;
            },
            () = tokio::time::sleep(delay) => {}
        }
        self.publish(&mut ingress, &context, after).await;
    }

    /// Publishes it as its device would have (MQTT-3.1.2-8).
    pub(super) async fn publish(self, ingress: &mut Ingress, context: &Context, after: Batch) {
        let number = self.number;
        let inbound = inbound(self.will);
        // The hub tells nobody but connections of commits, and this one has ended.
        let commits = Arc::<Commits>::default();
        ingress.producer = context.log.producer(Arc::new(RetainedBeforeAcks {
            retained: Arc::clone(&context.retained),
            commits: Arc::clone(&commits),
        }));
        // In the record of the publish, if it has one.
        ingress.beside = number.map(wills::removal).unwrap_or_default();
        let taken = ingress.take(&inbound, &mut BTreeSet::new(), context.clock.now());
        if let Some(number) = number
            && !ingress.beside.is_empty()
        {
            // It got none: it was refused.
            ingress.beside.clear();
            context.wills.forget(number, &ingress.key);
        }
        match taken {
            Taken::Appended(batch, message, _) => {
                if commits.wait(batch).await == Outcome::Failed {
                    refuse(&RefusedPublish::CommitFailed, &inbound, ingress, context);
                }
                if let Some(message) = message {
                    context.fanout.publish(commits.latest_committed().max(after), message);
                }
            }
            Taken::Unlogged(message) => publish_locally(message, context, after),
            Taken::Duplicate => {}
            Taken::Refused(refused) => {
                refuse(&refused, &inbound, ingress, context);
                if refused.is_temporary() {
                    if inbound.publish.retain && inbound.publish.qos != QoS::AtMostOnce {
                        // A will is tried once.
                        context.stats.unretain(Unretained::LogUnavailable);
                    }
                    publish_locally(ingress.message(&inbound), context, after);
                }
            }
        }
    }
}

/// Publishes a will that a start found in the log, or waits as long as it must. Called before the listeners accept.
pub(crate) fn resume(stored: StoredWill, context: &Arc<Context>) {
    let StoredWill { key, will, detached, .. } = &stored;
    let has_fixed_identity = context.fixed_words.iter().any(|word| **word == *key.identity);
    let held = HeldWill::found(&stored, &Owner::of(&key.identity, has_fixed_identity), context);
    let now = context.clock.now();
    let (expiry, fate) = match context.registry.fate_of(key) {
        Some((expiry, fate)) => (expiry, Some(fate)),
        // The session ended with the connection, so the delay does.
        None => (0, None),
    };
    let delay = Duration::from_secs(u64::from(will.properties.delay.unwrap_or(0).min(expiry)));
    // An age that cannot be proved is none: then the whole delay is waited for.
    let waited = detached.and_then(|at| at.age(&now)).unwrap_or_default();
    if detached.is_none() && !delay.is_zero() {
        held.note_delay(u32::try_from(delay.as_secs()).unwrap_or(u32::MAX), key, context);
    }
    let ingress = Ingress {
        context: Arc::clone(context),
        session: SessionId {
            key: key.clone(),
            number: 0,
            is_old: false,
        },
        access: context.access.of(&key.identity, &context.gateway),
        device: context.devices.of(&key.identity),
        producer: context.log.producer(Arc::<Commits>::default()),
        // The one that knows a refusal: none is told.
        version: Version::V5,
        publishes: None,
        origin: context.fanout.origin(&key.identity, &key.client_id),
        key: key.clone(),
        has_no_local: false,
        is_persistent: false,
        beside: Vec::new(),
    };
    let fate = fate.unwrap_or_else(|| oneshot::channel().1);
    context
        .tasks
        .spawn(held.publish_later(delay.saturating_sub(waited), fate, ingress, Arc::clone(context), Batch(0)));
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

fn publish_locally(message: Option<Message>, context: &Context, after: Batch) {
    if let Some(message) = message {
        context.fanout.publish(after, message);
    }
}

/// A refused will counts as dropped, whatever its QoS: its device cannot know.
fn refuse(refused: &RefusedPublish, inbound: &Inbound, ingress: &Ingress, context: &Context) {
    refused.count(QoS::AtMostOnce, &context.stats);
    refused.log_will(&ingress.key.identity, &inbound.topic, context);
}
