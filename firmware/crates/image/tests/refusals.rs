//! What may not run does not run, and leaves evidence.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod support;

use forebay_flash::ReadNorFlash;
use forebay_image::sign::seal;
use forebay_image::{
    Evidence, EvidenceKind, HEADER_BYTES, Halt, Header, Keys, Refusal, Slot, State, Status, UpdateError, verify, verify_header,
};
use support::{BODY, Device, NEW_SECRET, OLD_SECRET, Release, STRANGER, target, trusted};

fn evidence(device: &Device, slot: Slot) -> Option<Evidence> {
    device.control(slot).unwrap().state().evidence
}

#[test]
fn every_flipped_bit_of_the_header_is_refused() {
    let image = Release::new(1).image(Slot::A);
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&image[..HEADER_BYTES]);
    let keys = trusted();
    let judge = |header: &[u8; HEADER_BYTES]| verify_header(header, Slot::A, &target(), Keys::new(&keys), &State::default());
    judge(&header).unwrap();
    for bit in 0..HEADER_BYTES * 8 {
        header[bit / 8] ^= 1 << (bit % 8);
        assert!(judge(&header).is_err(), "bit {bit}");
        header[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_image_is_refused() {
    let device = Device::factory(&Release::new(1), 1);
    let keys = trusted();
    let start = Slot::A.range().start + HEADER_BYTES as u32;
    for offset in (0..BODY as u32).step_by(97).chain([BODY as u32 - 1]) {
        device.flash.borrow_mut().flip_bit(start + offset, 3);
        let judged = verify(
            &mut *device.flash.borrow_mut(),
            Slot::A,
            &target(),
            Keys::new(&keys),
            &State::default(),
        );
        assert_eq!(judged, Err(Refusal::Hash), "offset {offset}");
        device.flash.borrow_mut().flip_bit(start + offset, 3);
    }
    assert!(device.boot().is_ok());
}

#[test]
fn each_rule_names_itself() {
    let mut bytes = [0; HEADER_BYTES];
    bytes.copy_from_slice(&Release::new(1).image(Slot::A)[..HEADER_BYTES]);
    let good = Header::decode(&bytes).unwrap();
    let keys = trusted();
    let floors = State {
        counter_floor: 1,
        key_floor: 1,
        ..State::default()
    };
    let judge = |header: Header, secret: &[u8; 32], state: &State| {
        verify_header(&seal(&header, secret), Slot::A, &target(), Keys::new(&keys), state).map(|_| ())
    };
    assert_eq!(judge(good, &OLD_SECRET, &floors), Ok(()));
    let room = Slot::A.range().len() as u32 - HEADER_BYTES as u32;
    let cases = [
        (Header { key_id: 3, ..good }, Refusal::UnknownKey),
        (
            Header {
                product: [b'x'; 16],
                ..good
            },
            Refusal::Product,
        ),
        (
            Header {
                hardware: [b'x'; 16],
                ..good
            },
            Refusal::Hardware,
        ),
        (
            Header {
                load_address: Slot::B.address(),
                ..good
            },
            Refusal::LoadAddress,
        ),
        (Header { size: 0, ..good }, Refusal::Size),
        (Header { size: 12, ..good }, Refusal::Size),
        (Header { size: room + 8, ..good }, Refusal::Size),
        (
            Header {
                security_counter: 0,
                ..good
            },
            Refusal::Counter,
        ),
        (Header { key_floor: 2, ..good }, Refusal::KeyFloor),
    ];
    for (header, refusal) in cases {
        assert_eq!(judge(header, &OLD_SECRET, &floors), Err(refusal));
    }
    assert_eq!(judge(good, &STRANGER, &floors), Err(Refusal::Signature));
    // The other trusted key is not this header's.
    assert_eq!(judge(good, &NEW_SECRET, &floors), Err(Refusal::Signature));
    let retired = State { key_floor: 2, ..floors };
    assert_eq!(judge(good, &OLD_SECRET, &retired), Err(Refusal::RetiredKey));
    let erased = verify_header(&[0xff; HEADER_BYTES], Slot::A, &target(), Keys::new(&keys), &floors);
    assert_eq!(erased, Err(Refusal::Empty));
    let nonsense = verify_header(&[0; HEADER_BYTES], Slot::A, &target(), Keys::new(&keys), &floors);
    assert_eq!(nonsense, Err(Refusal::NoHeader));
}

#[test]
fn a_wrong_update_is_refused_before_anything_is_erased_and_reported_once() {
    let device = Device::confirmed(&Release::new(1), 1);
    let forged = Release {
        secret: STRANGER,
        ..Release::new(2)
    };
    let kept = Release::new(3).image(Slot::B);
    device.place(&kept, Slot::B);
    assert_eq!(device.update(Slot::A, &forged), Err(UpdateError::Refused(Refusal::Signature)));
    let mut now = vec![0; kept.len()];
    device.flash.borrow_mut().read(Slot::B.range().start, &mut now).unwrap();
    assert_eq!(now, kept);

    let found = evidence(&device, Slot::A).unwrap();
    assert_eq!(found.kind, EvidenceKind::RefusedAsUpdate(Refusal::Signature));
    assert_eq!((found.version, found.reported, found.times), (forged.version(), false, 1));
    device.control(Slot::A).unwrap().evidence_reported().unwrap();
    assert!(evidence(&device, Slot::A).unwrap().reported);
    device.update(Slot::A, &forged).unwrap_err();
    let again = evidence(&device, Slot::A).unwrap();
    assert_eq!((again.reported, again.times), (true, 2));
}

#[test]
fn an_image_damaged_on_its_way_is_refused_after_the_last_byte() {
    let device = Device::confirmed(&Release::new(1), 1);
    let mut image = Release::new(2).image(Slot::B);
    let last = image.len() - 1;
    image[last] ^= 1;
    assert_eq!(device.update_with(Slot::A, &image), Err(UpdateError::Refused(Refusal::Hash)));
    let start = device.boot().unwrap();
    assert_eq!((start.slot, start.on_trial), (Slot::A, false));
}

#[test]
fn an_image_damaged_after_its_update_is_refused_at_boot_and_the_confirmed_one_runs() {
    let device = Device::confirmed(&Release::new(1), 1);
    let update = Release::new(2);
    device.update(Slot::A, &update).unwrap();
    device.flash.borrow_mut().flip_bit(Slot::B.range().start + 3000, 0);
    let start = device.boot().unwrap();
    assert_eq!((start.slot, start.on_trial), (Slot::A, false));
    let found = evidence(&device, Slot::A).unwrap();
    assert_eq!(found.kind, EvidenceKind::RefusedAtBoot(Refusal::Hash));
    assert_eq!((found.slot, found.version), (Slot::B, update.version()));
    assert_eq!(device.boot().unwrap().slot, Slot::A);
    assert_eq!(device.control(Slot::A).unwrap().state().refused, 1);
}

#[test]
fn the_only_image_damaged_halts_with_the_reasons() {
    let device = Device::confirmed(&Release::new(1), 1);
    device.flash.borrow_mut().flip_bit(Slot::A.range().start + 2000, 0);
    let halt = device.boot().unwrap_err();
    assert_eq!(
        halt,
        Halt {
            a: Refusal::Hash,
            b: Refusal::Empty
        }
    );
}

#[test]
fn a_damaged_confirmed_image_gives_way_to_the_other_good_one() {
    let device = Device::confirmed(&Release::new(1), 1);
    device.update(Slot::A, &Release::new(2)).unwrap();
    let start = device.boot().unwrap();
    device.control(start.slot).unwrap().confirm().unwrap();
    device.flash.borrow_mut().flip_bit(Slot::B.range().start + 2000, 0);
    let start = device.boot().unwrap();
    assert_eq!((start.slot, start.on_trial), (Slot::A, false));
    let mut control = device.control(Slot::A).unwrap();
    assert_eq!(control.status(), Status::Unconfirmed);
    assert_eq!(control.state().evidence.unwrap().kind, EvidenceKind::RefusedAtBoot(Refusal::Hash));
    control.confirm().unwrap();
    assert_eq!(control.status(), Status::Confirmed);
}

#[test]
fn an_older_counter_is_refused_once_a_newer_one_is_confirmed() {
    let device = Device::confirmed(&Release::new(1), 1);
    let closing = Release {
        security_counter: 5,
        ..Release::new(2)
    };
    device.update(Slot::A, &closing).unwrap();
    // Not before: the way back must stay open during the trial.
    assert_eq!(device.control(Slot::A).unwrap().state().counter_floor, 1);
    assert_eq!(device.boot().unwrap().slot, Slot::B);
    device.control(Slot::B).unwrap().confirm().unwrap();
    let older = Release {
        security_counter: 4,
        ..Release::new(3)
    };
    assert_eq!(device.update(Slot::B, &older), Err(UpdateError::Refused(Refusal::Counter)));
    // Nor can it be put there behind the application's back.
    device.place(&older.image(Slot::A), Slot::A);
    device.flash.borrow_mut().flip_bit(Slot::B.range().start + 2000, 0);
    assert_eq!(
        device.boot().unwrap_err(),
        Halt {
            a: Refusal::Counter,
            b: Refusal::Hash
        }
    );
}

#[test]
fn both_keys_are_trusted_during_a_rotation_and_the_old_one_is_retired_by_an_image() {
    let device = Device::confirmed(&Release::new(1), 1);
    let with_new = |patch, key_floor| Release {
        key_id: 2,
        key_floor,
        secret: NEW_SECRET,
        ..Release::new(patch)
    };
    device.update(Slot::A, &with_new(2, 0)).unwrap();
    device.boot().unwrap();
    device.control(Slot::B).unwrap().confirm().unwrap();
    // Still both.
    device.update(Slot::B, &Release::new(3)).unwrap();
    device.boot().unwrap();
    device.control(Slot::A).unwrap().confirm().unwrap();
    device.update(Slot::A, &with_new(4, 2)).unwrap();
    device.boot().unwrap();
    device.control(Slot::B).unwrap().confirm().unwrap();
    assert_eq!(
        device.update(Slot::B, &Release::new(5)),
        Err(UpdateError::Refused(Refusal::RetiredKey))
    );
    device.update(Slot::B, &with_new(6, 2)).unwrap();
    assert_eq!(device.boot().unwrap().slot, Slot::A);
}

#[test]
fn an_image_that_was_given_up_is_not_taken_again() {
    let device = Device::confirmed(&Release::new(1), 1);
    device.update(Slot::A, &Release::new(2)).unwrap();
    assert!(device.boot().unwrap().on_trial);
    assert!(device.boot().unwrap().on_trial);
    assert_eq!(device.boot().unwrap().slot, Slot::A);
    for _ in 0..2 {
        assert_eq!(
            device.update(Slot::A, &Release::new(2)),
            Err(UpdateError::Refused(Refusal::GivenUp))
        );
    }
    assert_eq!(evidence(&device, Slot::A).unwrap().kind, EvidenceKind::GivenUp);
    device.update(Slot::A, &Release::new(3)).unwrap();
}

#[test]
fn an_unconfirmed_image_may_not_overwrite_the_one_to_go_back_to() {
    let device = Device::confirmed(&Release::new(1), 1);
    device.update(Slot::A, &Release::new(2)).unwrap();
    assert_eq!(device.boot().unwrap().slot, Slot::B);
    assert_eq!(device.control(Slot::B).unwrap().status(), Status::Trial { tries: 1 });
    assert_eq!(device.update(Slot::B, &Release::new(3)), Err(UpdateError::NotConfirmed));
}

#[test]
fn an_update_takes_exactly_the_bytes_its_header_says() {
    let device = Device::confirmed(&Release::new(1), 1);
    let image = Release::new(2).image(Slot::B);
    assert_eq!(device.update_with(Slot::A, &image[..image.len() - 1]), Err(UpdateError::TooShort));
    let longer = [&image[..], &[0]].concat();
    assert_eq!(device.update_with(Slot::A, &longer), Err(UpdateError::TooLong));
    assert_eq!(device.boot().unwrap().slot, Slot::A);
}
