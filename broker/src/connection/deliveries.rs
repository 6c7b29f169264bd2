//! Messages from the fan-out to one peer: its subscriptions at the router, and the PUBLISH packets that come of them.
//!
//! What is granted is QoS 0 (SUBACK says so): a message that a slow peer does not read in time is dropped and counted.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use forebay_topic::TopicFilter;
use tokio::sync::{mpsc, oneshot};

use super::outbox::{Closing, Outbox};
use crate::access::Access;
use crate::codec::{PublishHeader, QoS, ReasonCode, Version, encode_publish_header};
use crate::context::Context;
use crate::fanout::{Arrival, Message, RouterGone, Subscriber};
use crate::ingress::Ingress;
use crate::session::SubscriptionOptions;
use crate::stats::{Disconnection, add};

/// The reader's end. Dropping it ends the deliveries.
pub(super) struct Deliveries {
    commands: Option<mpsc::Sender<Command>>,
    /// What the task needs, until the first subscription starts it: most devices never subscribe.
    idle: Option<Task>,
    numbers: HashMap<String, u32>,
    next_number: u32,
    context: Arc<Context>,
}

enum Command {
    Subscribe(TopicFilter, u32, SubscriptionOptions, oneshot::Sender<Result<(), RouterGone>>),
    Unsubscribe(u32, oneshot::Sender<Result<(), RouterGone>>),
}

struct Task {
    context: Arc<Context>,
    outbox: Arc<Outbox>,
    version: Version,
    access: Access,
    identity: Arc<str>,
    peer_limit: Option<usize>,
    options: HashMap<u32, SubscriptionOptions>,
}

impl Deliveries {
    pub(super) fn new(context: Arc<Context>, outbox: Arc<Outbox>, version: Version, ingress: &Ingress, peer_limit: Option<usize>) -> Self {
        let idle = Task {
            context: Arc::clone(&context),
            outbox,
            version,
            access: ingress.access.clone(),
            identity: Arc::clone(&ingress.key.identity),
            peer_limit,
            options: HashMap::new(),
        };
        Self {
            commands: None,
            idle: Some(idle),
            numbers: HashMap::new(),
            next_number: 1,
            context,
        }
    }

    /// Subscribes, or changes the options of a subscription that exists (MQTT-3.8.4-3). Messages flow once this returns.
    pub(super) async fn subscribe(&mut self, filter: TopicFilter, options: SubscriptionOptions) -> Result<(), RouterGone> {
        let number = *self.numbers.entry(filter.as_str().to_owned()).or_insert_with(|| {
            self.next_number += 1;
            self.next_number
        });
        let (done, wait) = oneshot::channel();
        let commands = self.started().await?;
        commands
            .send(Command::Subscribe(filter, number, options, done))
            .await
            .map_err(|_| RouterGone)?;
        wait.await.map_err(|_| RouterGone)?
    }

    /// Unsubscribes; false if there was no such subscription.
    pub(super) async fn unsubscribe(&mut self, filter: &str) -> Result<bool, RouterGone> {
        let Some(number) = self.numbers.remove(filter) else {
            return Ok(false);
        };
        let (done, wait) = oneshot::channel();
        let commands = self.started().await?;
        commands.send(Command::Unsubscribe(number, done)).await.map_err(|_| RouterGone)?;
        wait.await.map_err(|_| RouterGone)??;
        Ok(true)
    }

    async fn started(&mut self) -> Result<mpsc::Sender<Command>, RouterGone> {
        if let Some(task) = self.idle.take() {
            let subscriber = self.context.fanout.subscriber().await?.ok_or(RouterGone)?;
            let (commands, queue) = mpsc::channel(1);
            tokio::spawn(task.run(subscriber, queue));
            self.commands = Some(commands);
        }
        self.commands.clone().ok_or(RouterGone)
    }
}

impl Task {
    async fn run(mut self, mut subscriber: Subscriber, mut queue: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.obey(command, &mut subscriber).await,
                    None => return,
                },
                arrival = subscriber.next() => match arrival {
                    Ok(Arrival::Message(number, message)) => self.deliver(number, &message),
                    Ok(Arrival::Done) => {}
                    Err(RouterGone) => {
                        self.outbox.close(Closing::because(Disconnection::Shutdown, ReasonCode::SERVER_UNAVAILABLE));
                        return;
                    }
                },
            }
        }
    }

    async fn obey(&mut self, command: Command, subscriber: &mut Subscriber) {
        let mut early = Vec::new();
        let (result, done) = match command {
            Command::Subscribe(filter, number, options, done) => {
                let result = if self.options.insert(number, options).is_some() {
                    Ok(())
                } else {
                    subscriber.subscribe(&filter, number, &mut early).await
                };
                (result, done)
            }
            Command::Unsubscribe(number, done) => {
                let result = subscriber.unsubscribe(number, &mut early).await;
                for (number, message) in early.drain(..) {
                    self.deliver(number, &message);
                }
                self.options.remove(&number);
                (result, done)
            }
        };
        for (number, message) in early {
            self.deliver(number, &message);
        }
        // The reader may have ended meanwhile.
        done.send(result).ok();
    }

    fn deliver(&self, number: u32, message: &Message) {
        let Some(options) = self.options.get(&number) else { return };
        if options.no_local && *message.publisher == *self.identity.as_bytes() {
            return;
        }
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return };
        if !self.access.may_receive(topic) {
            return;
        }
        let subscription_ids: Vec<NonZeroU32> = options.subscription_id.and_then(NonZeroU32::new).into_iter().collect();
        let header = PublishHeader {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: message.retain && options.retain_as_published,
            topic: &message.topic,
            packet_id: None,
            topic_alias: None,
            expiry: message.expiry,
            subscription_ids: &subscription_ids,
            travelling: &message.properties,
            payload_len: message.payload.len(),
        };
        let is_small_enough = |length: usize| self.peer_limit.is_none_or(|limit| length <= limit);
        let mut was_written = true;
        let was_taken = self.outbox.deliver(|out| {
            let start = out.len();
            was_written = encode_publish_header(&header, self.version, out).is_ok();
            if was_written {
                out.extend_from_slice(&message.payload);
            }
            if !is_small_enough(out.len() - start) {
                // A message over the peer's limit counts as delivered (MQTT-3.1.2-25).
                out.truncate(start);
            }
        });
        let counter = if was_taken && was_written {
            &self.context.stats.fanned_out
        } else {
            &self.context.stats.fanout_dropped
        };
        add(counter, 1);
    }
}
