//! The commands.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use forebay_firmware_tools::flash_file::FlashFile;
use forebay_firmware_tools::keys;
use forebay_firmware_tools::release::{Release, VersionText, make};
use forebay_image::{Evidence, EvidenceKind, Slot, Version};

/// Keys, signatures and flash images of the device.
#[derive(Debug, Parser)]
#[command(
    name = "fw",
    after_help = "Examples:\n  fw keys --id 1 keys/\n  fw sign --key keys/release-1.key --key-id 1 --slot a --version 1.4.2 app-a.bin app-a.img\n  \
    fw pack --boot boot.bin --slot-a app-a.img flash.bin\n  fw show flash.bin"
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
        Action::Pack {
            boot,
            slot_a,
            slot_b,
            output,
        } => {
            let mut flash = FlashFile::new(&read(&boot)?)?;
            for (slot, image) in [(Slot::A, slot_a), (Slot::B, slot_b)] {
                if let Some(path) = image {
                    flash.place(&read(&path)?, slot)?;
                }
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
