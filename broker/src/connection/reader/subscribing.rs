//! Subscriptions: granting, committing and restoring them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use forebay_topic::{PeerText, TopicFilter};
use forebay_wal::Timestamp;
use tokio::time::Instant;

use super::super::outbox::{Answer, Closing, Pending, Ready};
use super::Reader;
use super::retaining::is_due;
use crate::codec::{AckProperties, Packet, ReasonCode, SubAck, Subscribe, Subscription, Text, UnsubAck, Unsubscribe};
use crate::delivery::{NotJoined, Share};
use crate::observe::{Disconnection, add};
use crate::policy::TopicBounds;
use crate::refusal::RefusedSubscription;
use crate::session::{self, Change, SubscriptionOptions};

/// Distinct filters of one SUBSCRIBE that are looked at, as a multiple of what a session may have: so that those that it has already
/// may be among them. The others are answered with 0x97, too.
const FILTERS: usize = 2;

impl Reader {
    /// SUBSCRIBE is a barrier: earlier packets are committed and delivered first, and later ones find the subscription in
    /// place. Otherwise a peer that subscribes and publishes at once would miss its own message.
    pub(super) async fn subscribe(&mut self, subscribe: Subscribe, now: Timestamp) -> Result<(), Closing> {
        self.answer_fits(subscribe.filters.len())?;
        self.barrier().await?;
        let mut changes = Vec::new();
        let mut due = Vec::new();
        let mut answers = HashMap::new();
        let merged = merged(&subscribe.filters);
        let limit = self.ingress.context.limits.max_subscriptions;
        for (nth, subscription) in merged.iter().enumerate() {
            let text = subscription.filter.as_str();
            if nth >= FILTERS * limit {
                let refused = RefusedSubscription::TooMany { limit };
                refused.note(&self.ingress.key.identity, text, &self.ingress.context);
                let more = (merged.len() - nth - 1) as u64;
                self.ingress.context.stats.subscriptions_refused.fetch_add(more, Ordering::Relaxed);
                break;
            }
            let options = SubscriptionOptions {
                qos: subscription.options.qos.level(),
                no_local: subscription.options.no_local,
                retain_as_published: subscription.options.retain_as_published,
                subscription_id: subscribe.subscription_id.map(std::num::NonZeroU32::get),
            };
            let code = match self.grant(text, options) {
                Ok((filter, granted)) => {
                    let name = text.to_owned();
                    let is_new = self.attached.state.subscriptions.insert(name.clone(), options).is_none();
                    // None for a shared subscription (MQTT 5, 4.8.2).
                    if let Some(filter) = filter
                        && is_due(subscription.options.retain_handling, is_new)
                    {
                        due.push((filter, granted));
                    }
                    changes.push(Change::Subscribed(self.attached.id.clone(), name, options));
                    add(&self.ingress.context.stats.subscriptions_granted, 1);
                    // Granted QoS 0, 1 and 2 are the codes 0, 1 and 2.
                    ReasonCode(granted.qos)
                }
                Err(refused) => refused.code(),
            };
            answers.insert(text, code);
        }
        let code = |filter: &Text| answers.get(filter.as_str()).copied().unwrap_or(ReasonCode::QUOTA_EXCEEDED);
        let codes = subscribe.filters.iter().map(|subscription| code(&subscription.filter)).collect();
        self.commit(&changes, now).await?;
        self.reply(&Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            codes,
            properties: AckProperties::default(),
        }));
        // What waits in a group that the session has joined comes behind SUBACK.
        self.deliveries.resume();
        for (filter, options) in due {
            // What is left of those of an earlier subscription is among them.
            self.retained_later.forget(filter.as_str());
            if filter.as_str().starts_with("$SYS/") {
                self.send_broker_topics(&filter, options);
            }
            if options.qos == 0 {
                self.send_retained(&filter, options).await?;
            } else {
                self.retained_later.begin(filter, options);
            }
        }
        Ok(())
    }

    /// SUBACK and UNSUBACK have a code for each filter. A peer that takes no packet of that size (MQTT-3.1.2-24) can never be
    /// answered, so its connection ends.
    fn answer_fits(&self, filters: usize) -> Result<(), Closing> {
        // Type and length, packet id, no properties.
        let size = filters + if filters + 3 < 128 { 5 } else { 7 };
        match self.peer_limit {
            Some(limit) if size > limit => {
                if self.is_first("maximum_packet_size") {
                    let identity = PeerText::new(&self.ingress.key.identity);
                    tracing::warn!(
                        ?identity,
                        filters,
                        limit,
                        "the connection is closed: the answer to its filters is larger than its Maximum Packet Size; let it send fewer at a time"
                    );
                }
                Err(Closing::because(Disconnection::PacketTooLarge, ReasonCode::PACKET_TOO_LARGE))
            }
            _ => Ok(()),
        }
    }

    /// Subscribes if that is allowed, and returns what is granted; the filter, if it is not a shared one.
    fn grant(
        &mut self,
        text: &str,
        options: SubscriptionOptions,
    ) -> Result<(Option<TopicFilter>, SubscriptionOptions), RefusedSubscription> {
        let granted = self.try_grant(text, options);
        if let Err(refused) = &granted {
            refused.note(&self.ingress.key.identity, text, &self.ingress.context);
        }
        granted
    }

    fn try_grant(
        &mut self,
        text: &str,
        options: SubscriptionOptions,
    ) -> Result<(Option<TopicFilter>, SubscriptionOptions), RefusedSubscription> {
        let share = Share::parse(text).map_err(RefusedSubscription::InvalidShare)?;
        let bounds = TopicBounds::of(&self.ingress.context.limits);
        let within = |text| bounds.check(text).map_err(RefusedSubscription::OverBound);
        let filter = match &share {
            None => {
                within(text)?;
                TopicFilter::parse(text).map_err(RefusedSubscription::InvalidFilter)?
            }
            Some(share) => {
                // The group and `/` come on top of what a filter may have, within the same bound.
                within(share.filter.as_str())?;
                within(share.key.split('/').next().unwrap_or_default())?;
                share.filter.clone()
            }
        };
        // By the filter inside: what a group gets, its members get.
        if !self.ingress.access.may_subscribe(&filter) {
            return Err(RefusedSubscription::NotAuthorized);
        }
        let subscriptions = &self.attached.state.subscriptions;
        let limit = self.ingress.context.limits.max_subscriptions;
        if subscriptions.len() >= limit && !subscriptions.contains_key(text) {
            return Err(RefusedSubscription::TooMany { limit });
        }
        let charge = if subscriptions.contains_key(text) {
            0
        } else {
            session::subscription_bytes(text)
        };
        self.attached.charge(charge).map_err(RefusedSubscription::OverBudget)?;
        let granted = self.deliveries.granted(options);
        let after = self.outbox.commits.latest_committed();
        let subscribed = match &share {
            None => self
                .deliveries
                .subscribe(&filter, granted, after)
                .map_err(NotJoined::TooManyFilters),
            Some(share) => self.deliveries.share(share, granted, after),
        };
        if subscribed.is_err() {
            self.attached.settle();
        }
        // Once is enough: what it then notes of its records is little, and forgotten with each batch.
        self.ingress.has_no_local |= options.no_local && subscribed.is_ok();
        subscribed.map_err(|refused| match refused {
            NotJoined::TooManyFilters(refused) => RefusedSubscription::TooManyFilters(refused),
            NotJoined::TooManyMembers => RefusedSubscription::TooManyMembers,
        })?;
        Ok((share.is_none().then_some(filter), granted))
    }

    pub(super) async fn unsubscribe(&mut self, unsubscribe: Unsubscribe, now: Timestamp) -> Result<(), Closing> {
        self.answer_fits(unsubscribe.filters.len())?;
        self.barrier().await?;
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        let mut changes = Vec::new();
        for filter in &unsubscribe.filters {
            let existed = self.attached.state.subscriptions.remove(filter.as_str()).is_some();
            if existed {
                match filter.as_str().strip_prefix("$share/") {
                    Some(key) => self.deliveries.unshare(key),
                    None => drop(self.deliveries.unsubscribe(filter.as_str())),
                }
                self.retained_later.forget(filter.as_str());
                changes.push(Change::Unsubscribed(self.attached.id.clone(), filter.as_str().to_owned()));
            }
            codes.push(if existed {
                ReasonCode::SUCCESS
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED
            });
        }
        self.attached.settle();
        self.commit(&changes, now).await?;
        self.reply(&Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            codes,
            properties: AckProperties::default(),
        }));
        Ok(())
    }

    /// Appends changes of a persistent session, and waits until they are committed.
    async fn commit(&mut self, changes: &[Change], now: Timestamp) -> Result<(), Closing> {
        if !self.ingress.is_persistent || changes.is_empty() {
            return Ok(());
        }
        let failed = Closing::because(Disconnection::LogFailed, ReasonCode::SERVER_BUSY);
        let Some(batch) = self.ingress.append_changes(&session::encode(changes), now) else {
            return Err(failed);
        };
        self.outbox.push(Pending {
            ready: Ready::After(batch),
            answer: Answer::Nothing,
            publish: None,
            fanout: None,
            since: Instant::now(),
            budget: 0,
            trace: None,
        });
        self.drained().await?;
        if self.outbox.take_change_failed() { Err(failed) } else { Ok(()) }
    }

    /// Restores the subscriptions of a resumed session before its first packet is read.
    pub(super) fn restore_subscriptions(&mut self) {
        let subscriptions = std::mem::take(&mut self.attached.state.subscriptions);
        self.attached.settle();
        for (text, options) in subscriptions {
            // The rules may have changed, or the bound of filters may be reached.
            if self.grant(&text, options).is_ok() {
                self.attached.state.subscriptions.insert(text, options);
            }
        }
    }

    async fn barrier(&self) -> Result<(), Closing> {
        self.drained().await?;
        self.ingress.context.fanout.barrier(self.outbox.commits.latest_committed()).await;
        Ok(())
    }

    /// Waits until every slot of the outbox has left.
    async fn drained(&self) -> Result<(), Closing> {
        self.until(|outbox| outbox.pending() == 0).await
    }
}

/// Each filter of a packet once, as its last place says (MQTT-3.8.4-3).
fn merged(filters: &[Subscription]) -> Vec<&Subscription> {
    let last: HashMap<_, _> = filters
        .iter()
        .map(|subscription| (subscription.filter.as_str(), subscription))
        .collect();
    let mut seen = HashSet::with_capacity(last.len());
    let first = filters.iter().filter(|subscription| seen.insert(subscription.filter.as_str()));
    first
        .filter_map(|subscription| last.get(subscription.filter.as_str()).copied())
        .collect()
}
