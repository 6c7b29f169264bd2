//! Makes the connection to the cloud: its files, name, TCP, TLS. The files are read at each connect. Each stage after them has a third of the connect timeout, so that an error can say
//! which one failed and at which address.
//!
//! A name may stand for several addresses of which some answer nothing. They are tried as RFC 8305 ("happy eyeballs") says: in
//! turns of both families, each 250 ms after the one before it or as soon as that failed; the first that connects is taken.
//!
//! The system's resolver may block for as long as it likes. It runs on a thread of its own, one at most, which nothing waits
//! for at shutdown.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::metered::{Metered, Moved};
use crate::Config;

/// Shares of the connect timeout: name, TCP, TLS; what they leave is for CONNACK.
const STAGES: u32 = 3;
/// Time between two tries, RFC 8305's recommended value.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried at most.
const MAX_ADDRESSES: usize = 8;
/// A connection on which nothing moves is probed after this, three times in half a minute. MQTT's pings find most dead lines
/// first; this finds those that die while we wait for an ack.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// So many handshakes in a row that stand although TCP connected: large packets are lost on the way, and nothing says so. The usual
/// cause is a path MTU below 1,500 behind a firewall that drops ICMP.
const SILENT_HANDSHAKES: u32 = 2;
/// TCP segments that pass on such a path.
const SMALL_SEGMENT: u32 = 1200;

/// A connection, with TLS or without.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// What turns a name into addresses; it may block.
type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The TLS files cannot be used, and why.
    Files(String),
    /// The resolver has failed.
    Resolve(io::Error),
    /// The resolver has not answered within this time.
    ResolveTimeout(Duration),
    /// No address could be connected to, and why. `TimedOut` stands for each that has not answered within the time.
    Tcp(Vec<(SocketAddr, io::Error)>, Duration),
    /// The TLS handshake has failed.
    Tls(SocketAddr, io::Error),
    /// The TLS handshake took longer than this; true if large packets may be lost on the way.
    TlsTimeout(SocketAddr, Duration, bool),
}

/// Connects a lane, again and again.
pub(crate) struct Connector {
    lookup: Arc<Lookup>,
    /// A lookup that has not answered yet: a resolver that hangs keeps one thread, however often we try.
    running: Option<oneshot::Receiver<io::Result<Vec<SocketAddr>>>>,
    /// A read of the files that has not ended yet.
    loading: Option<JoinHandle<Result<Arc<ClientConfig>, String>>>,
    /// Handshakes in a row that stood.
    silent_handshakes: u32,
    /// The path takes small packets only, as far as is known.
    is_narrow: bool,
    /// Of the newest connection.
    moved: Moved,
}

