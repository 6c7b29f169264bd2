//! After a plant's power cut all devices come at once, and each needs seconds from accept to CONNECT. `FOREBAY_PLANT=2000` takes
//! as many devices, as slow as they are.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use forebay_broker::codec::{Packet, ReasonCode, Version, encode};
use forebay_broker::{Disconnection, Limits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Bench, Client, Setup, connect_5, within};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// How soon a device that was closed comes back.
const AGAIN: Duration = Duration::from_millis(500);

/// Both ends of each connection are in this process.
fn allow_open_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).unwrap_or_else(|error| panic!("{wanted} open files (`ulimit -Hn`): {error}"));
    }
}

/// A device that is silent for half of this time, begins, and says the rest after the other half; again until it is in.
async fn device(front: SocketAddr, number: u32, own_address: bool, takes: Duration) -> Client {
    let mut connect = BytesMut::new();
    encode(
        &Packet::Connect(Box::new(connect_5(&format!("d{number}")))),
        Version::V5,
        &mut connect,
    )
    .unwrap();
    let (begins, rest) = connect.split_at(10);
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        if own_address {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
            socket.bind((address, 0).into()).unwrap();
        }
        if let Ok(stream) = socket.connect(front).await {
            let mut client = Client::over(stream, Version::V5);
            // It is busy with its handshake, as its processor is slow.
            let mut busy = async |bytes| tokio::time::timeout(takes / 2, client.receive()).await.is_err() && client.send_raw(bytes).await;
            if busy(begins).await
                && busy(rest).await
                && let Some(Packet::ConnAck(connack)) = client.receive().await
            {
                assert_eq!(connack.code, ReasonCode::SUCCESS);
                return client;
            }
        }
        tokio::time::timeout(AGAIN, std::future::pending::<()>()).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_after_a_power_cut_all_slow_devices_are_in_in_time() {
    let whole = std::env::var("FOREBAY_PLANT").ok().map(|devices| devices.parse::<u32>().unwrap());
    let devices = whole.unwrap_or(250);
    allow_open_files(2 * u64::from(devices) + 200);
    // Seconds of a handshake, and within which all are in.
    let cases = if whole.is_some() { [(5, 30), (9, 60)] } else { [(1, 6), (2, 13)] };
    for (takes, most) in cases {
        for own_address in [false, true] {
            let bench = Bench::start(Setup {
                limits: Limits {
                    max_connections: devices as usize,
                    max_pending: devices as usize,
                    ..Limits::default()
                },
                ..Setup::default()
            })
            .await;
            let began = Instant::now();
            let mut joined = JoinSet::new();
            for number in 0..devices {
                joined.spawn(device(bench.address(), number, own_address, Duration::from_secs(takes)));
            }
            let clients = tokio::time::timeout(Duration::from_secs(2 * most), joined.join_all())
                .await
                .expect("all get in");
            let took = began.elapsed();
            println!("{devices} devices of {takes} s, own addresses: {own_address}: all in after {took:?}");
            assert!(took <= Duration::from_secs(most), "{took:?}, at most {most} s");
            assert_eq!(bench.view.stats().disconnected(Disconnection::Evicted), 0, "none of them gave way");
            let all = u64::from(devices);
            bench
                .until("all are counted", |view| view.stats().connected.load(Ordering::Relaxed) == all)
                .await;
            drop(clients);
            within("the front stops", bench.stop()).await;
        }
    }
}
