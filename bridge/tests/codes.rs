//! Every reason code at every packet, in every form, and bytes that are no packet: each ends as a retry, a device that waits, a dead letter or a
//! suspension, and never in a line that stands.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_bridge::{Backoff, Qos, Version};
use support::scripted::{ACCEPT_V5, ACCEPT_V311, Publish, cloud};
use support::{Rig, route};

/// A record that the cloud answers as the test says ends with this; all others are acked.
const ODD: &[u8] = b"odd";

fn accept(version: Version) -> &'static [u8] {
    match version {
        Version::V5 => ACCEPT_V5,
        Version::V311 => ACCEPT_V311,
    }
}

/// A rig with short times, and a route `case/N` for each case, so that no suspension of one is that of another.
async fn rig(version: Version, cases: usize) -> Rig {
    let mut rig = Rig::plain(version).await;
    let case = |case| {
        let (name, from, to) = (name(case), format!("devices/+/case/{case}"), format!("case/{case}/{{device}}"));
        route(&name, &from, &to, Qos::AtLeastOnce)
    };
    rig.routes = (0..cases).map(case).collect();
    rig.config.backoff = Backoff {
        initial: Duration::from_millis(1),
        ceiling: Duration::from_millis(2),
        connect_spacing: Duration::ZERO,
        ..rig.config.backoff
    };
    rig.config.quiet_before_alone = Duration::from_millis(1);
    // No suspended pair is tried again during the test.
    rig.config.probe_interval = Duration::from_secs(3600);
    rig
}

fn name(case: usize) -> String {
    format!("case{case}")
}

/// The case whose odd record this is.
fn odd_case(publish: &Publish<'_>) -> Option<usize> {
    let case = publish.topic.strip_prefix("case/")?.split('/').next()?;
    publish.rest.ends_with(ODD).then(|| case.parse().unwrap())
}

fn append(rig: &mut Rig, case: usize, payload: &[u8]) {
    let name: &'static str = name(case).leak();
    let topic = format!("devices/{name}/case/{case}");
    rig.append("telemetry", name, &topic, payload, |record| record.route = name);
}

/// What became of a record that the cloud answers oddly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Delivered,
    Suspended,
    Dead(&'static str),
}

fn dead(rig: &Rig) -> BTreeMap<&'static str, u64> {
    rig.handle().stats().dead().filter(|(_, count)| *count > 0).collect()
}

fn suspended(rig: &Rig) -> BTreeSet<String> {
    rig.status().suspended.into_iter().map(|pair| pair.route).collect()
}

/// Sends each case's odd record in turn, between records that the cloud takes, and waits for what becomes of it. After each the
/// line goes on.
async fn one_by_one(rig: &mut Rig, cases: usize) -> Vec<Fate> {
    let mut fates = Vec::new();
    for case in 0..cases {
        // The cloud takes the topic, so that no answer can mean that it is denied.
        append(rig, case, b"good");
        rig.until("the line is free", |rig| rig.waiting() == suspended(rig).len() as u64)
            .await;
        let (delivered, before) = (rig.delivered(), dead(rig));
        append(rig, case, ODD);
        rig.publish("other", 2);
        let others_and_fate = |rig: &Rig| {
            let (new, now) = (rig.delivered() - delivered, dead(rig));
            let reason = now.iter().find(|(reason, count)| before.get(*reason) != Some(*count));
            match reason {
                Some((reason, _)) if new == 2 => Some(Fate::Dead(reason)),
                None if new == 2 && suspended(rig).contains(&name(case)) => Some(Fate::Suspended),
                None if new == 3 => Some(Fate::Delivered),
                _ => None,
            }
        };
        rig.until(&format!("case {case} ends and the line goes on"), |rig| {
            others_and_fate(rig).is_some()
        })
        .await;
        fates.push(others_and_fate(rig).unwrap());
    }
    fates
}

/// Properties: none and their length left out, none, or a reason string and a user property.
fn forms() -> [&'static [u8]; 3] {
    [b"", b"\x00", b"\x0d\x1f\x00\x03why\x26\x00\x01a\x00\x01b"]
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, u8::try_from(body.len()).unwrap()], body].concat()
}