impl Connector {
    /// Asks the system's resolver.
    pub(crate) fn new() -> Self {
        Self::with_lookup(Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())))
    }

    pub(crate) fn with_lookup(lookup: Arc<Lookup>) -> Self {
        Self {
            lookup,
            running: None,
            loading: None,
            silent_handshakes: 0,
            is_narrow: false,
            moved: Moved::default(),
        }
    }

    /// A connection to `config.host`, over TLS if it is configured. Cancel safe.
    pub(crate) async fn connect(&mut self, config: &Config) -> Result<Box<dyn Stream>, ConnectError> {
        self.moved = Moved::default();
        let stage = config.connect_timeout / STAGES;
        let tls = self.files(config, stage).await.map_err(ConnectError::Files)?;
        let addresses = match timeout(stage, self.resolve(&config.host, config.port)).await {
            Ok(resolved) => resolved.map_err(ConnectError::Resolve)?,
            Err(_) => return Err(ConnectError::ResolveTimeout(stage)),
        };
        let (tcp, address) = race(in_turns(addresses), self.is_narrow, Instant::now() + stage)
            .await
            .map_err(|failed| ConnectError::Tcp(failed, stage))?;
        let tcp = Metered {
            tcp,
            moved: self.moved.clone(),
        };
        let Some(tls) = tls else { return Ok(Box::new(tcp)) };
        let Ok(secured) = timeout(stage, secure(tcp, tls, config)).await else {
            let is_narrow = self.stood();
            return Err(ConnectError::TlsTimeout(address, stage, is_narrow));
        };
        self.silent_handshakes = 0;
        secured.map_err(|error| ConnectError::Tls(address, error))
    }

    /// Bytes of the newest connection so far, in both directions, TLS included.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved.bytes()
    }

    /// A handshake stood: after two the next tries are made with small segments, and after two of those with large ones again.
    fn stood(&mut self) -> bool {
        self.silent_handshakes += 1;
        let is_suspect = self.silent_handshakes >= SILENT_HANDSHAKES;
        if self.silent_handshakes.is_multiple_of(SILENT_HANDSHAKES) {
            self.is_narrow = !self.is_narrow;
        }
        is_suspect
    }

    /// The TLS settings as the files say now; `None` is plain TCP. A disk that hangs keeps a thread of the blocking pool, and one at most.
    async fn files(&mut self, config: &Config, within: Duration) -> Result<Option<Arc<ClientConfig>>, String> {
        let Some(source) = config.tls.clone() else { return Ok(None) };
        let loading = self.loading.take().filter(|loading| !loading.is_finished());
        let loading = self
            .loading
            .insert(loading.unwrap_or_else(|| tokio::task::spawn_blocking(move || source.load())));
        let loaded = timeout(within, loading).await;
        let Ok(loaded) = loaded else {
            return Err(format!("the disk has not given them within {} s", within.as_secs_f32()));
        };
        self.loading = None;
        loaded.map_err(|error| format!("{error}; please report it"))?.map(Some)
    }

    async fn resolve(&mut self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // An answer that came when nothing waited for it any more is of unknown age.
        let is_running = |running: &mut oneshot::Receiver<_>| matches!(running.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let running = match self.running.take_if(is_running) {
            Some(running) => running,
            None => self.start_lookup(host, port)?,
        };
        let answer = self.running.insert(running).await;
        self.running = None;
        match answer {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(io::Error::other("the name has no address")),
            Ok(answer) => answer,
            Err(_) => Err(io::Error::other("the resolver's thread has ended without an answer")),
        }
    }

    fn start_lookup(&self, host: &str, port: u16) -> io::Result<oneshot::Receiver<io::Result<Vec<SocketAddr>>>> {
        let (answer, running) = oneshot::channel();
        let (lookup, host) = (Arc::clone(&self.lookup), host.to_owned());
        std::thread::Builder::new().name("cloud-resolver".to_owned()).spawn(move || {
            // Nothing may wait for it any more.
            drop(answer.send(lookup(&host, port)));
        })?;
        Ok(running)
    }
}

/// Both families in turns, beginning with that of the resolver's first address.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    while turns.len() < MAX_ADDRESSES {
        let before = turns.len();
        turns.extend(first.next().into_iter().chain(second.next()));
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(MAX_ADDRESSES);
    turns
}

/// The first address that connects. `Err` says of each what happened; those that were still silent at the deadline are `TimedOut`.
async fn race(
    addresses: Vec<SocketAddr>,
    is_narrow: bool,
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), Vec<(SocketAddr, io::Error)>> {
    let mut waiting = addresses.clone().into_iter();
    let mut tries = JoinSet::new();
    let mut failed = Vec::new();
    let mut next_at = Instant::now();
    while waiting.len() > 0 || !tries.is_empty() {
        tokio::select! {
            Some(done) = tries.join_next(), if !tries.is_empty() => match done {
                Ok((address, Ok(stream))) => return Ok((stream, address)),
                Ok((address, Err(error))) => {
                    failed.push((address, error));
                    next_at = Instant::now();
                }
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {
                next_at = Instant::now() + STAGGER;
                if let Some(address) = waiting.next() {
                    tries.spawn(async move { (address, dial(address, is_narrow).await) });
                }
            }
            () = sleep_until(deadline) => break,
        }
    }
    let silent = addresses
        .into_iter()
        .filter(|address| failed.iter().all(|(known, _)| known != address));
    let silent: Vec<_> = silent.map(|address| (address, io::ErrorKind::TimedOut.into())).collect();
    failed.extend(silent);
    Err(failed)
}

async fn dial(address: SocketAddr, is_narrow: bool) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()
    } else {
        TcpSocket::new_v4()
    }?;
    socket.set_nodelay(true)?;
    // Without them the connection works as well; MQTT has its own pings.
    if let Err(error) = keep_alive(&socket) {
        tracing::debug!(%error, "TCP keep-alive cannot be set");
    }
    if is_narrow {
        socket2::SockRef::from(&socket).set_tcp_mss(SMALL_SEGMENT)?;
    }
    socket.connect(address).await
}

