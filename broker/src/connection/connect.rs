//! From the first byte to CONNACK.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Peer;
use super::input::{Input, LOOK, RETRY, SILENCE};
use super::outbox::Outbox;
use super::outgoing::Receiver;
use super::will::HeldWill;
use crate::budget::Owner;
use crate::codec::{
    ConnAck, ConnAckProperties, Connect, DecodeError, Packet, ReasonCode, Text, UserProperties, Version, decode_connect, encode,
};
use crate::context::Context;
use crate::delivery::window_of;
use crate::ingress::Ingress;
use crate::observe::Disconnection;
use crate::policy::TopicBounds;
use crate::refusal::RefusedConnect;
use crate::session::{AttachError, Attached, Claim, SessionKey};
use crate::tls::Identity;

/// Longest client id in bytes; the standard asks for 23 at least (MQTT-3.1.3-5).
const MAX_CLIENT_ID: usize = 256;
/// Topic aliases that a version 5 peer may use.
const TOPIC_ALIAS_MAXIMUM: u16 = 32;
/// The user property of CONNACK with the time.
const TIME_PROPERTY: &str = "forebay-time";

/// A connection that has its CONNACK.
pub(super) struct Open {
    pub(super) version: Version,
    pub(super) outbox: Arc<Outbox>,
    pub(super) ingress: Ingress,
    pub(super) attached: Attached,
    /// Boxed, because most connections have none.
    pub(super) will: Option<Box<HeldWill>>,
    /// Silence after which the connection is closed; `None` for keep-alive 0.
    pub(super) keep_alive: Option<Duration>,
    /// The peer's Maximum Packet Size.
    pub(super) peer_limit: Option<usize>,
    /// As what messages are sent to it.
    pub(super) receiver: Receiver,
    /// Whether all of the listener's connections have one identity.
    pub(super) has_fixed_identity: bool,
    /// Who is charged for what it leaves behind.
    pub(super) owner: Owner,
    /// Topic aliases that the peer may use.
    pub(super) alias_maximum: u16,
    /// Publishes of QoS 1 and 2 that may be in flight to the peer.
    pub(super) window: u16,
}

/// Reads CONNECT, decides, answers. What came behind CONNECT is given back too.
///
/// `opened` is called once it is past CONNECT.
///
/// # Errors
/// Why the connection ends here. The peer has been told as far as its version allows.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: &Peer,
    context: &Arc<Context>,
    deadline: Instant,
    opened: impl FnOnce(),
) -> Result<(Open, Input), Disconnection> {
    let owner = match peer.identity.fixed_word() {
        Some(_) => Owner::FixedWord,
        None => Owner::at(peer.address.ip()),
    };
    let mut input = Input::new(owner, &context.budget);
    let read = tokio::select! {
        read = timeout_at(deadline, read(stream, &mut input, context.limits.max_packet)) => read,
        () = context.shutdown.cancelled() => return Err(Disconnection::Shutdown),
        () = peer.evicted.cancelled() => return Err(Disconnection::Evicted),
    };
    let connect = match read {
        Ok(Ok(connect)) => connect,
        Ok(Err(Failure::Closed)) => return Err(Disconnection::ConnectionLost),
        Ok(Err(Failure::Decode(error))) => {
            let version = error.version();
            return Err(refuse(stream, peer, &RefusedConnect::Undecodable(error), version, context).await);
        }
        Err(_) => {
            if context.is_first_from(peer.address.ip(), "connect_timeout") {
                tracing::info!(peer = %peer.address, limit = ?context.limits.connect_timeout, "no CONNECT within limits.connect_timeout; the connection is closed");
            }
            return Err(Disconnection::ConnectTimeout);
        }
    };
    let version = connect.version;
    let decided = tokio::select! {
        decided = decide(connect, peer, context, deadline) => decided,
        () = context.shutdown.cancelled() => return Err(Disconnection::Shutdown),
        () = peer.evicted.cancelled() => return Err(Disconnection::Evicted),
    };
    match decided {
        Ok((open, connack)) => {
            let Some(out) = fitted(connack, version, open.peer_limit) else {
                let identity = Arc::clone(&open.ingress.key.identity);
                let limit = open.peer_limit.unwrap_or(0);
                never_opened(open.attached, open.will, context).await;
                let refused = RefusedConnect::PacketSize { identity, limit };
                // A refusal has five bytes.
                let version = (limit >= 5).then_some(version);
                return Err(refuse(stream, peer, &refused, version, context).await);
            };
            // Before CONNACK: who has that may count on its place before CONNECT being free.
            opened();
            if send(stream, &out).await.is_err() {
                never_opened(open.attached, open.will, context).await;
                return Err(Disconnection::ConnectionLost);
            }
            let input = input.owned_by(open.owner.clone());
            Ok((open, input))
        }
        Err(refused) => Err(refuse(stream, peer, &refused, Some(version), context).await),
    }
}

