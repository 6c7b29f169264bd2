//! Why rumqttd is not in the ack path (docs/decisions/0001): a stock broker acks what its hook has not taken.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use forebay_broker::codec::{Connect, ConnectProperties, Packet, Publish, QoS, Role, Text, Version, decode, encode};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

const DEADLINE: Duration = Duration::from_secs(30);
const PUBLISHES: u16 = 50;

#[test]
fn a_stock_broker_acks_while_whoever_should_store_the_messages_stalls() {
    let address = free_address();
    let mut broker = Broker::new(config(address));
    let (mut link, mut hook) = broker.link("hook").unwrap();
    link.subscribe("#").unwrap();
    std::thread::spawn(move || {
        if let Err(error) = broker.start() {
            panic!("the stock broker ended: {error}");
        }
    });

    let mut stream = dialled(address);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut out = BytesMut::new();
    let connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 60,
        client_id: Text::from("device"),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    encode(&Packet::Connect(Box::new(connect)), Version::V311, &mut out).unwrap();
    for packet_id in 1..=PUBLISHES {
        let publish = Publish {
            qos: QoS::AtLeastOnce,
            topic: Text::from("devices/d/alarm"),
            packet_id: std::num::NonZeroU16::new(packet_id),
            payload: b"fire".as_slice().into(),
            ..Publish::default()
        };
        encode(&Packet::Publish(publish), Version::V311, &mut out).unwrap();
    }
    stream.write_all(&out).unwrap();

    // All of them are acked although the hook has not taken or stored a single one.
    let mut input = BytesMut::new();
    let mut acked = 0;
    while acked < PUBLISHES {
        match decode(&mut input, Version::V311, Role::Client, 1 << 20).unwrap() {
            Some(Packet::PubAck(_)) => acked += 1,
            Some(_) => {}
            None => {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "the broker closed after {acked} acks");
                input.extend_from_slice(&bytes[..read]);
            }
        }
    }
    // They wait in memory, where a power cut ends them.
    let deadline = Instant::now() + DEADLINE;
    let taken = loop {
        match hook.recv_deadline(deadline).unwrap() {
            Some(rumqttd::Notification::Forward(forward)) => break forward.publish.payload,
            _ => assert!(Instant::now() < deadline, "the hook was never given a message"),
        }
    };
    assert_eq!(&taken[..], b"fire");
}

fn config(listen: SocketAddr) -> Config {
    let settings = ServerSettings {
        name: "v4".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size: 20480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: 10,
            max_outgoing_packet_count: 200,
            max_segment_size: 1 << 20,
            max_segment_count: 2,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("1".to_owned(), settings)])),
        ..Config::default()
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn dialled(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "the stock broker does not listen: {error}"),
        }
        std::thread::yield_now();
    }
}