#[tokio::test]
async fn every_code_of_a_puback_in_every_form_delivers_waits_or_dies_by_its_reason() {
    let forms = forms();
    let cases = 256 * forms.len();
    let mut rig = rig(Version::V5, cases).await;
    let tries = Mutex::new(HashMap::<usize, u32>::new());
    rig.config.port = cloud(
        |_| ACCEPT_V5.to_vec(),
        move |publish| {
            let case = odd_case(publish)?;
            let code = u8::try_from(case / forms.len()).unwrap();
            let mut tries = tries.lock().unwrap();
            let tries = tries.entry(case).or_default();
            *tries += 1;
            // For now: the second time it is taken.
            let code = if matches!(code, 0x91 | 0x97) && *tries > 1 { 0 } else { code };
            Some(packet(
                0x40,
                &[&publish.id.to_be_bytes(), &[code][..], forms[case % forms.len()]].concat(),
            ))
        },
    )
    .await;
    rig.start();
    let (mut taken, mut waits, mut dies) = (0, BTreeSet::new(), BTreeMap::<&str, u64>::new());
    for case in 0..cases {
        append(&mut rig, case, ODD);
        match u8::try_from(case / forms.len()).unwrap() {
            0x00 | 0x10 | 0x91 | 0x97 => taken += 1,
            0x90 => *dies.entry("topic-refused").or_default() += 1,
            0x95 => *dies.entry("packet-too-large").or_default() += 1,
            0x99 => *dies.entry("payload-refused").or_default() += 1,
            _ => drop(waits.insert(name(case))),
        }
    }
    rig.publish("other", 20);
    rig.until("all that waits is suspended", |rig| {
        suspended(rig).len() == waits.len() && rig.waiting() == waits.len() as u64
    })
    .await;
    assert_eq!(suspended(&rig), waits);
    assert_eq!(dead(&rig), dies);
    assert_eq!(rig.delivered(), taken + 20);
    assert_eq!(
        rig.handle().stats().connects.load(Ordering::Relaxed),
        1,
        "no code costs the connection"
    );
}

/// What becomes of a record at which the cloud says goodbye with this code. The first is the sender's own affair by its name.
fn fate_of_disconnect(code: u8) -> Fate {
    match code {
        0x87 => Fate::Suspended,
        0x90 => Fate::Dead("topic-refused"),
        0x95 => Fate::Dead("packet-too-large"),
        0x99 => Fate::Dead("payload-refused"),
        0x81 | 0x82 | 0x9A | 0x9B => Fate::Dead("message-refused"),
        // The cloud's own: taken over, stops, moves, busy, a quota.
        0x89 | 0x8B | 0x8D | 0x8E | 0x96..=0x98 | 0x9C | 0x9D | 0x9F | 0xA0 => Fate::Suspended,
        _ => Fate::Dead("peer-closes"),
    }
}

#[tokio::test]
async fn every_code_of_a_disconnect_ends_and_the_line_goes_on() {
    let mut rig = rig(Version::V5, 256).await;
    // Each code in one of the forms; that they are read alike is for the units of the tap to show.
    let answer = |case: usize| packet(0xE0, &[&[u8::try_from(case).unwrap()], forms()[case % 3]].concat());
    rig.config.port = cloud(|_| ACCEPT_V5.to_vec(), move |publish| Some(answer(odd_case(publish)?))).await;
    rig.start();
    let fates = one_by_one(&mut rig, 256).await;
    for (code, fate) in (0..=0xFF).zip(fates) {
        assert_eq!(fate, fate_of_disconnect(code), "{code:#04x}");
    }
}

/// How a CONNACK with this code is counted.
fn label_of_connack(code: u8) -> &'static str {
    match code {
        0x02 | 0x04 | 0x05 | 0x85 | 0x86 | 0x87 | 0x8A | 0x8C => "denied",
        0x03 | 0x88 | 0x89 | 0x97 | 0x9F => "busy",
        0x9C | 0x9D => "server_shutdown",
        _ => "protocol",
    }
}