enum Failure {
    Closed,
    Decode(DecodeError),
}

async fn decide(connect: Connect, peer: &Peer, context: &Arc<Context>, deadline: Instant) -> Result<(Open, ConnAck), RefusedConnect> {
    let (client_id, assigned) = client_id(&connect)?;
    let identity = authenticate(&connect, &client_id, peer, context)?;
    let access = context.access.of(&identity, &context.gateway);
    if let Some(will) = &connect.will
        && !access.may_publish(will.topic.as_str())
    {
        let topic = will.topic.as_str().to_owned();
        return Err(RefusedConnect::WillNotAuthorized { identity, topic });
    }
    if let Some(will) = &connect.will
        && let Err(error) = TopicBounds::of(&context.limits).check(will.topic.as_str())
    {
        return Err(RefusedConnect::WillOverBound { identity, error });
    }
    let expiry = session_expiry(&connect, context);
    let key = SessionKey {
        identity: Arc::from(&*identity),
        client_id: Arc::from(&*client_id),
    };
    let has_fixed_identity = peer.identity.fixed_word().is_some();
    let owner = Owner::of(&key.identity, has_fixed_identity);
    let will = connect
        .will
        .as_ref()
        .map(|will| HeldWill::keep(will, &owner, context).map(Box::new));
    let will = will.transpose().map_err(|exceeded| RefusedConnect::WillOverBudget {
        identity: identity.clone(),
        exceeded,
    })?;
    let claim = Claim {
        key: key.clone(),
        clean_start: connect.clean_start,
        expiry_seconds: expiry,
        owner: owner.clone(),
        max_connections: if has_fixed_identity { u64::MAX } else { access.max_connections() },
    };
    let (attached, will) = attach(context, claim, will, deadline)
        .await
        .map_err(|error| RefusedConnect::Session {
            identity: identity.clone(),
            error,
        })?;
    let alias_maximum = alias_maximum(context);
    let connack = connack(&connect, &attached, assigned, alias_maximum, context);
    let output = context.budget.output_bytes.open(owner.clone());
    let uncommitted = context.budget.uncommitted.line(owner.clone());
    let hub = Arc::clone(&peer.hub);
    let producer = hub.producer();
    let outbox = Arc::new(Outbox::new(connect.version, attached.ending.clone(), output, uncommitted, hub));
    outbox.allow_aliases(connect.properties.topic_alias_maximum.unwrap_or(0));
    let device = context.devices.of(&identity);
    let publishes = context.observer.publishes(&key.identity);
    let origin = context.fanout.origin(&key.identity, &key.client_id);
    let ingress = Ingress {
        context: Arc::clone(context),
        key,
        session: attached.id.clone(),
        access,
        device,
        producer,
        version: connect.version,
        publishes,
        origin,
        has_no_local: false,
        is_persistent: attached.state.is_persistent,
        beside: Vec::new(),
    };
    let granted = connack.properties.server_keep_alive.unwrap_or(connect.keep_alive);
    let peer_limit = connect.properties.maximum_packet_size.map(|limit| limit.get() as usize);
    let receiver = Receiver {
        version: connect.version,
        peer_limit: match connect.version {
            Version::V5 => peer_limit,
            Version::V311 => ingress.access.max_packet_311(),
        },
    };
    let open = Open {
        version: connect.version,
        outbox,
        ingress,
        attached,
        keep_alive: (granted > 0).then(|| Duration::from_millis(u64::from(granted) * 1500)),
        peer_limit,
        receiver,
        will,
        has_fixed_identity,
        owner,
        alias_maximum,
        window: window_of(connect.version, connect.properties.receive_maximum),
    };
    Ok((open, connack))
}

