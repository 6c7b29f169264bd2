//! The signed firmware in the emulated board, through a stand-in for its Wi-Fi module, against the real gateway: what it measures
//! arrives in the cloud, and whoever must be refused is. `firmware/run images` builds what this starts from.
//!
//! `FOREBAY_RESTARTS=20 cargo test --test emulator` restarts the gateway more often.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_firmware_tools::emulator::{Emulator, Ended, built};
use forebay_firmware_tools::flash_file::FlashFile;
use forebay_firmware_tools::keys::read_secret;
use forebay_firmware_tools::provision::{Device, identity};
use forebay_firmware_tools::release::{Release, make};
use forebay_image::{Slot, Version};
use forebay_virtual_device::module::{Control, listen};
use support::gateway::Gateway;
use support::plant::Plant;
use support::within;
use tokio::net::TcpListener;

/// The emulator's serial line carries about a kilobyte a second, and machines are shared.
const SOON: Duration = Duration::from_secs(120);
const DEVICE: &str = "board-1";

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/target/images")
}

fn config(plant: &Plant, cloud: SocketAddr) -> String {
    format!(
        "gateway: {{id: plant, max_disk: 256MiB, keep_free: 0B}}\n\
         listeners: [{{bind: \"127.0.0.1:0\", names: [localhost], tls: {}}}]\n\
         streams: [{{name: telemetry, max_bytes: 128MiB, when_full: refuse}}]\n\
         routes:\n  - {{from: \"devices/+/telemetry/#\", to: \"dt/{{device}}/{{#}}\", stream: telemetry}}\n  \
         - {{from: \"devices/+/health\", to: \"dt/{{device}}/health\", stream: telemetry}}\n\
         cloud: {{profile: mqtt, endpoint: 127.0.0.1, port: {}}}\n\
         admin: {{bind: \"127.0.0.1:0\"}}\n",
        plant.listener_tls(),
        cloud.port()
    )
}

/// A board fresh from the factory, provisioned for this gateway, with a module at its line.
struct Board {
    emulator: Option<Emulator>,
    module: Control,
}

impl Board {
    /// `device` has made its certificate, `ca` signs the gateway that it believes.
    async fn new(device: &Plant, ca: &Plant, server_name: &str, gateway: SocketAddr) -> Self {
        let secret = read_secret(&images().join("keys/release-1.key")).unwrap();
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
        let image = make(&built(&images(), "app-qemu-a.bin").unwrap(), Slot::A, &release, &secret).unwrap();
        let mut flash = FlashFile::new(&built(&images(), "boot-qemu.bin").unwrap()).unwrap();
        flash.place(&image, Slot::A).unwrap();
        let file = |plant: &Plant, name: &str| PathBuf::from(plant.path(name));
        let identity = identity(&Device {
            name: DEVICE,
            gateway: &format!("localhost:{}", gateway.port()),
            server_name: Some(server_name),
            ca: &file(ca, "devices-ca.pem"),
            certificate: &file(device, &format!("{DEVICE}.pem")),
            key: &file(device, &format!("{DEVICE}.key")),
            wifi: Some(("plant", "a pass phrase")),
        });
        flash.provision(&identity.unwrap()).unwrap();
        let mut emulator = Emulator::new(&flash).unwrap();
        let line = TcpListener::bind("127.0.0.1:0").await.unwrap();
        emulator.connect_wifi(line.local_addr().unwrap().port());
        let module = Control::default();
        tokio::spawn(listen(line, module.clone()));
        Self {
            emulator: Some(emulator),
            module,
        }
    }

    /// Powers on if the power is off, and waits for a line.
    async fn sees(&mut self, text: &'static str) {
        let mut emulator = self.emulator.take().unwrap();
        let (emulator, ended) = tokio::task::spawn_blocking(move || {
            let ended = emulator.run_until(text, SOON);
            (emulator, ended)
        })
        .await
        .unwrap();
        let said = emulator.lines.join("\n");
        self.emulator = Some(emulator);
        let ended = ended.unwrap_or_else(|error| panic!("{error}\n{said}"));
        assert!(matches!(ended, Ended::Seen(_)), "`{text}` did not come:\n{said}");
    }

    fn starts(&self) -> u32 {
        self.emulator.as_ref().unwrap().starts
    }
}

/// Waits until the cloud has samples beyond the highest so far.
async fn more_arrive(ledger: &Ledger, what: &str) {
    let highest = |ledger: &Ledger| (1..).take_while(|sequence| ledger.contains_key(DEVICE, *sequence)).count();
    let before = highest(ledger);
    within(SOON, what, || async { (highest(ledger) > before + 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_app_publishes_through_the_loss_of_its_module_and_of_its_gateway() {
    let restarts: u32 = std::env::var("FOREBAY_RESTARTS").ok().map_or(3, |text| text.parse().unwrap());
    let plant = Plant::new(&[DEVICE]);
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    });
    let cloud = cloud.await.unwrap();
    let mut gateway = Gateway::new(&config(&plant, cloud.address()));
    gateway.start().await;
    let mut board = Board::new(&plant, &plant, "localhost", gateway.listeners[0]).await;
    board.sees("boot: slot A version 1.0.0 verified").await;
    board.sees("application: confirmed").await;
    let starts = board.starts();
    more_arrive(&ledger, "samples arrive in the cloud").await;

    for round in 1..=restarts {
        if round % 2 == 0 {
            assert_eq!(gateway.stop().await, 0);
        } else {
            gateway.kill().await;
        }
        gateway.start().await;
        more_arrive(&ledger, "samples arrive after a restart of the gateway").await;
    }

    let resets = board.module.seen().resets;
    board.module.set(|faults| faults.is_stuck = true);
    more_arrive(&ledger, "samples arrive after the module got stuck").await;
    assert!(board.module.seen().resets > resets, "the device has reset its module");
    board.module.set(|faults| faults.resets_itself = true);
    more_arrive(&ledger, "samples arrive after the module reset itself").await;
    board.module.set(|faults| faults.drops_connection = true);
    more_arrive(&ledger, "samples arrive after the module dropped its connection").await;

    assert_eq!(board.starts(), starts, "the device never restarted");
    let report = ledger.report();
    assert_eq!((report.gaps, report.out_of_order), (0, 0), "no sample is missing: {report:?}");
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_refuses_a_gateway_of_another_ca_or_another_name() {
    let (plant, stranger) = (Plant::new(&[DEVICE]), Plant::new(&[]));
    let cloud = Standin::start(StandinConfig::default()).await.unwrap();
    let mut gateway = Gateway::new(&config(&plant, cloud.address()));
    gateway.start().await;
    let mut board = Board::new(&plant, &stranger, "localhost", gateway.listeners[0]).await;
    board.sees("not connected: tls").await;
    let mut board = Board::new(&plant, &plant, "gateway.other", gateway.listeners[0]).await;
    board.sees("not connected: tls").await;
    assert_eq!(gateway.stop().await, 0);
}
