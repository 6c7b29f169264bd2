#![allow(clippy::unwrap_used, reason = "only tests use it")]

use alloc::format;

use forebay_flash::NorFlash;
use forebay_flash::sim::Sim;

use super::*;

fn flash(bytes: &[u8]) -> Sim {
    let mut flash = Sim::new(map::ALL.end, 1);
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(8), 0xff);
    flash.write(map::PROVISION.start, &padded).unwrap();
    flash
}

fn written() -> Vec<u8> {
    let content = Content {
        name: "pump-1",
        gateway: "192.168.10.2:8883",
        server_name: "plant-7.local",
        ca: &[1; 400],
        chain: &[vec![2; 500], vec![3; 450]],
        key: &[4; 138],
        wifi: Some(("plant", "a pass phrase")),
    };
    write(&content).unwrap()
}

#[test]
fn an_identity_comes_back_as_it_was_written() {
    let identity = Identity::read(&mut flash(&written())).unwrap();
    assert_eq!((identity.name(), identity.gateway()), ("pump-1", "192.168.10.2:8883"));
    assert_eq!(identity.server_name(), "plant-7.local");
    assert_eq!((identity.ca(), identity.key()), (&[1; 400][..], &[4; 138][..]));
    assert_eq!(identity.chain().collect::<Vec<_>>(), [&[2; 500][..], &[3; 450]]);
    assert_eq!((identity.network(), identity.pass_phrase()), ("plant", "a pass phrase"));
    let shown = format!("{identity:?}");
    assert!(shown.contains("pump-1") && !shown.contains("phrase"), "{shown}");
}

#[test]
fn a_device_without_one_says_so() {
    assert_eq!(Identity::read(&mut Sim::new(map::ALL.end, 1)), Err(Fault::Blank));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = written();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert_eq!(Identity::read(&mut flash(&damaged)), Err(Fault::Damaged), "byte {at}");
    }
}

#[test]
fn what_every_device_needs_is_missed_by_name() {
    let entries = [NAME, 1, 0, b'a'];
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&CRC.checksum(&entries).to_le_bytes());
    bytes.extend_from_slice(&entries);
    assert_eq!(Identity::read(&mut flash(&bytes)), Err(Fault::Missing("gateway")));
}

#[test]
fn one_that_does_not_fit_is_not_written() {
    let content = Content {
        name: "a",
        gateway: "b:1",
        server_name: "c",
        ca: &[0; 16000],
        chain: &[vec![0; 400]],
        key: &[0; 100],
        wifi: None,
    };
    assert_eq!(write(&content), None);
}