/// Gets the session, before `deadline`. In a task of its own, because what it commits must become known to the session even if the
/// connection has ended meanwhile: then the session is given back at once. Cancel safe.
async fn attach(
    context: &Arc<Context>,
    claim: Claim,
    mut will: Option<Box<HeldWill>>,
    deadline: Instant,
) -> Result<(Attached, Option<Box<HeldWill>>), AttachError> {
    let (hand_over, attached) = oneshot::channel();
    let shared = Arc::clone(context);
    context.tasks.spawn(async move {
        let key = claim.key.clone();
        let attached = shared.registry.attach(claim, deadline).await;
        if let (Ok(_), Some(will)) = (&attached, &mut will) {
            will.store(&key, &shared).await;
        }
        if let Err(Ok((attached, will))) = hand_over.send(attached.map(|attached| (attached, will))) {
            never_opened(attached, will, &shared).await;
        }
    });
    match timeout_at(deadline, attached).await {
        Ok(Ok(attached)) => attached,
        Ok(Err(_)) => Err(AttachError::NotCommitted),
        Err(_) => Err(AttachError::Late),
    }
}

/// Gives the session of a connection back that is never told of it.
async fn never_opened(attached: Attached, will: Option<Box<HeldWill>>, context: &Context) {
    if let Some(will) = will {
        will.forget(&attached.id.key, context);
    }
    context.registry.detach(attached).await;
}

/// The client id, and the one that was assigned if the peer left it to the server (MQTT-3.1.3-6, MQTT-3.2.2-16).
fn client_id(connect: &Connect) -> Result<(String, Option<Text>), RefusedConnect> {
    let given = connect.client_id.as_str();
    if given.len() > MAX_CLIENT_ID {
        return Err(RefusedConnect::ClientIdTooLong {
            bytes: given.len(),
            limit: MAX_CLIENT_ID,
        });
    }
    if !given.is_empty() {
        return Ok((given.to_owned(), None));
    }
    if connect.version == Version::V311 && !connect.clean_start {
        return Err(RefusedConnect::NoClientId);
    }
    let random = getrandom::u64().map_err(RefusedConnect::NoRandomness)?;
    let assigned = format!("forebay-{random:016x}");
    Ok((assigned.clone(), Some(Text::from(assigned))))
}

/// The identity by the listener's template. It cannot be another listener's fixed word, and enhanced authentication is not
/// supported.
fn authenticate(connect: &Connect, client_id: &str, peer: &Peer, context: &Context) -> Result<Identity, RefusedConnect> {
    let identity = peer
        .identity
        .identity(peer.certificate.as_ref(), client_id)
        .map_err(RefusedConnect::BadIdentity)?;
    if peer.identity.fixed_word().is_none() && context.fixed_words.iter().any(|word| **word == *identity) {
        return Err(RefusedConnect::ClaimedIdentity(identity));
    }
    if connect.properties.authentication_method.is_some() {
        return Err(RefusedConnect::EnhancedAuthentication(identity));
    }
    Ok(identity)
}

