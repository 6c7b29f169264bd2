//! The real bootloader and application in QEMU's B-L475E-IOT01A. `firmware/run images` builds them; QEMU 10 must be installed.
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_firmware_tools::emulator::{Emulator, Ended, built};
use forebay_firmware_tools::flash_file::FlashFile;
use forebay_firmware_tools::keys::read_secret;
use forebay_firmware_tools::release::{Release, make};
use forebay_flash::{NorFlash as _, map};
use forebay_image::{EvidenceKind, HEADER_BYTES, Refusal, Slot, Version};

const HARDWARE: &str = "qemu-l475e-iot01";
/// For what must happen; machines are shared and slow.
const SOON: Duration = Duration::from_secs(60);
/// For what must not happen: only waited out in full where the firmware hangs.
const HANG: Duration = Duration::from_secs(5);

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images")
}

/// What varies between images.
#[derive(Clone, Copy)]
struct Made {
    patch: u16,
    security_counter: u32,
    key_id: u32,
    breakage: Breakage,
}

#[derive(Clone, Copy, PartialEq)]
enum Breakage {
    None,
    /// Its first instruction faults.
    Faults,
    /// Its first instruction jumps to itself.
    Hangs,
}

const GOOD: Made = Made {
    patch: 0,
    security_counter: 1,
    key_id: 1,
    breakage: Breakage::None,
};

impl Made {
    fn image(&self, slot: Slot) -> Vec<u8> {
        let secret = read_secret(&images().join(format!("keys/release-{}.key", self.key_id))).unwrap();
        self.image_signed_by(slot, &secret)
    }

    fn image_signed_by(&self, slot: Slot, secret: &[u8; 32]) -> Vec<u8> {
        let name = if slot == Slot::A { "app-qemu-a.bin" } else { "app-qemu-b.bin" };
        let mut binary = built(&images(), name).unwrap();
        let entry = u32::from_le_bytes(binary[4..8].try_into().unwrap()) & !1;
        let at = (entry - slot.address()) as usize - HEADER_BYTES;
        match self.breakage {
            Breakage::None => {}
            // `udf #0` and `b .`
            Breakage::Faults => binary[at..at + 2].copy_from_slice(&[0x00, 0xde]),
            Breakage::Hangs => binary[at..at + 2].copy_from_slice(&[0xfe, 0xe7]),
        }
        let release = Release {
            hardware: HARDWARE,
            version: Version {
                major: 1,
                minor: 0,
                patch: self.patch,
            },
            security_counter: self.security_counter,
            key_id: self.key_id,
            key_floor: 0,
        };
        make(&binary, slot, &release, secret).unwrap()
    }
}

/// Fresh from the factory.
fn factory(made: &Made) -> Emulator {
    let mut flash = FlashFile::new(&built(&images(), "boot-qemu.bin").unwrap()).unwrap();
    flash.place(&made.image(Slot::A), Slot::A).unwrap();
    Emulator::new(&flash).unwrap()
}

/// After its first start and self-test.
fn confirmed(made: &Made) -> Emulator {
    let mut board = factory(made);
    see(&mut board, "app::application: confirmed");
    board
}

fn see(board: &mut Emulator, text: &str) -> String {
    match board.run_until(text, SOON).unwrap() {
        Ended::Seen(line) => line,
        other => panic!("waiting for `{text}`: {other:?} after\n{}", board.lines.join("\n")),
    }
}