fn keep_alive(socket: &TcpSocket) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    Ok(())
}

/// The TLS handshake. The only place where the ALPN name is set.
async fn secure(tcp: Metered, mut tls: Arc<ClientConfig>, config: &Config) -> io::Result<Box<dyn Stream>> {
    if let Some(alpn) = &config.alpn {
        Arc::make_mut(&mut tls).alpn_protocols = vec![alpn.clone().into_bytes()];
    }
    let name = ServerName::try_from(config.host.clone()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use tokio::net::TcpListener;

    use super::*;

    fn config(connect_timeout: Duration) -> Config {
        Config {
            connect_timeout,
            ..Config::mqtt("plant-7", "cloud.example")
        }
    }

    fn connector(addresses: &[SocketAddr]) -> Connector {
        let addresses = addresses.to_vec();
        Connector::with_lookup(Arc::new(move |_, _| Ok(addresses.clone())))
    }

    /// An address that answers nothing: a listener that accepts nothing, with a full backlog. Lasts as long as what comes with it.
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        (address, listener, queued)
    }

    #[tokio::test]
    async fn e6_an_address_that_answers_nothing_does_not_keep_us_from_the_next() {
        let (hole, _listener, _queued) = black_hole().await;
        let live = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let before = Instant::now();
        let connected = connector(&[hole, live.local_addr().unwrap()])
            .connect(&config(Duration::from_secs(60)))
            .await;
        assert!(connected.is_ok(), "{:?}", connected.err());
        assert!(before.elapsed() >= STAGGER, "the first has its head start");
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_refusal_is_followed_at_once_by_the_next_address() {
        let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let live = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let (_stream, address) = race(vec![gone, live.local_addr().unwrap()], false, deadline).await.unwrap();
        assert_eq!(address, live.local_addr().unwrap());
    }

    #[tokio::test]
    async fn e6_each_address_and_its_fault_are_told() {
        let (hole, _listener, _queued) = black_hole().await;
        let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let failed = connector(&[hole, gone]).connect(&config(Duration::from_millis(1500))).await;
        let Err(ConnectError::Tcp(mut failed, _)) = failed else {
            panic!("it connected")
        };
        failed.sort_by_key(|(address, _)| *address != hole);
        let kinds: Vec<_> = failed.iter().map(|(address, error)| (*address, error.kind())).collect();
        assert_eq!(kinds, [(hole, io::ErrorKind::TimedOut), (gone, io::ErrorKind::ConnectionRefused)]);
    }

    #[tokio::test]
    async fn when_all_have_failed_nothing_is_waited_for() {
        let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let before = Instant::now();
        let failed = race(vec![gone, gone], false, before + Duration::from_secs(600)).await;
        assert_eq!(failed.unwrap_err()[0].1.kind(), io::ErrorKind::ConnectionRefused);
        assert!(before.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn families_take_turns() {
        let v4 = |last| SocketAddr::from(([192, 0, 2, last], 1));
        let v6 = |last| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 1));
        assert_eq!(in_turns(vec![v6(1), v6(2), v6(3), v4(1)]), [v6(1), v4(1), v6(2), v6(3)]);
        assert_eq!(in_turns(vec![v4(1), v6(1)]), [v4(1), v6(1)]);
        assert_eq!(in_turns((0..100).map(v4).collect()).len(), MAX_ADDRESSES);
        assert_eq!(in_turns(Vec::new()), []);
    }

    #[test]
    fn a_resolver_that_hangs_keeps_one_thread_and_delays_no_stop() {
        let asked = Arc::new(AtomicU32::new(0));
        let (sender, receiver) = mpsc::channel::<()>();
        let (count, receiver) = (Arc::clone(&asked), Mutex::new(receiver));
        let mut connector = Connector::with_lookup(Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            receiver.lock().unwrap().recv().unwrap_or_default();
            Ok(Vec::new())
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let config = config(Duration::from_millis(300));
        for _ in 0..3 {
            let failed = runtime.block_on(connector.connect(&config));
            assert!(matches!(failed, Err(ConnectError::ResolveTimeout(_))), "{:?}", failed.err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let before = std::time::Instant::now();
        drop(runtime);
        assert!(before.elapsed() < Duration::from_secs(5), "the runtime waited for the resolver");
        drop(sender);
    }

    #[tokio::test]
    async fn a_late_answer_of_the_resolver_is_not_used_again() {
        let (sender, receiver) = mpsc::channel();
        let receiver = Mutex::new(receiver);
        let mut connector = Connector::with_lookup(Arc::new(move |_, _| receiver.lock().unwrap().recv().map_err(io::Error::other)));
        let short = timeout(Duration::from_millis(50), connector.resolve("cloud.example", 1)).await;
        assert!(short.is_err());
        let (old, new) = (SocketAddr::from(([192, 0, 2, 1], 1)), SocketAddr::from(([192, 0, 2, 2], 1)));
        sender.send(vec![old]).unwrap();
        let arrived = async {
            while connector.running.as_ref().is_some_and(oneshot::Receiver::is_empty) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), arrived).await.unwrap();
        sender.send(vec![new]).unwrap();
        assert_eq!(connector.resolve("cloud.example", 1).await.unwrap(), [new]);
    }

    #[tokio::test]
    async fn a_peer_that_closes_during_the_handshake_is_named_with_its_address() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let config = Config {
            tls: Some(Arc::new(tls).into()),
            ..config(Duration::from_secs(60))
        };
        let mut connector = connector(&[address]);
        let (failed, _) = tokio::join!(connector.connect(&config), async { drop(listener.accept().await.unwrap()) });
        assert!(
            matches!(&failed, Err(ConnectError::Tls(known, _)) if *known == address),
            "{:?}",
            failed.err()
        );
    }

    #[tokio::test]
    async fn k25_after_two_handshakes_that_stood_the_next_try_is_made_with_small_packets_and_says_why() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let config = Config {
            tls: Some(Arc::new(tls).into()),
            ..config(Duration::from_millis(600))
        };
        let mut connector = connector(&[address]);
        let mut seen = Vec::new();
        for _ in 0..5 {
            let (failed, accepted) = tokio::join!(connector.connect(&config), listener.accept());
            let Err(ConnectError::TlsTimeout(_, _, is_suspect)) = failed else {
                panic!("{:?}", failed.err());
            };
            assert!(connector.moved_bytes() > 100, "the hello is counted");
            let (accepted, _) = accepted.unwrap();
            seen.push((is_suspect, socket2::SockRef::from(&accepted).tcp_mss().unwrap() <= SMALL_SEGMENT));
        }
        assert_eq!(seen, [(false, false), (true, false), (true, true), (true, true), (true, false)]);
    }

    #[tokio::test]
    async fn e13_the_files_are_asked_for_at_each_connect_and_a_fault_of_theirs_is_told_before_anything_is_dialled() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let mut connector = Connector::with_lookup(Arc::new(|_, _| panic!("nothing is resolved")));
        let config = Config {
            tls: Some(crate::TlsSource::new(move || {
                Err(format!("try {}", count.fetch_add(1, Ordering::Relaxed)))
            })),
            ..config(Duration::from_secs(60))
        };
        for number in 0..3 {
            match connector.connect(&config).await {
                Err(ConnectError::Files(why)) => assert_eq!(why, format!("try {number}")),
                _ => panic!("the fault of the files was not told"),
            }
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_under_the_files_keeps_one_thread_however_often_we_try() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let mut connector = connector(&[]);
        let config = Config {
            tls: Some(crate::TlsSource::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
                gate.lock().unwrap().recv().ok();
                Err("late".to_owned())
            })),
            ..config(Duration::from_millis(60))
        };
        for _ in 0..4 {
            assert!(matches!(connector.connect(&config).await, Err(ConnectError::Files(why)) if why.contains("has not given them")));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        drop(release);
    }
}
