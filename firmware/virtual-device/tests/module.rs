//! The module's driver against the stand-in, over a pipe on one side and real sockets on the other.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use embedded_io_async::{ErrorType, Read, Write};
use forebay_device_core::{Clock, Lost, Network, Socket};
use forebay_eswifi::{Access, Module, Serial};
use forebay_virtual_device::HostClock;
use forebay_virtual_device::module::{Control, play};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;

/// The device's end of the serial line; it gives bytes in pieces.
struct Pipe(DuplexStream);

impl ErrorType for Pipe {
    type Error = embedded_io_async::ErrorKind;
}

impl Read for Pipe {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, embedded_io_async::ErrorKind> {
        let room = into.len().min(7);
        self.0.read(&mut into[..room]).await.map_err(|error| error.kind().into())
    }
}

impl Write for Pipe {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, embedded_io_async::ErrorKind> {
        self.0
            .write(&bytes[..bytes.len().min(5)])
            .await
            .map_err(|error| error.kind().into())
    }

    async fn flush(&mut self) -> Result<(), embedded_io_async::ErrorKind> {
        self.0.flush().await.map_err(|error| error.kind().into())
    }
}

type Driver = Module<'static, Serial<Pipe>, HostClock>;

struct Bench {
    control: Control,
    module: Driver,
    clock: HostClock,
    peer: TcpListener,
}

impl Bench {
    async fn new() -> Self {
        let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::dialling(peer.local_addr().unwrap(), peer)
    }

    fn dialling(address: SocketAddr, peer: TcpListener) -> Self {
        let control = Control::default();
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(play(theirs, control.clone()));
        let clock = HostClock::start();
        let access = Access {
            ssid: "plant",
            pass_phrase: "a pass phrase",
            host: "localhost",
            port: address.port(),
        };
        Self {
            control,
            module: Module::new(Serial(Pipe(ours)), clock, access),
            clock,
            peer,
        }
    }

    fn within(&self, seconds: u64) -> forebay_device_core::Uptime {
        self.clock.now() + Duration::from_secs(seconds)
    }
}

#[tokio::test]
async fn it_joins_dials_sends_and_receives_whole_and_in_order() {
    let mut bench = Bench::new().await;
    let until = bench.within(60);
    bench.module.join(until).await.unwrap();
    assert_eq!(bench.module.signal_dbm(), Some(-58));
    let mut socket = bench.module.open(until).await.unwrap();
    let (mut peer, _) = bench.peer.accept().await.unwrap();
    // Everything that looks like an answer's end is data like any other, unless it stands at the end of a piece.
    let mut sent: Vec<u8> = (0..5000_u32).map(|number| (number % 251) as u8).collect();
    sent[100..109].copy_from_slice(b"\r\nOK\r\n> x");
    socket.write_all(&sent, until).await.unwrap();
    let mut got = vec![0; sent.len()];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(got, sent);
    peer.write_all(&sent).await.unwrap();
    let mut back = Vec::new();
    while back.len() < sent.len() {
        let mut buffer = [0; 333];
        let count = socket.read(&mut buffer, until).await.unwrap();
        back.extend_from_slice(&buffer[..count]);
        // A write between two reads pushes nothing out.
        if count > 0 && back.len() < 1000 {
            socket.write_all(b"between", until).await.unwrap();
        }
    }
    assert_eq!(back, sent);
    drop(peer);
    assert_eq!(socket.read(&mut [0; 16], until).await, Err(Lost::Closed));
}

#[tokio::test]
async fn a_read_ends_at_its_time_and_nobody_listening_is_unreachable() {
    let mut bench = Bench::new().await;
    let until = bench.within(60);
    bench.module.join(until).await.unwrap();
    let soon = bench.clock.now();
    let mut socket = bench.module.open(until).await.unwrap();
    assert_eq!(socket.read(&mut [0; 16], soon).await, Ok(0));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut bench = Bench::dialling(gone, listener);
    bench.module.join(until).await.unwrap();
    assert_eq!(bench.module.open(until).await.map(drop), Err(Lost::Unreachable));
}

#[tokio::test]
async fn an_access_point_that_refuses_is_not_the_modules_fault() {
    let mut bench = Bench::new().await;
    bench.control.set(|faults| faults.refuses_join = true);
    let until = bench.within(60);
    assert_eq!(bench.module.join(until).await, Err(Lost::NotJoined));
    bench.control.set(|faults| faults.refuses_join = false);
    assert_eq!(bench.module.join(until).await, Ok(()), "without a reset");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_module_is_left_at_the_deadline_and_mended_by_a_reset() {
    let mut bench = Bench::new().await;
    let until = bench.within(60);
    bench.module.join(until).await.unwrap();
    bench.control.set(|faults| faults.is_stuck = true);
    let before = bench.clock.now();
    assert_eq!(bench.module.open(bench.within(60)).await.map(drop), Err(Lost::Module));
    assert!(bench.clock.now().since(before) < Duration::from_secs(10));
    // What is in doubt is not asked again.
    let commands = bench.control.seen().commands;
    assert_eq!(bench.module.open(bench.within(60)).await.map(drop), Err(Lost::Module));
    assert_eq!(bench.control.seen().commands, commands);
    bench.module.reset(bench.within(10)).await;
    bench.module.join(bench.within(60)).await.unwrap();
    assert_eq!(bench.control.seen().joins, 2, "a reset module must join again");
}

#[tokio::test(start_paused = true)]
async fn cut_answers_noise_and_a_dead_module_are_the_modules_fault() {
    for fault in [
        (|faults| faults.cut_answers = 1) as fn(&mut forebay_virtual_device::module::Faults),
        |faults| faults.noise = 1,
        |faults| faults.is_dead = true,
        |faults| faults.resets_itself = true,
    ] {
        let mut bench = Bench::new().await;
        bench.module.join(bench.within(60)).await.unwrap();
        bench.control.set(fault);
        assert_eq!(bench.module.open(bench.within(60)).await.map(drop), Err(Lost::Module));
        bench.control.set(|faults| faults.is_dead = false);
        bench.module.join(bench.within(60)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_module_that_stays_dead_costs_the_deadline_and_no_more() {
    let mut bench = Bench::new().await;
    bench.control.set(|faults| faults.is_dead = true);
    let before = bench.clock.now();
    assert_eq!(bench.module.join(bench.within(30)).await, Err(Lost::Module));
    assert_eq!(bench.clock.now().since(before), Duration::from_secs(30));
}