/// The firmware's lines with this text, over all starts.
fn count(board: &Emulator, text: &str) -> usize {
    board.lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_factory_image_boots_and_confirms_itself() {
    let mut board = factory(&GOOD);
    see(&mut board, "boot: slot A version 1.0.0 verified");
    see(&mut board, "version 1.0.0 in slot A, unconfirmed");
    see(&mut board, "app::application: confirmed");
    board.cut_power();
    assert_eq!(board.flash().unwrap().state().unwrap().confirmed, Some(Slot::A));
    see(&mut board, "version 1.0.0 in slot A, confirmed");
}

#[test]
fn an_update_is_tried_confirmed_and_stays() {
    let mut board = confirmed(&GOOD);
    board
        .offer(Some(
            &Made {
                patch: 1,
                security_counter: 2,
                ..GOOD
            }
            .image(Slot::B),
        ))
        .unwrap();
    see(&mut board, "update ready");
    see(&mut board, "boot: slot B version 1.0.1 on trial");
    board.offer(None).unwrap();
    see(&mut board, "app::application: confirmed");
    board.cut_power();
    see(&mut board, "version 1.0.1 in slot B, confirmed");
    board.cut_power();
    let state = board.flash().unwrap().state().unwrap();
    assert_eq!((state.confirmed, state.trial, state.counter_floor), (Some(Slot::B), None, 2));
    // And back again to the first slot, signed by the key to come.
    board
        .offer(Some(
            &Made {
                patch: 2,
                security_counter: 2,
                key_id: 2,
                ..GOOD
            }
            .image(Slot::A),
        ))
        .unwrap();
    see(&mut board, "boot: slot A version 1.0.2 on trial");
    see(&mut board, "app::application: confirmed");
}

#[test]
fn an_update_that_faults_is_given_up_after_two_tries_and_reported() {
    let mut board = confirmed(&GOOD);
    let broken = Made {
        patch: 1,
        breakage: Breakage::Faults,
        ..GOOD
    };
    board.offer(Some(&broken.image(Slot::B))).unwrap();
    see(&mut board, "evidence: version 1.0.1 for slot B given up");
    assert_eq!(count(&board, "boot: slot B version 1.0.1 on trial"), 2);
    // The offer still stands: it is not taken again.
    see(&mut board, "update refused: given-up");
    board.cut_power();
    let state = board.flash().unwrap().state().unwrap();
    assert_eq!((state.confirmed, state.trial, state.given_up), (Some(Slot::A), None, 1));
    assert!(state.evidence.unwrap().reported);
}

#[test]
fn an_update_that_hangs_is_cut_off_by_the_harness_and_given_up() {
    let mut board = confirmed(&GOOD);
    let hanging = Made {
        patch: 1,
        breakage: Breakage::Hangs,
        ..GOOD
    };
    board.offer(Some(&hanging.image(Slot::B))).unwrap();
    for _ in 0..2 {
        see(&mut board, "boot: slot B version 1.0.1 on trial");
        assert_eq!(board.run_until("version 1.0.1 in slot B", HANG).unwrap(), Ended::Hangs);
        board.cut_power();
    }
    see(&mut board, "evidence: version 1.0.1 for slot B given up");
}

/// README.md's way to update a real board: the image into the other slot, and the state erased.
#[test]
fn an_image_that_a_probe_has_put_there_is_tried_and_if_broken_given_up() {
    let mut board = confirmed(&GOOD);
    for (patch, breakage) in [(1, Breakage::Faults), (2, Breakage::None)] {
        board.cut_power();
        let mut flash = board.flash().unwrap();
        flash.place(&Made { patch, breakage, ..GOOD }.image(Slot::B), Slot::B).unwrap();
        flash.erase(map::STATE.start, map::STATE.end).unwrap();
        board.set_flash(&flash).unwrap();
        see(&mut board, &format!("boot: slot B version 1.0.{patch} on trial"));
        match breakage {
            Breakage::None => see(&mut board, "app::application: confirmed"),
            _ => see(&mut board, "version 1.0.0 in slot A, unconfirmed"),
        };
    }
    assert_eq!(count(&board, "boot: slot B version 1.0.1 on trial"), 2);
}

#[test]
fn a_flipped_bit_in_an_update_is_refused_by_application_and_bootloader() {
    let mut board = confirmed(&GOOD);
    let mut image = Made { patch: 1, ..GOOD }.image(Slot::B);
    let middle = image.len() / 2;
    image[middle] ^= 0x10;
    board.offer(Some(&image)).unwrap();
    see(&mut board, "update refused: hash");
    board.cut_power();
    board.offer(None).unwrap();
    // Put there and on trial behind the application's back, the bootloader refuses it.
    let mut flash = board.flash().unwrap();
    flash.place(&image, Slot::B).unwrap();
    flash.put_on_trial(Slot::B).unwrap();
    board.set_flash(&flash).unwrap();
    see(&mut board, "boot: slot A version 1.0.0 verified");
    see(&mut board, "evidence: version 1.0.1 for slot B refused at boot: hash");
}

#[test]
fn a_wrong_key_is_refused_by_application_and_bootloader() {
    let mut board = confirmed(&GOOD);
    let image = Made { patch: 1, ..GOOD }.image_signed_by(Slot::B, &[0x5a; 32]);
    board.offer(Some(&image)).unwrap();
    see(&mut board, "update refused: signature");
    board.cut_power();
    board.offer(None).unwrap();
    let mut flash = board.flash().unwrap();
    flash.place(&image, Slot::B).unwrap();
    flash.put_on_trial(Slot::B).unwrap();
    board.set_flash(&flash).unwrap();
    see(&mut board, "evidence: version 1.0.1 for slot B refused at boot: signature");
}

#[test]
fn an_older_counter_is_refused_by_application_and_bootloader() {
    let mut board = confirmed(&Made {
        security_counter: 3,
        ..GOOD
    });
    let older = Made {
        patch: 1,
        security_counter: 2,
        ..GOOD
    };
    board.offer(Some(&older.image(Slot::B))).unwrap();
    see(&mut board, "update refused: security-counter");
    board.cut_power();
    board.offer(None).unwrap();
    let mut flash = board.flash().unwrap();
    flash.place(&older.image(Slot::B), Slot::B).unwrap();
    flash.put_on_trial(Slot::B).unwrap();
    board.set_flash(&flash).unwrap();
    see(&mut board, "evidence: version 1.0.1 for slot B refused at boot: security-counter");
}

#[test]
fn the_only_image_with_a_flipped_bit_halts_the_bootloader() {
    let mut board = factory(&GOOD);
    let mut flash = board.flash().unwrap();
    flash.flip_bit(Slot::A.range().start + 5000, 0);
    board.set_flash(&flash).unwrap();
    assert_eq!(board.run_until("in slot", SOON).unwrap(), Ended::Halted);
    assert!(
        board
            .lines
            .iter()
            .any(|line| line == "boot: nothing to run: slot A hash, slot B empty"),
        "{:?}",
        board.lines
    );
    board.cut_power();
    let evidence = board.flash().unwrap().state().unwrap().evidence.unwrap();
    assert_eq!(evidence.kind, EvidenceKind::RefusedAtBoot(Refusal::Hash));
}

#[test]
fn an_update_cut_off_at_any_moment_is_taken_in_the_end() {
    let mut board = confirmed(&GOOD);
    board.offer(Some(&Made { patch: 1, ..GOOD }.image(Slot::B))).unwrap();
    // Each start gets a little further; the moments differ from machine to machine and from run to run.
    for milliseconds in [0, 2, 5, 10, 20, 40] {
        if let Ended::Seen(_) = board.run_until("update begun", SOON).unwrap()
            && let Ended::Seen(_) = board.run_until("update ready", Duration::from_millis(milliseconds)).unwrap()
        {
            break;
        }
        board.cut_power();
    }
    see(&mut board, "boot: slot B version 1.0.1");
    see(&mut board, "app::application: confirmed");
    board.cut_power();
    see(&mut board, "version 1.0.1 in slot B, confirmed");
}

/// A line of README.md's table of budgets, in bytes.
fn budget(image: &str, what: &str) -> u32 {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let start = format!("| `{image}` | {what} | ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

fn assert_stack(board: &Emulator, image: &str) {
    let used = board.stack_used().unwrap();
    let limit = budget(image, "stack");
    println!("{image}: {used} of {limit} bytes of stack");
    assert!(used > 0 && used <= limit, "{used} bytes of stack, the budget of {image} is {limit}");
}

#[test]
fn the_applications_stack_stays_within_its_budget() {
    let mut board = confirmed(&GOOD);
    see(&mut board, "app::report: stack ");
    assert_stack(&board, "app");
}

#[test]
fn the_bootloaders_stack_stays_within_its_budget() {
    // An image that hangs at once leaves the stack as the bootloader left it.
    let mut board = factory(&Made {
        breakage: Breakage::Hangs,
        ..GOOD
    });
    see(&mut board, "boot: slot A version 1.0.0 verified");
    assert_stack(&board, "boot");
}