/// Seconds that the session outlives the connection: at most `sessions.max_expiry`.
fn session_expiry(connect: &Connect, context: &Context) -> u32 {
    let limit = u32::try_from(context.limits.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
    match connect.version {
        Version::V311 if connect.clean_start => 0,
        Version::V311 => limit,
        Version::V5 => connect.properties.session_expiry.unwrap_or(0).min(limit),
    }
}

/// New connections get no aliases while half of the memory for them is taken: what a client was granted it may use.
fn alias_maximum(context: &Context) -> u16 {
    let aliases = &context.budget.alias_bytes;
    if aliases.taken() > aliases.whole() / 2 {
        0
    } else {
        TOPIC_ALIAS_MAXIMUM
    }
}

fn connack(connect: &Connect, attached: &Attached, assigned: Option<Text>, alias_maximum: u16, context: &Context) -> ConnAck {
    let expiry = attached.state.expiry_seconds;
    let limit = u16::try_from(context.limits.max_keep_alive.as_secs()).unwrap_or(u16::MAX);
    let is_too_long = connect.keep_alive == 0 || connect.keep_alive > limit;
    let properties = match connect.version {
        Version::V311 => ConnAckProperties::default(),
        Version::V5 => ConnAckProperties {
            session_expiry: (connect.properties.session_expiry.unwrap_or(0) != expiry).then_some(expiry),
            receive_maximum: NonZeroU16::new(context.limits.max_in_flight),
            maximum_packet_size: u32::try_from(context.limits.max_packet).ok().and_then(NonZeroU32::new),
            assigned_client_id: assigned,
            topic_alias_maximum: Some(alias_maximum),
            shared_available: Some(true),
            server_keep_alive: is_too_long.then_some(limit),
            user: time(context),
            ..ConnAckProperties::default()
        },
    };
    ConnAck {
        session_present: attached.present,
        code: ReasonCode::SUCCESS,
        properties,
    }
}

/// CONNACK as it is sent, within the peer's Maximum Packet Size (MQTT-3.1.2-24). What it must have least goes first: the time
/// (MQTT-3.2.2-20), then what the peer may learn by a refusal. `None` if the rest is too large.
fn fitted(mut connack: ConnAck, version: Version, limit: Option<usize>) -> Option<BytesMut> {
    let leave_out: [fn(&mut ConnAckProperties); 4] = [
        |properties| properties.user.clear(),
        |properties| properties.topic_alias_maximum = None,
        |properties| properties.shared_available = None,
        |properties| properties.maximum_packet_size = None,
    ];
    let mut steps = leave_out.iter();
    loop {
        let mut out = BytesMut::new();
        encode(&Packet::ConnAck(Box::new(connack.clone())), version, &mut out).ok()?;
        if limit.is_none_or(|limit| out.len() <= limit) {
            return Some(out);
        }
        steps.next()?(&mut connack.properties);
    }
}

/// The time for devices without a clock, in milliseconds since 1970; empty while the gateway's clock is not trusted.
fn time(context: &Context) -> UserProperties {
    let now = context.clock.now();
    if !now.trusted {
        return UserProperties::new();
    }
    vec![(Text::from_static(TIME_PROPERTY), Text::from(now.wall_ms.to_string()))]
}

/// Tells the peer and the operator. Without a version there is no CONNACK that the peer could read.
async fn refuse<S: AsyncWrite + Unpin>(
    stream: &mut S,
    peer: &Peer,
    refused: &RefusedConnect,
    version: Option<Version>,
    context: &Context,
) -> Disconnection {
    refused.log(peer.address, context);
    let mut out = BytesMut::new();
    let connack = Packet::ConnAck(Box::new(ConnAck::refused(refused.code())));
    if version.is_some_and(|version| encode(&connack, version, &mut out).is_ok()) {
        // A peer that is gone needs no answer.
        send(stream, &out).await.ok();
        stream.shutdown().await.ok();
    }
    refused.disconnection()
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> std::io::Result<()> {
    let write = async { stream.write_all(bytes).await.and(stream.flush().await) };
    tokio::time::timeout(Duration::from_secs(10), write)
        .await
        .unwrap_or_else(|late| Err(late.into()))
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, input: &mut Input, max_packet: usize) -> Result<Connect, Failure> {
    loop {
        if let Some(connect) = decode_connect(&mut input.buffer, max_packet).map_err(Failure::Decode)? {
            return Ok(connect);
        }
        while !input.has_room() {
            tokio::time::sleep(RETRY).await;
        }
        let heard = Instant::now();
        let read = loop {
            match tokio::time::timeout(LOOK, input.read(stream)).await {
                Ok(read) => break read,
                Err(_) if heard.elapsed() >= SILENCE && input.is_in_the_way() => break Ok(0),
                Err(_) => {}
            }
        };
        match read {
            Ok(0) | Err(_) => return Err(Failure::Closed),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p4_a_connack_is_never_larger_than_the_peer_takes_and_keeps_what_fits() {
        for assigned in [None, Some(Text::from_static("forebay-0123456789abcdef"))] {
            let connack = ConnAck {
                properties: ConnAckProperties {
                    receive_maximum: NonZeroU16::new(100),
                    maximum_packet_size: NonZeroU32::new(131_072),
                    assigned_client_id: assigned.clone(),
                    topic_alias_maximum: Some(TOPIC_ALIAS_MAXIMUM),
                    shared_available: Some(true),
                    server_keep_alive: Some(1200),
                    user: vec![(Text::from_static(TIME_PROPERTY), Text::from_static("1795723200000"))],
                    ..ConnAckProperties::default()
                },
                ..ConnAck::default()
            };
            let whole = fitted(connack.clone(), Version::V5, None).unwrap().len();
            let mut before = 0;
            for limit in 1..=whole + 1 {
                let Some(out) = fitted(connack.clone(), Version::V5, Some(limit)) else {
                    assert_eq!(before, 0, "what fits into less fits");
                    continue;
                };
                assert!(out.len() <= limit && out.len() >= before, "{limit}: {}", out.len());
                before = out.len();
            }
            assert_eq!(before, whole);
            let least = (1..)
                .find(|limit| fitted(connack.clone(), Version::V5, Some(*limit)).is_some())
                .unwrap();
            assert_eq!(least, if assigned.is_some() { 38 } else { 11 });
        }
    }
}
