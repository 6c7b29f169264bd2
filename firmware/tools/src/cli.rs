//! The commands.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use forebay_firmware_tools::flash_file::FlashFile;
use forebay_firmware_tools::keys::{self, write_secret};
use forebay_firmware_tools::provision::{Device, identity};
use forebay_firmware_tools::release::{Release, VersionText, make};
use forebay_image::{Evidence, EvidenceKind, Slot, Version};

/// Keys, signatures and flash images of the device.
#[derive(Debug, Parser)]
#[command(
    name = "fw",
    after_help = "Examples:\n  fw keys --id 1 keys/\n  fw sign --key keys/release-1.key --key-id 1 --slot a --version 1.4.2 app-a.bin app-a.img\n  \
    fw provision --ca certs/ca.pem --certificate certs/pump-1.pem --key certs/pump-1.key --name pump-1 --gateway 192.168.10.2:8883 pump-1.bin\n  \
    fw pack --boot boot.bin --slot-a app-a.img --identity pump-1.bin flash.bin\n  fw show flash.bin"
)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a release key and add it to the trusted ones
    Keys {
        /// The key's number; a later key has a higher one
        #[arg(long)]
        id: u32,
        /// Where release-ID.key and trusted-keys.txt go
        folder: PathBuf,
    },
    /// Put a signed header in front of a linked image
    Sign(Sign),
    /// Put together what makes one device this device, from the files of `forebay certs`
    Provision(Provision),
    /// Put bootloader and images together to a whole flash
    Pack {
        /// The bootloader, as objcopy writes it
        #[arg(long)]
        boot: PathBuf,
        /// The signed image for slot A
        #[arg(long)]
        slot_a: Option<PathBuf>,
        /// The signed image for slot B
        #[arg(long)]
        slot_b: Option<PathBuf>,
        /// The device's identity, as `fw provision` writes it
        #[arg(long)]
        identity: Option<PathBuf>,
        /// The flash, 1 MiB, for address 0x08000000
        output: PathBuf,
    },
    /// Show headers and state of a flash
    Show {
        /// A whole flash, packed or read out of a device
        flash: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Sign {
    /// The secret key, PKCS#8 PEM
    #[arg(long)]
    key: PathBuf,
    /// The key's number
    #[arg(long)]
    key_id: u32,
    /// The slot it was linked for
    #[arg(long)]
    slot: SlotName,
    /// major.minor.patch
    #[arg(long)]
    version: VersionText,
    /// Raise it when a release closes a hole: lower ones are refused once this one is confirmed
    #[arg(long, default_value_t = 1)]
    security_counter: u32,
    /// Retire the keys with lower numbers once this image is confirmed
    #[arg(long, default_value_t = 0)]
    key_floor: u32,
    /// The hardware it is for
    #[arg(long, default_value = "b-l475e-iot01a")]
    hardware: String,
    /// The image, as objcopy writes it
    binary: PathBuf,
    /// The signed image
    output: PathBuf,
}

#[derive(Debug, Args)]
struct Provision {
    /// The CA that signs gateways, PEM
    #[arg(long)]
    ca: PathBuf,
    /// The device's certificate, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// The device's key, PEM
    #[arg(long)]
    key: PathBuf,
    /// The common name in the device's certificate
    #[arg(long)]
    name: String,
    /// The gateway's address
    #[arg(long, value_name = "HOST:PORT")]
    gateway: String,
    /// The name in the gateway's certificate; left out, the gateway's host
    #[arg(long)]
    server_name: Option<String>,
    /// The Wi-Fi network
    #[arg(long, requires = "pass_phrase_file")]
    wifi: Option<String>,
    /// A file with its pass phrase
    #[arg(long, requires = "wifi")]
    pass_phrase_file: Option<PathBuf>,
    /// The identity, for address 0x08008000
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SlotName {
    A,
    B,
}

/// Does what the arguments say.
pub(crate) fn run() -> Result<()> {
    match Command::parse().action {
        Action::Keys { id, folder } => {
            let path = keys::create(&folder, id)?;
            println!("{}", path.display());
            println!(
                "trusted from now on: build the bootloader with FOREBAY_KEYS={}",
                folder.join(keys::TRUSTED).display()
            );
            Ok(())
        }
        Action::Sign(arguments) => sign(&arguments),
        Action::Provision(arguments) => provision(&arguments),
        Action::Pack {
            boot,
            slot_a,
            slot_b,
            identity,
            output,
        } => {
            let mut flash = FlashFile::new(&read(&boot)?)?;
            for (slot, image) in [(Slot::A, slot_a), (Slot::B, slot_b)] {
                if let Some(path) = image {
                    flash.place(&read(&path)?, slot)?;
                }
            }
            if let Some(path) = identity {
                flash.provision(&read(&path)?)?;
            }
            flash.write_to(&output)
        }
        Action::Show { flash } => {
            show(FlashFile::read_from(&flash)?);
            Ok(())
        }
    }
}

fn sign(arguments: &Sign) -> Result<()> {
    let slot = match arguments.slot {
        SlotName::A => Slot::A,
        SlotName::B => Slot::B,
    };
    let release = Release {
        hardware: &arguments.hardware,
        version: arguments.version.0,
        security_counter: arguments.security_counter,
        key_id: arguments.key_id,
        key_floor: arguments.key_floor,
    };
    let signed = make(&read(&arguments.binary)?, slot, &release, &keys::read_secret(&arguments.key)?)?;
    fs::write(&arguments.output, &signed).with_context(|| format!("cannot write {}", arguments.output.display()))?;
    println!("{}: {} bytes", arguments.output.display(), signed.len());
    Ok(())
}

fn provision(arguments: &Provision) -> Result<()> {
    let pass_phrase = match &arguments.pass_phrase_file {
        Some(path) => Some(fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?),
        None => None,
    };
    let device = Device {
        name: &arguments.name,
        gateway: &arguments.gateway,
        server_name: arguments.server_name.as_deref(),
        ca: &arguments.ca,
        certificate: &arguments.certificate,
        key: &arguments.key,
        wifi: arguments.wifi.as_deref().zip(pass_phrase.as_deref().map(str::trim_end)),
    };
    let identity = identity(&device)?;
    write_secret(&arguments.output, &identity)?;
    println!(
        "{}: {} bytes, with the device's key: treat it as one",
        arguments.output.display(),
        identity.len()
    );
    Ok(())
}

fn show(mut flash: FlashFile) {
    for slot in Slot::ALL {
        match flash.header(slot) {
            Some(header) => println!(
                "slot {slot:?}: version {}, {} bytes, security counter {}, key {}, key floor {}",
                version(header.version),
                header.size,
                header.security_counter,
                header.key_id,
                header.key_floor
            ),
            None => println!("slot {slot:?}: no header"),
        }
    }
    let Some(state) = flash.state() else {
        println!("state: none yet");
        return;
    };
    let confirmed = state.confirmed.map_or_else(|| "none".to_owned(), |slot| format!("{slot:?}"));
    println!(
        "confirmed: {confirmed}; security counter floor {}, key floor {}",
        state.counter_floor, state.key_floor
    );
    if let Some(trial) = state.trial {
        println!("on trial: {:?}, {} tries", trial.slot, trial.tries);
    }
    println!("refused {}, given up {}", state.refused, state.given_up);
    if let Some(evidence) = state.evidence {
        println!("last: {}", describe(&evidence));
    }
}

fn describe(evidence: &Evidence) -> String {
    let what = match evidence.kind {
        EvidenceKind::RefusedAtBoot(refusal) => format!("refused at boot ({})", refusal.word()),
        EvidenceKind::RefusedAsUpdate(refusal) => format!("refused as update ({})", refusal.word()),
        EvidenceKind::GivenUp => "given up".to_owned(),
    };
    let reported = if evidence.reported { "reported" } else { "not reported" };
    format!(
        "version {} for slot {:?} {what}, met {} times, {reported}",
        version(evidence.version),
        evidence.slot,
        evidence.times
    )
}

fn version(version: Version) -> String {
    format!("{}.{}.{}", version.major, version.minor, version.patch)
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
