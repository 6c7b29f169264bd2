//! One story: a factory-fresh signed device is provisioned, publishes into the cloud, and goes on through restarts of everything and
//! through an update. `emulator.rs` has the single promises.
//!
//! Needs the images and QEMU 10: `firmware/run images`.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
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
use serde_json::Value;
use support::eventually;
use support::gateway::Gateway;
use support::plant::Plant;
use tokio::net::TcpListener;
use tokio::task::block_in_place;

const BOARD: &str = "board-1";
const CONFIRMED: &str = "app::application: confirmed";
/// Emulated elliptic curves on a busy machine.
const SOON: Duration = Duration::from_secs(180);

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

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/target/images")
}

fn image(slot: Slot, patch: u16) -> Vec<u8> {
    let name = if slot == Slot::A { "app-qemu-a.bin" } else { "app-qemu-b.bin" };
    let release = Release {
        hardware: "qemu-l475e-iot01",
        version: Version { major: 1, minor: 0, patch },
        security_counter: 1,
        key_id: 1,
        key_floor: 0,
    };
    let secret = read_secret(&images().join("keys/release-1.key")).unwrap();
    make(&built(&images(), name).unwrap(), slot, &release, &secret).unwrap()
}

/// A provisioned board, off.
fn board(plant: &Plant, gateway: SocketAddr) -> Emulator {
    let mut flash = FlashFile::new(&built(&images(), "boot-qemu.bin").unwrap()).unwrap();
    flash.place(&image(Slot::A, 0), Slot::A).unwrap();
    let identity = identity(&Device {
        name: BOARD,
        gateway: &gateway.to_string(),
        server_name: Some("localhost"),
        ca: &plant.folder().join("devices-ca.pem"),
        certificate: &plant.folder().join("board-1.pem"),
        key: &plant.folder().join("board-1.key"),
        wifi: Some(("plant", "a pass phrase")),
    });
    flash.provision(&identity.unwrap()).unwrap();
    Emulator::new(&flash).unwrap()
}

/// The stand-in for the Wi-Fi module, for as long as the test runs.
async fn module(board: &mut Emulator) -> Control {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    board.connect_wifi(listener.local_addr().unwrap().port());
    let control = Control::default();
    tokio::spawn(listen(listener, control.clone()));
    control
}

/// A line of firmware/README.md's table of budgets, in bytes.
fn budget(image: &str, what: &str) -> u32 {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/README.md")).unwrap();
    let start = format!("| `{image}` | {what} | ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

fn see(board: &mut Emulator, text: &str) {
    let ended = block_in_place(|| board.run_until(text, SOON)).unwrap();
    assert!(
        matches!(ended, Ended::Seen(_)),
        "waiting for `{text}`: {ended:?} after\n{}",
        board.lines.join("\n")
    );
}

/// The samples in the cloud, as boot and sequence.
fn samples(ledger: &Ledger) -> BTreeSet<(u64, u64)> {
    let entries = ledger.entries();
    let ours = entries
        .iter()
        .filter(|entry| entry.topic.starts_with("dt/board-1/") && !entry.topic.ends_with("/health"));
    ours.filter_map(|entry| serde_json::from_slice::<Value>(entry.payload.as_ref()?).ok())
        .map(|sample| (sample["boot"].as_u64().unwrap(), sample["seq"].as_u64().unwrap()))
        .collect()
}

async fn more_samples(ledger: &Ledger, than: usize) {
    eventually("more samples are in the cloud", || async {
        (samples(ledger).len() > than).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_device_publishes_over_restarts_of_everything() {
    let plant = Plant::new(&[BOARD]);
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    });
    let cloud = cloud.await.unwrap();
    let mut gateway = Gateway::new(&config(&plant, cloud.address()));
    gateway.start().await;
    let mut board = board(&plant, gateway.listeners[0]);
    let module = module(&mut board).await;

    // Factory-fresh: it confirms itself once a publish was acked, not before.
    see(&mut board, "boot: slot A version 1.0.0 verified");
    see(&mut board, "app::application: connected");
    see(&mut board, CONFIRMED);
    more_samples(&ledger, 2).await;
    println!("{}", board.lines.join("\n"));

    // The gateway is killed and comes back.
    let before = samples(&ledger).len();
    gateway.kill().await;
    see(&mut board, "app::application: not connected");
    gateway.start().await;
    see(&mut board, "app::application: connected");
    more_samples(&ledger, before + 2).await;

    // The module resets itself.
    let before = samples(&ledger).len();
    module.set(|faults| faults.resets_itself = true);
    see(&mut board, "app::application: not connected");
    see(&mut board, "app::application: connected");
    more_samples(&ledger, before + 2).await;

    // The power is cut.
    board.cut_power();
    see(&mut board, "version 1.0.0 in slot A, confirmed");
    see(&mut board, "app::application: connected");
    let before = samples(&ledger).len();
    more_samples(&ledger, before + 2).await;

    // An update: tried, and confirmed by its own publishes.
    board.offer(Some(&image(Slot::B, 1))).unwrap();
    see(&mut board, "boot: slot B version 1.0.1 on trial");
    board.offer(None).unwrap();
    see(&mut board, CONFIRMED);
    see(&mut board, ", heap ");
    let stack = board.stack_used().unwrap();
    let said = board.lines.last().unwrap();
    let heap: u32 = said
        .split(", heap ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    println!("{stack} bytes of stack and {heap} of heap, TLS included");
    assert!(stack <= budget("app", "stack"), "{stack} bytes of stack");
    assert!(heap <= budget("app", "heap"), "{heap} bytes of heap");
    board.cut_power();
    assert_eq!(board.flash().unwrap().state().unwrap().confirmed, Some(Slot::B));

    let boots: BTreeSet<u64> = samples(&ledger).into_iter().map(|(boot, _)| boot).collect();
    assert!(boots.len() >= 2, "{boots:?}");
    assert_eq!(gateway.stop().await, 0);
}