#[tokio::test]
async fn every_code_of_a_connack_is_named_and_tried_again() {
    for version in [Version::V5, Version::V311] {
        let forms = match version {
            Version::V5 => forms().to_vec(),
            Version::V311 => vec![&b""[..]],
        };
        let refusals: Vec<_> = (1..=0xFF_u8)
            .flat_map(|code| forms.iter().map(move |form| packet(0x20, &[&[0, code], *form].concat())))
            .collect();
        let mut expected = BTreeMap::<&str, u64>::new();
        for code in 1..=0xFF {
            *expected.entry(label_of_connack(code)).or_default() += forms.len() as u64;
        }
        let mut rig = rig(version, 0).await;
        let connack = move |nth| refusals.get(nth).cloned().unwrap_or_else(|| accept(version).to_vec());
        rig.config.port = cloud(connack, |_| None).await;
        rig.publish("d1", 3);
        rig.start();
        rig.drained().await;
        let ended = rig.handle().stats().reconnects().filter(|(_, count)| *count > 0);
        assert_eq!(
            ended.map(|(ended, count)| (ended.label(), count)).collect::<BTreeMap<_, _>>(),
            expected
        );
    }
}

#[tokio::test]
async fn a_connack_that_cannot_be_used_is_named_at_once_and_tried_again() {
    for (version, connack, said) in [
        (Version::V5, &b"\x20\x02\x00\x00"[..], "choose version 3.1.1"),
        (Version::V5, b"\x20\x06\x00\x00\x03\x21\x00\x00", "Receive Maximum of 0"),
        (
            Version::V5,
            b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x10",
            "Maximum Packet Size of 16",
        ),
        (Version::V5, b"\x20\x06\x00\x00\x03\x1f\x00\x09", "malformed properties"),
        (Version::V5, b"\x20\x05\x00\x00\x02\xff\x00", "malformed properties"),
        (Version::V5, b"\x20\x04\x00\x00\x7f\x24", "wrong length"),
        (Version::V5, b"\x20\x01\x00", "without a code"),
        (Version::V311, b"\x20\x00", "without a code"),
        (Version::V5, b"\xd0\x00", "another packet"),
        (Version::V5, b"\x90\x03\x00\x01\x00", "another packet"),
        (Version::V311, b"\xe0\x00", "another packet"),
        (Version::V311, b"HTTP/1.1 400 Bad Request\r\n\r\n", "another packet"),
    ] {
        let mut rig = rig(version, 0).await;
        let accept = accept(version);
        rig.config.port = cloud(move |nth| if nth == 0 { connack } else { accept }.to_vec(), |_| None).await;
        rig.publish("d1", 1);
        rig.start();
        rig.until("named", |rig| rig.status().last_error.is_some()).await;
        let text = rig.status().last_error.unwrap().text;
        assert!(text.contains(said), "{connack:02x?}: {text}");
        rig.drained().await;
    }
}

/// Answers for which nothing asked, and the fate of the record that causes them; an ack follows those that mean nothing.
fn unasked(version: Version) -> Vec<(Vec<u8>, Fate)> {
    let dies = || Fate::Dead("peer-closes");
    let mut answers = Vec::new();
    // All but PUBLISH, PUBACK and PINGRESP, and DISCONNECT where that has codes.
    for kind in [0_u8, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15] {
        if kind == 14 && version == Version::V5 {
            continue;
        }
        for body in [&b""[..], b"\x00\x01", b"\x00\x01\x00", b"\x00\x01\x87", b"\x00\x01\x97\x00"] {
            answers.push((packet(kind << 4, body), dies()));
        }
    }
    for code in [0x00, 0x10, 0x80, 0x87, 0x97, 0xFF] {
        if version == Version::V311 {
            answers.push((packet(0x40, &[0, 1, code]), dies()));
        }
        answers.push((packet(0x40, &[0xFF, 0xFE, code]), dies()));
    }
    for malformed in [
        &b"\x41\x02\x00\x01"[..],
        b"\x40\x01\x00",
        b"\x40\x02\x00\x00",
        b"\xff\xff\xff\xff\xff\xff",
        b"\x36\x02\x00\x01",
    ] {
        answers.push((malformed.to_vec(), dies()));
    }
    // A part of a packet, in which all later acks are lost.
    for cut in [&b"\x30\xff\xff\x03"[..], b"\x30\xff", b"\x30\xff\xff\x03\x00\x01"] {
        answers.push((cut.to_vec(), Fate::Suspended));
    }
    let publish: &[u8] = if version == Version::V5 {
        b"\x30\x05\x00\x01t\x00x"
    } else {
        b"\x30\x04\x00\x01tx"
    };
    for harmless in [&b"\xd0\x00"[..], publish] {
        answers.push((harmless.to_vec(), Fate::Delivered));
    }
    answers
}

