//! The emulated board: the signed images of `firmware/run images` in QEMU, with a stand-in for its Wi-Fi module.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_firmware_tools::emulator::{Emulator, Ended, built};
use forebay_firmware_tools::flash_file::FlashFile;
use forebay_firmware_tools::keys::read_secret;
use forebay_firmware_tools::provision::{Device, identity};
use forebay_firmware_tools::release::{Release, make};
use forebay_image::{Slot, Version};
use forebay_virtual_device::module::{Control, listen};
use tokio::net::TcpListener;
use tokio::task::block_in_place;

use super::plant::Plant;

/// The board's name in its certificate.
pub const NAME: &str = "board-1";
/// What it says once its image has proved itself: connected, published, acked.
pub const CONFIRMED: &str = "app::application: confirmed";
/// Emulated elliptic curves on a busy machine.
const SOON: Duration = Duration::from_secs(180);

/// A provisioned board and its module.
pub struct Board {
    emulator: Emulator,
    pub module: Control,
}

impl Board {
    /// Fresh from the factory and off; for the gateway at this address, with certificates of this plant.
    pub async fn new(plant: &Plant, gateway: SocketAddr) -> Self {
        let mut flash = FlashFile::new(&built(&images(), "boot-qemu.bin").unwrap()).unwrap();
        flash.place(&image(Slot::A, 0), Slot::A).unwrap();
        let identity = identity(&Device {
            name: NAME,
            gateway: &gateway.to_string(),
            server_name: Some("localhost"),
            ca: &plant.folder().join("devices-ca.pem"),
            certificate: &plant.folder().join(format!("{NAME}.pem")),
            key: &plant.folder().join(format!("{NAME}.key")),
            wifi: Some(("plant", "a pass phrase")),
        });
        flash.provision(&identity.unwrap()).unwrap();
        let mut emulator = Emulator::new(&flash).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        emulator.connect_wifi(listener.local_addr().unwrap().port());
        let module = Control::default();
        tokio::spawn(listen(listener, module.clone()));
        Self { emulator, module }
    }

    /// Powers on if the power is off, and waits for a line with this text.
    pub fn see(&mut self, text: &str) {
        let ended = block_in_place(|| self.emulator.run_until(text, SOON)).unwrap();
        assert!(
            matches!(ended, Ended::Seen(_)),
            "waiting for `{text}`: {ended:?} after\n{}",
            self.lines.join("\n")
        );
    }

    /// Takes in what the firmware has said, until it is silent for a moment.
    pub fn hear(&mut self) {
        block_in_place(|| self.emulator.run_until("\n", Duration::from_millis(1))).unwrap();
    }
}

impl Deref for Board {
    type Target = Emulator;

    fn deref(&self) -> &Emulator {
        &self.emulator
    }
}

impl DerefMut for Board {
    fn deref_mut(&mut self) -> &mut Emulator {
        &mut self.emulator
    }
}

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/target/images")
}

/// The signed application, version 1.0.`patch`.
pub fn image(slot: Slot, patch: u16) -> Vec<u8> {
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
