//! Chains of every shape, written by hand: only names and sizes count here.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u16::try_from(content.len()).unwrap() {
        short @ 0..0x80 => bytes.push(short.to_be_bytes()[1]),
        long => bytes.extend([&[0x82][..], &long.to_be_bytes()].concat()),
    }
    bytes.extend(content);
    bytes
}

/// A certificate of this issuer for this subject, told apart from others of the same names by `key`, with so many bytes after them.
fn certificate(subject: u8, issuer: u8, key: u8, padding: usize) -> Vec<u8> {
    let version = element(0xa0, &[2, 1, 2]);
    let parts = [
        version,
        element(0x02, &[key]),
        element(0x30, b"algorithm"),
        element(0x30, &[issuer]),
        element(0x30, b"dates"),
        element(0x30, &[subject]),
        vec![key; padding],
    ];
    element(0x30, &element(0x30, &parts.concat()))
}

/// A pseudo-random order, from a seed.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for place in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(place, usize::try_from(seed >> 33).unwrap() % (place + 1));
    }
}

#[test]
fn what_leads_to_a_ca_is_taken_in_any_order_and_the_rest_is_left() {
    let leaf = certificate(0, 1, 0, 10);
    for length in 0..=MAX_INTERMEDIATES {
        for seed in 0..50 {
            let path: Vec<_> = (1..).take(length).map(|at| certificate(at, at + 1, 0, 10)).collect();
            let mut sent = path.clone();
            sent.extend(path.iter().cloned());
            sent.push(certificate(1, 1, 5, 10));
            sent.extend((100..120).map(|stranger| certificate(stranger, stranger + 1, 0, 10)));
            sent.push(b"no certificate".to_vec());
            shuffle(&mut sent, seed);
            let mut taken = bounded(&leaf, &sent).unwrap();
            taken.sort();
            assert_eq!(taken, path);
        }
    }
}

#[test]
fn a7_look_alikes_are_never_more_or_larger_than_the_limits() {
    for count in 1..=20 {
        for padding in [0, 100, 1000, 2500, 7600, 20_000] {
            for (seed, names) in (0..).zip([1_u8, 2, 3, 7]) {
                // All of them could have issued each other: names are few, keys are many.
                let mut sent: Vec<_> = (0..count)
                    .map(|key| certificate(1 + key % names, 1 + (key + 1) % names.max(2), key, padding))
                    .collect();
                shuffle(&mut sent, seed);
                let leaf = certificate(0, 1, 0, padding);
                match bounded(&leaf, &sent) {
                    Ok(taken) => {
                        assert!(taken.len() <= MAX_INTERMEDIATES);
                        assert!(leaf.len() + taken.iter().map(Vec::len).sum::<usize>() <= MAX_BYTES);
                    }
                    Err(Unbounded::Long) => assert!(sent.len() > MAX_INTERMEDIATES),
                    Err(Unbounded::Large { bytes }) => assert!(bytes > MAX_BYTES),
                }
            }
        }
    }
}

#[test]
fn the_limits_themselves_are_let_through() {
    let leaf = certificate(0, 1, 0, 0);
    let mut sent: Vec<_> = (1..=3).map(|at| certificate(at, at + 1, 0, 1000)).collect();
    let used = leaf.len() + sent.iter().map(Vec::len).sum::<usize>();
    let exact = certificate(0, 1, 0, MAX_BYTES - used - 4);
    let total = |leaf: &[u8]| leaf.len() + used - certificate(0, 1, 0, 0).len();
    assert!(total(&exact) <= MAX_BYTES && total(&exact) + 4 >= MAX_BYTES);
    assert_eq!(bounded(&exact, &sent).unwrap().len(), 3);
    sent.push(certificate(4, 5, 0, 0));
    assert_eq!(bounded(&leaf, &sent), Err(Unbounded::Long));
}

#[test]
fn no_bytes_panic_it() {
    let good = certificate(1, 2, 3, 20);
    for length in 0..good.len() {
        assert_eq!(Names::of(&good[..length]), None);
    }
    for place in 0..good.len() {
        for value in [0, 0x7f, 0x80, 0x82, 0x83, 0x84, 0xff] {
            let mut bad = good.clone();
            bad[place] = value;
            let _any = bounded(&bad, &[good.clone(), bad.clone()]);
        }
    }
}