async fn unasked_answers(version: Version) {
    let answers = unasked(version);
    let cases = answers.len();
    let mut rig = rig(version, cases).await;
    let expected: Vec<_> = answers.iter().map(|(_, fate)| fate.clone()).collect();
    let connack = accept(version).to_vec();
    rig.config.port = cloud(
        move |_| connack.clone(),
        move |publish| {
            let (answer, fate) = &answers[odd_case(publish)?];
            let ack = packet(0x40, &publish.id.to_be_bytes());
            Some(if *fate == Fate::Delivered {
                [answer.as_slice(), &ack].concat()
            } else {
                answer.clone()
            })
        },
    )
    .await;
    rig.start();
    let fates = one_by_one(&mut rig, cases).await;
    for (case, (fate, expected)) in fates.into_iter().zip(expected).enumerate() {
        assert_eq!(fate, expected, "{:02x?}", unasked(version)[case].0);
    }
}

#[tokio::test]
async fn a_packet_for_which_nothing_asked_on_5_costs_the_message_that_causes_it() {
    unasked_answers(Version::V5).await;
}

#[tokio::test]
async fn a_packet_for_which_nothing_asked_on_3_1_1_costs_the_message_that_causes_it() {
    unasked_answers(Version::V311).await;
}

/// xorshift64*, so that a failure replays from its seed.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
}

/// Random bytes, or a valid answer of which some bytes are changed or missing.
fn noise(seed: u64, id: u16) -> Vec<u8> {
    let mut seed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    if random(&mut seed).is_multiple_of(2) {
        let length = 1 + random(&mut seed) % 40;
        return (0..length).map(|_| random(&mut seed) as u8).collect();
    }
    let [high, low] = id.to_be_bytes();
    let valid: [&[u8]; 5] = [
        &[0x40, 2, high, low],
        &[0x40, 9, high, low, 0x97, 5, 0x1F, 0, 2, b'n', b'o'],
        &[0xE0, 7, 0x90, 5, 0x1F, 0, 2, b'n', b'o'],
        &[0x30, 5, 0, 1, b't', 0, b'x'],
        &[0x32, 7, 0, 1, b't', 0, 7, 0, b'x'],
    ];
    let mut bytes = valid[random(&mut seed) as usize % valid.len()].to_vec();
    let at = random(&mut seed) as usize % bytes.len();
    bytes[at] = random(&mut seed) as u8;
    if random(&mut seed).is_multiple_of(2) {
        bytes.truncate(1 + random(&mut seed) as usize % bytes.len());
    }
    bytes
}

async fn noises(version: Version) {
    let rounds = std::env::var("FOREBAY_SEEDS").map_or(6, |rounds| rounds.parse().unwrap());
    let mut rig = rig(version, rounds).await;
    let connack = accept(version).to_vec();
    rig.config.port = cloud(
        move |_| connack.clone(),
        // Refused for now again and again would be an end too, but one that takes long.
        move |publish| Some(noise(odd_case(publish)? as u64, publish.id)).filter(|bytes| bytes.get(4) != Some(&0x97)),
    )
    .await;
    rig.start();
    // Each ends, and the line goes on; which end it is, the bytes say.
    one_by_one(&mut rig, rounds).await;
}

#[tokio::test]
async fn any_bytes_on_5_cost_at_most_the_message_that_causes_them() {
    noises(Version::V5).await;
}

#[tokio::test]
async fn any_bytes_on_3_1_1_cost_at_most_the_message_that_causes_them() {
    noises(Version::V311).await;
}
