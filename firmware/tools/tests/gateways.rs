//! Whom the signed application in the emulator must not talk to: the gateways that `crates/tls/tests` has the device's TLS refuse on the host.
//!
//! `firmware/run images` builds what this starts from; QEMU 10 must be installed.
#![allow(clippy::unwrap_used, missing_docs, reason = "only tests use it")]

#[path = "../../crates/tls/tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_firmware_tools::emulator::{Emulator, Ended, built};
use forebay_firmware_tools::flash_file::FlashFile;
use forebay_firmware_tools::keys::read_secret;
use forebay_firmware_tools::release::{Release, make};
use forebay_image::{Slot, Version};
use forebay_virtual_device::module::{Control, listen};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::ServerConfig;
use support::relay::{CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY, ENCRYPTED_EXTENSIONS, Leak, relay};
use support::{Authority, Credentials, NAME, leaf, server, server_leaf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, block_in_place};
use tokio_rustls::TlsAcceptor;

/// Emulated elliptic curves on a busy machine.
const SOON: Duration = Duration::from_secs(180);
/// Tries that may end otherwise, such as by a time-out.
const TRIES: u32 = 10;

/// A gateway that the device meets.
struct Gateway {
    what: &'static str,
    config: ServerConfig,
    left_out: Option<&'static [u8]>,
}

/// The device's emulator, and the port that it dials.
struct Device {
    emulator: Emulator,
    port: Arc<TcpListener>,
    ca: Authority,
    leaf: Credentials,
}

impl Device {
    async fn new() -> Self {
        let ca = Authority::new("plant");
        let leaf = ca.sign(device_leaf());
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = forebay_identity::write(&forebay_identity::Content {
            name: "board-1",
            gateway: &port.local_addr().unwrap().to_string(),
            server_name: NAME,
            ca: &ca.certificate,
            chain: &[leaf.chain[0].to_vec()],
            key: &leaf.key.serialize_der(),
            wifi: Some(("plant", "a pass phrase")),
        });
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
        let mut flash = FlashFile::new(&built(&images, "boot-qemu.bin").unwrap()).unwrap();
        flash.place(&image(&images), Slot::A).unwrap();
        flash.provision(&identity.unwrap()).unwrap();
        let mut emulator = Emulator::new(&flash).unwrap();
        let line = TcpListener::bind("127.0.0.1:0").await.unwrap();
        emulator.connect_wifi(line.local_addr().unwrap().port());
        tokio::spawn(listen(line, Control::default()));
        let port = Arc::new(port);
        Self { emulator, port, ca, leaf }
    }

    /// From power-on until the device has given this gateway up, or the handshake is done. Why it gave up, in its word.
    async fn meets(&mut self, gateway: &Gateway) -> Option<String> {
        self.emulator.cut_power();
        let seen = block_in_place(|| self.emulator.run_until("app::application: device board-1", SOON)).unwrap();
        assert!(matches!(seen, Ended::Seen(_)), "{seen:?}");
        // Whoever dials meets this gateway: a dial that the power cut ended may stand in the queue before the one that counts.
        let is_taken = Arc::new(AtomicBool::new(false));
        let mut connections = JoinSet::new();
        let (port, config, taken) = (Arc::clone(&self.port), gateway.config.clone(), Arc::clone(&is_taken));
        let left_out = gateway.left_out;
        connections.spawn(async move {
            let mut shaking = JoinSet::new();
            loop {
                let (line, _) = port.accept().await.unwrap();
                shaking.spawn(shake(line, config.clone(), left_out, Arc::clone(&taken)));
            }
        });
        let said = block_in_place(|| self.emulator.run_until("not connected: ", SOON)).unwrap();
        let Ended::Seen(said) = said else {
            panic!("{}: {said:?} after\n{}", gateway.what, self.emulator.lines.join("\n"))
        };
        // A handshake that is done ends as well: nobody answers CONNECT.
        if is_taken.load(Ordering::SeqCst) {
            return None;
        }
        let (_, why) = said.split_once("not connected: ").unwrap();
        Some(why.split(',').next().unwrap().to_owned())
    }
}

