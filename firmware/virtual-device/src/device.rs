//! One device, over all its boots.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_device_core::{Counters, Exit, Lost, Parts, QueueCounters, Random, Settings, State, Watchdog, run};
use forebay_device_tls::{Client, GetRandomFailed, Identity, SecureRandom, provider};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock::HostClock;
use crate::flash::Flash;
use crate::network::{TcpNetwork, Trouble};
use crate::sensors::SimulatedSensors;

/// Pages of the spill and of the notes, as on the board.
const QUEUE_PAGES: u32 = 24;
const NOTE_PAGES: u32 = 4;

/// Files that make a device this device.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The CA that signs gateways.
    pub ca: PathBuf,
    /// The device's certificate with what leads to its CA.
    pub certificate: PathBuf,
    /// Its P-256 key.
    pub key: PathBuf,
}

/// How a virtual device behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its identity: the common name of its certificate.
    pub name: String,
    /// The gateway as `host:port`.
    pub gateway: String,
    /// The name in the gateway's certificate.
    pub server_name: String,
    /// Its files.
    pub credentials: Credentials,
    /// Time between two samples.
    pub sample_every: Duration,
    /// Time between two health reports.
    pub health_every: Duration,
    /// Folder for its flash; left out, it forgets what waits when it ends.
    pub flash: Option<PathBuf>,
}

/// Why a virtual device cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NotUsable {
    /// A file cannot be read, or holds something else.
    #[error("{file}: {why}")]
    File {
        /// Which one.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The files do not make a device.
    #[error(transparent)]
    Identity(#[from] forebay_device_tls::NotUsable),
}

/// What a device has done so far; shared with whoever watches it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// What its core counts in this boot.
    pub counters: Counters,
    /// What its queue counts in this boot.
    pub queue: QueueCounters,
    /// Samples that wait.
    pub waiting: usize,
    /// Whether the gateway has it.
    pub is_connected: bool,
    /// Why the last connection, or try, ended.
    pub last_lost: Option<Lost>,
    /// Whether a gateway told the time.
    pub is_time_told: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Boots, the first included.
    pub boots: u32,
    /// Samples measured, over all boots of this run.
    pub measured: u64,
    /// Samples acked, over all boots of this run.
    pub acked: u64,
    /// Samples that still wait.
    pub waiting: usize,
    /// Samples dropped because the flash was full.
    pub evicted: u64,
    /// Publishes that the gateway refused; they were sent again.
    pub refused: u64,
}

type Shared = Rc<RefCell<State<Flash, Flash>>>;

/// A device that is ready to run.
pub struct VirtualDevice {
    options: Options,
    client: Client,
    current: Rc<RefCell<Option<Shared>>>,
    is_stopping: Rc<Cell<bool>>,
    trouble: Trouble,
}

/// Looks at a device while it runs, and stops it.
#[derive(Clone)]
pub struct Handle {
    current: Rc<RefCell<Option<Shared>>>,
    is_stopping: Rc<Cell<bool>>,
    trouble: Trouble,
}

impl Handle {
    /// What it has done in this boot.
    pub fn status(&self) -> Status {
        self.current.borrow().as_ref().map_or_else(Status::default, |state| {
            let state = state.borrow();
            Status {
                counters: state.counters(),
                queue: state.queue_counters(),
                waiting: state.waiting(),
                is_connected: state.is_connected(),
                last_lost: state.last_lost(),
                is_time_told: state.is_time_told(),
            }
        })
    }

    /// The waits from publish to ack since the last call; see [`State::take_ack_waits`].
    pub fn take_ack_waits(&self, mut each: impl FnMut(Duration)) {
        if let Some(state) = self.current.borrow().as_ref() {
            state
                .borrow_mut()
                .take_ack_waits()
                .for_each(|wait| each(Duration::from_millis(wait.into())));
        }
    }

    /// Why it is not connected, in words; `None` while it is, or before its first try has ended.
    pub fn trouble(&self) -> Option<String> {
        let status = self.status();
        let lost = status.last_lost.filter(|_| !status.is_connected)?;
        Some(self.trouble.noted().unwrap_or_else(|| lost_text(lost).to_owned()))
    }

    /// Ends measuring; [`VirtualDevice::run`] returns when all is sent and acked.
    pub fn stop(&self) {
        self.is_stopping.set(true);
        if let Some(state) = self.current.borrow().as_ref() {
            state.borrow_mut().stop();
        }
    }
}

