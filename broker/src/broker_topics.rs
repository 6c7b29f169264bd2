//! `$SYS/broker/...`: what the gateway tells of itself at the topics and in the forms of Mosquitto, for health checks and dashboards.
//!
//! Values are published at QoS 0 every [`EVERY`], those that have changed, while there is a subscription below `$SYS`; a new subscription gets
//! all of them at once, with RETAIN. They are kept nowhere and never routed. No client can publish to these topics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_wal::Batch;

use crate::context::Context;
use crate::fanout::{Message, Origin};

/// How often the values are told.
const EVERY: Duration = Duration::from_secs(10);

/// Tells the values, until shutdown.
pub(crate) async fn run(context: Arc<Context>) {
    let mut told: HashMap<String, String> = HashMap::new();
    while tokio::time::timeout(EVERY, context.shutdown.cancelled()).await.is_err() {
        context.broker_topics.note(&context.stats, EVERY);
        if !context.fanout.has_subscription_below("$SYS") {
            told.clear();
            continue;
        }
        for (topic, value) in values(&context) {
            if told.get(&topic) != Some(&value) {
                context.fanout.publish(Batch(0), message(&topic, &value));
                told.insert(topic, value);
            }
        }
    }
}

/// Each topic and its value now.
pub(crate) fn values(context: &Context) -> Vec<(String, String)> {
    let (sessions, subscriptions) = (context.registry.len(), context.fanout.subscriptions());
    context.broker_topics.values(&context.stats, sessions, subscriptions)
}

/// A value as a message.
pub(crate) fn message(topic: &str, value: &str) -> Message {
    Message {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        origin: Origin::UNKNOWN,
        qos: 0,
        retain: false,
        expiry: None,
        properties: Bytes::new(),
        payload: Bytes::copy_from_slice(value.as_bytes()),
    }
}
