//! Statements of MQTT 3.1.1 and 5.0 as bytes on a connection, by section. `docs/conformance.md` says which test holds which.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod connack;
mod connect;
mod packets;
mod publish;
mod strings;
mod subscribe;
mod wills;

use bytes::BytesMut;
use forebay_broker::codec::{
    Ack, Connect, ConnectProperties, Disconnect, Packet, Property, ReasonCode, Subscribe, SubscribeOptions, Subscription, Text,
};
use forebay_broker::codec::{Unsubscribe, Version, encode};
use support::{Bench, Client, connect_5, connect_311, id};

const OK: ReasonCode = ReasonCode::SUCCESS;
/// A clean start in each version.
const BOTH: [fn(&str) -> Connect; 2] = [connect_5, connect_311];

async fn connected(bench: &Bench, connect: Connect) -> Client {
    Client::connected(bench.address(), connect).await
}

fn bytes_of(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).unwrap();
    out.to_vec()
}

/// A packet of fewer than 128 bytes after its header, right or wrong.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first, u8::try_from(body.len()).unwrap()];
    assert!(body.len() < 128);
    out.extend(body);
    out
}

fn pubrel(packet_id: u16) -> Packet {
    Packet::PubRel(Ack::new(id(packet_id), OK))
}

fn goodbye() -> Packet {
    Packet::Disconnect(Disconnect::new(OK))
}

fn subscribe_packet(packet_id: u16, filters: &[(&str, SubscribeOptions)]) -> Packet {
    let filter = |(filter, options): &(&str, SubscribeOptions)| Subscription {
        filter: Text::from((*filter).to_owned()),
        options: *options,
    };
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        subscription_id: None,
        user: Vec::new(),
        filters: filters.iter().map(filter).collect(),
    })
}

fn unsubscribe_packet(packet_id: u16, filters: &[&str]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user: Vec::new(),
        filters: filters.iter().map(|filter| Text::from((*filter).to_owned())).collect(),
    })
}

/// Properties that travel with a message, as on the wire.
fn travelling(properties: &[Property]) -> bytes::Bytes {
    let mut out = BytesMut::new();
    for property in properties {
        property.write(&mut out).unwrap();
    }
    out.freeze()
}

fn bytes_of_connect(connect: Connect) -> Vec<u8> {
    let version = connect.version;
    bytes_of(&Packet::Connect(Box::new(connect)), version)
}

fn lasting(connect: Connect) -> Connect {
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: (connect.version == Version::V5).then_some(600),
            ..connect.properties
        },
        ..connect
    }
}
