//! `codec`: nanoseconds of CPU time per packet in the MQTT codec.

use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_broker::codec::{
    Packet, Property, Publish, PublishProperties, QoS, ReasonCode, Role, Version, decode, encode, encode_puback, encode_publish,
};
use rustix::time::{ClockId, clock_gettime};

const PER_BUFFER: usize = 50;
const BUFFERS: usize = 20_000;

fn main() -> anyhow::Result<()> {
    let plain = Publish {
        qos: QoS::AtLeastOnce,
        topic: "devices/bench-17/telemetry".into(),
        packet_id: NonZeroU16::new(1000),
        payload: Bytes::from(vec![b'x'; 256]),
        ..Publish::default()
    };
    let mut travelling = BytesMut::new();
    Property::ContentType("application/json".into()).write(&mut travelling)?;
    Property::User(("unit".into(), "celsius".into())).write(&mut travelling)?;
    let properties = PublishProperties {
        expiry: Some(60),
        travelling: travelling.freeze(),
        ..PublishProperties::default()
    };
    let rich = Publish {
        properties,
        ..plain.clone()
    };
    for (name, publish, version) in [
        ("3.1.1", &plain, Version::V311),
        ("5", &plain, Version::V5),
        ("5, three properties", &rich, Version::V5),
    ] {
        println!("decode PUBLISH QoS 1, 256 B, MQTT {name}: {:.0} ns", decoding(publish, version)?);
        println!("encode the same: {:.0} ns", encoding(publish, version)?);
    }
    let mut out = BytesMut::with_capacity(1 << 20);
    let began = cpu_time();
    for _ in 0..BUFFERS {
        out.clear();
        for id in 1..=PER_BUFFER as u16 {
            encode_puback(&mut out, Version::V5, NonZeroU16::MIN.saturating_add(id), ReasonCode::SUCCESS)?;
        }
        black_box(&out);
    }
    println!("encode PUBACK: {:.1} ns", per_packet(began));
    Ok(())
}

/// As a connection does it: a buffer is filled by a read, then emptied packet by packet.
fn decoding(publish: &Publish, version: Version) -> anyhow::Result<f64> {
    let mut wire = BytesMut::new();
    for _ in 0..PER_BUFFER {
        encode(&Packet::Publish(publish.clone()), version, &mut wire)?;
    }
    let mut buffer = BytesMut::with_capacity(wire.len());
    let began = cpu_time();
    for _ in 0..BUFFERS {
        buffer.reserve(wire.len());
        buffer.extend_from_slice(&wire);
        while let Some(packet) = decode(&mut buffer, version, Role::Server, 128 * 1024)? {
            black_box(packet);
        }
    }
    Ok(per_packet(began))
}

fn encoding(publish: &Publish, version: Version) -> anyhow::Result<f64> {
    let mut out = BytesMut::with_capacity(1 << 20);
    let began = cpu_time();
    for _ in 0..BUFFERS {
        out.clear();
        for _ in 0..PER_BUFFER {
            encode_publish(publish, version, &mut out)?;
        }
        black_box(&out);
    }
    Ok(per_packet(began))
}

fn per_packet(began: Duration) -> f64 {
    (cpu_time() - began).as_nanos() as f64 / (PER_BUFFER * BUFFERS) as f64
}

/// Of this thread: others on the machine do not count.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