impl VirtualDevice {
    /// Reads the files and makes the device.
    ///
    /// # Errors
    /// A file is missing or wrong; the text names it.
    pub fn new(options: Options) -> Result<Self, NotUsable> {
        let files = &options.credentials;
        let wrong = |file: &PathBuf| {
            let file = file.clone();
            move |error: pem::Error| NotUsable::File {
                file,
                why: pem_fault(&error),
            }
        };
        let identity = Identity {
            ca: CertificateDer::from_pem_file(&files.ca).map_err(wrong(&files.ca))?,
            chain: CertificateDer::pem_file_iter(&files.certificate)
                .and_then(Iterator::collect)
                .map_err(wrong(&files.certificate))?,
            key: PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(&files.key))?,
            gateway: options.server_name.clone(),
        };
        let trouble = Trouble::default();
        let mut client = Client::new(host_provider(), identity)?;
        client.tell({
            let (trouble, name) = (trouble.clone(), options.server_name.clone());
            move |why| trouble.note(Some(tls_trouble(&name, why)))
        });
        Ok(Self {
            client,
            options,
            current: Rc::default(),
            is_stopping: Rc::default(),
            trouble,
        })
    }

    /// To look at it and to stop it.
    pub fn handle(&self) -> Handle {
        Handle {
            current: Rc::clone(&self.current),
            is_stopping: Rc::clone(&self.is_stopping),
            trouble: self.trouble.clone(),
        }
    }

    /// Runs until it is stopped. A device that asks for a reboot is booted again.
    ///
    /// # Errors
    /// Its flash files cannot be used.
    pub async fn run(mut self) -> Result<Outcome, NotUsable> {
        let mut outcome = Outcome::default();
        let mut reset_cause = "power-on";
        loop {
            outcome.boots += 1;
            let (queue, notes) = (self.flash("queue", QUEUE_PAGES)?, self.flash("notes", NOTE_PAGES)?);
            let clock = HostClock::start();
            let settings = Settings {
                device: &self.options.name,
                sample_every: self.options.sample_every,
                health_every: self.options.health_every,
                build_time: Duration::from_secs(BUILT),
                version: env!("CARGO_PKG_VERSION"),
                slot: "host",
                reset_cause,
            };
            let state = Rc::new(RefCell::new(State::new(
                queue,
                notes,
                &settings,
                forebay_device_core::Clock::now(&clock),
            )));
            if self.is_stopping.get() {
                state.borrow_mut().stop();
            }
            self.current.replace(Some(Rc::clone(&state)));
            let parts = Parts {
                network: &mut TcpNetwork::telling(self.options.gateway.clone(), clock, self.trouble.clone()),
                secure: &mut self.client,
                clock: &clock,
                random: &mut Jitter,
                probe: &mut SimulatedSensors::new(clock, Jitter.draw()),
                watchdog: &mut NoWatchdog,
            };
            let exit = run(parts, &state, &settings).await;
            self.current.take();
            let state = state.borrow();
            outcome.measured += u64::from(state.counters().measured);
            outcome.acked += u64::from(state.counters().acked);
            outcome.evicted += u64::from(state.queue_counters().evicted);
            outcome.refused += u64::from(state.counters().refused);
            outcome.waiting = state.waiting();
            match exit {
                Exit::Stopped => return Ok(outcome),
                Exit::Reboot(_) => reset_cause = "software",
            }
        }
    }

    fn flash(&self, part: &str, pages: u32) -> Result<Flash, NotUsable> {
        let Some(folder) = &self.options.flash else {
            return Ok(Flash::in_memory(pages));
        };
        let file = folder.join(format!("{}.{part}.flash", self.options.name));
        Flash::in_file(&file, pages).map_err(|error| NotUsable::File {
            file,
            why: error.to_string(),
        })
    }
}

/// No time before it is believed: the first day of the year in which this was written.
const BUILT: u64 = 1_767_225_600;

/// The operating system's randomness.
#[derive(Debug)]
struct HostRandom;

impl SecureRandom for HostRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buffer).map_err(|_| GetRandomFailed)
    }
}

/// What is wrong with a PEM file, without a byte of it: the library's text shows the line that it stumbled over, and that may
/// be the key.
fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds no PEM block of the wanted kind".to_owned(),
        pem::Error::Base64Decode(_) => "its Base64 is damaged".to_owned(),
        _ => "it is not well-formed PEM; is it cut off, or are its line breaks missing?".to_owned(),
    }
}

/// What a failed handshake means for the person who started the device.
fn tls_trouble(name: &str, why: &str) -> String {
    let advice = if why.contains("not valid for name") || why.contains("NotValidForName") {
        format!(": the gateway's certificate is not for {name}; give a name that is in it with --server-name, or make one for {name}")
    } else if why.contains("UnknownIssuer") {
        ": the gateway's certificate is not from the CA in devices-ca.pem".to_owned()
    } else if why.contains("alert") {
        ": the gateway does not take this device's certificate; its log says why".to_owned()
    } else {
        String::new()
    };
    format!("TLS failed ({why}){advice}")
}

/// What the core's word for an end means.
const fn lost_text(lost: Lost) -> &'static str {
    match lost {
        Lost::Closed => "the gateway closed the connection; its log says why",
        Lost::TimedOut => "the gateway did not answer in time",
        Lost::NotJoined | Lost::Unreachable => "the gateway is not reached",
        Lost::Module => "the network module does not answer",
        Lost::NotTrusted => "TLS failed",
        Lost::Protocol => "what answers there does not speak MQTT as it should; is it the gateway's TLS listener?",
        Lost::Refused => "the gateway refuses the device; its log says why",
    }
}

/// One provider for all devices of the process.
fn host_provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(provider(&HostRandom))).clone()
}

struct Jitter;

impl Random for Jitter {
    fn draw(&mut self) -> u32 {
        #[allow(clippy::disallowed_methods, reason = "any number will do")]
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        // Without the operating system's randomness the time's last digits still tell devices apart.
        getrandom::u32().unwrap_or_else(|_| time())
    }
}

/// A process has an operating system to look after it.
struct NoWatchdog;

impl Watchdog for NoWatchdog {
    fn feed(&mut self) {}
}