/// Shakes hands with whoever is at the other end, and closes; notes whether it went well.
async fn shake(mut line: TcpStream, mut config: ServerConfig, left_out: Option<&'static [u8]>, is_taken: Arc<AtomicBool>) {
    let shaken = if let Some(left_out) = left_out {
        let leak = Arc::<Leak>::default();
        config.key_log = leak.clone();
        let (mut outside, device) = tokio::io::duplex(1 << 16);
        let (inside, server) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut line, &mut outside).await });
        tokio::spawn(relay(device, inside, leak, left_out, 16_384));
        TlsAcceptor::from(Arc::new(config)).accept(server).await.is_ok()
    } else {
        TlsAcceptor::from(Arc::new(config)).accept(line).await.is_ok()
    };
    if shaken {
        is_taken.store(true, Ordering::SeqCst);
    }
}

fn image(images: &Path) -> Vec<u8> {
    let release = Release {
        hardware: "qemu-l475e-iot01",
        version: Version {
            major: 1,
            minor: 0,
            patch: 0,
        },
        security_counter: 1,
        key_id: 1,
        key_floor: 0,
    };
    let secret = read_secret(&PathBuf::from(images).join("keys/release-1.key")).unwrap();
    make(&built(images, "app-qemu-a.bin").unwrap(), Slot::A, &release, &secret).unwrap()
}

fn device_leaf() -> CertificateParams {
    let mut params = leaf(&[], ExtendedKeyUsagePurpose::ClientAuth);
    params.distinguished_name.push(DnType::CommonName, "board-1");
    params
}

/// Valid whenever the image was built: the device believes no time before that.
fn lasting(mut params: CertificateParams) -> CertificateParams {
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn named(sans: &[&str]) -> CertificateParams {
    lasting(leaf(sans, ExtendedKeyUsagePurpose::ServerAuth))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_that_is_not_the_right_one_is_refused() {
    let mut device = Device::new().await;
    let ca = &device.ca;
    let good = ca.sign(lasting(server_leaf()));
    let mut expired = server_leaf();
    expired.not_after = date_time_ymd(2026, 5, 1);
    let mut common_name = named(&["gateway.other"]);
    common_name.distinguished_name.push(DnType::CommonName, NAME);
    let mut authority = lasting(server_leaf());
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let by_certificate = [
        ("another CA", Authority::new("elsewhere").sign(lasting(server_leaf()))),
        ("a CA of the same name", Authority::new("plant").sign(lasting(server_leaf()))),
        ("a wrong name", ca.sign(named(&["gateway.other"]))),
        ("the right common name over a wrong SAN", ca.sign(common_name)),
        ("an expired certificate", ca.sign(expired)),
        (
            "a device's leaf used as a CA",
            ca.sign_with(lasting(server_leaf()), device_leaf(), &device.leaf),
        ),
        (
            "another device's certificate",
            ca.sign(lasting(leaf(&[NAME], ExtendedKeyUsagePurpose::ClientAuth))),
        ),
        ("a CA's own certificate", ca.sign(authority)),
    ];
    let by_message: [(&str, &'static [u8]); 4] = [
        ("no certificate", &[CERTIFICATE, CERTIFICATE_VERIFY]),
        ("no proof of the key", &[CERTIFICATE_VERIFY]),
        ("no encrypted extensions", &[ENCRYPTED_EXTENSIONS]),
        (
            "nothing but a Finished",
            &[ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST, CERTIFICATE, CERTIFICATE_VERIFY],
        ),
    ];
    let mut gateways: Vec<Gateway> = by_certificate
        .iter()
        .map(|(what, credentials)| Gateway {
            what,
            config: server(credentials, ca),
            left_out: None,
        })
        .collect();
    gateways.extend(by_message.map(|(what, left_out)| Gateway {
        what,
        config: server(&good, ca),
        left_out: Some(left_out),
    }));
    let right = [None, Some([].as_slice())].map(|left_out| Gateway {
        what: "the right one",
        config: server(&good, ca),
        left_out,
    });

    for gateway in &right {
        let mut tries = 0..TRIES;
        while device.meets(gateway).await.is_some() {
            assert!(tries.next().is_some(), "the device never met {}", gateway.what);
        }
    }
    for gateway in &gateways {
        let mut tries = 0..TRIES;
        loop {
            let why = device.meets(gateway).await;
            println!("{}: {why:?}", gateway.what);
            match why.as_deref() {
                Some("tls") => break,
                None => panic!("{} was taken", gateway.what),
                Some(_) => assert!(tries.next().is_some(), "{} was never judged", gateway.what),
            }
        }
    }
}
