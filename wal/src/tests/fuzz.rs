//! The decoders against mutants of a corpus: what the log writes, and damaged forms of it that once were trouble.
//!
//! ```sh
//! FOREBAY_FUZZ=1000000 cargo test -p forebay-wal mutants        # more of them
//! FOREBAY_BLESS=1 cargo test -p forebay-wal corpus              # writes the files of `tests/corpus` anew
//! ```
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use crate::catalog::catalogue::Catalogue;
use crate::clock::{BootId, Timestamp};
use crate::encoding::block::{self, Block, NewBlock};
use crate::encoding::change::{Change, Count, Range};
use crate::encoding::dead_letter::DeadLetter;
use crate::encoding::entry::{Entry, RawBlock};
use crate::encoding::record;
use crate::encoding::row::{RowKind, decode_row, decode_row_at, encode_row};
use crate::encoding::scan::{Scan, Wanted};
use crate::record::{Epoch, NewRecord, Offset, Partition, Record, RecordId, StreamId};

const FIRST: u64 = 700;

fn corpus_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn record(identity: &str, payload: &[u8], offset: u64, origin: Option<RecordId>, out: &mut Vec<u8>) -> usize {
    let new = NewRecord {
        stream: StreamId(1),
        received: Timestamp {
            wall_ms: 1_790_000_000_000,
            boot: BootId(0xb007),
            monotonic_ms: 12_345,
            trusted: true,
        },
        identity,
        route: "telemetry",
        topic: "devices/board-1/telemetry/env",
        payload,
        qos: 1,
        retain: origin.is_some(),
        expiry: origin.map(|_| 3600),
        properties: b"\x03\x00\x04json",
    };
    record::encode(&new, offset, 3, origin, out)
}

/// What each file of the corpus holds.
fn corpus() -> BTreeMap<&'static str, Vec<u8>> {
    let origin = RecordId {
        epoch: Epoch(0xe0),
        stream: StreamId(1),
        offset: Offset(17),
    };
    let (mut data, mut entries) = (Vec::new(), Vec::new());
    for nth in 0..6 {
        let at = data.len() as u32;
        let len = record(
            "board-1",
            &vec![nth; 40 + usize::from(nth) * 20],
            FIRST + u64::from(nth),
            None,
            &mut data,
        ) as u32;
        let partition = Partition::of("board-1").index() as u8;
        entries.push(Entry {
            partition,
            slot: 3,
            at,
            len,
        });
    }
    let slice = |entry: &Entry| &data[entry.at as usize..(entry.at + entry.len) as usize];
    let some: Vec<_> = [0, 2, 5]
        .into_iter()
        .map(|nth: usize| (FIRST + nth as u64, entries[nth], slice(&entries[nth])))
        .collect();
    let mut lone = Vec::new();
    record("board-1", b"{\"t\":21.5}", FIRST, Some(origin), &mut lone);
    let mut dead = Vec::new();
    let buffer = Bytes::copy_from_slice(slice(&entries[1]));
    let letter = record::decode(&buffer).unwrap().to_record(&buffer, Epoch(1));
    crate::encoding::dead_letter::encode(&letter, "topic-too-long", "shorten it", 4, &mut dead);
    let mut state = Catalogue::default();
    changes().iter().for_each(|change| state.apply(change));
    let dense = NewBlock::Dense {
        key: (1, FIRST),
        data: &data,
        entries: &entries,
    };
    BTreeMap::from([
        ("record", lone),
        ("dense-block", dense.to_vec()),
        ("sparse-block", block::build_sparse(1, &some).to_vec()),
        ("delta", encode_row(RowKind::Delta, 9, &changes())),
        ("snapshot", encode_row(RowKind::Snapshot, 10, &state.snapshot())),
        ("dead-letter", dead),
    ])
}

fn changes() -> Vec<Change> {
    let range = Range {
        first: 3,
        end: 9,
        epoch: 7,
    };
    vec![
        Change::Epoch { epoch: 7 },
        Change::Stream {
            stream: 1,
            name: "telemetry".into(),
        },
        Change::Segment { segment: 2, epoch: 7 },
        Change::Appended {
            segment: 2,
            stream: 1,
            first: 10,
            end: 20,
            records: 10,
            bytes: 4000,
        },
        Change::Compacted {
            stream: 1,
            from: 0,
            to: 2,
            range,
            records: 0,
            bytes: 0,
        },
        Change::Ledger {
            slot: 1,
            count: Count::Accepted,
            by: 10,
        },
        Change::Slot {
            slot: 1,
            identity: "board-1".into(),
        },
        Change::Removed {
            stream: 1,
            first: 4,
            end: 5,
        },
        Change::Progress {
            stream: 1,
            up_to: Box::new([12; Partition::COUNT]),
        },
    ]
}

/// Everything that reads bytes from the disk looks at these.
fn decode_all(bytes: &[u8], known: &BTreeMap<&str, Vec<u8>>) {
    let is_known = || known.values().any(|file| file == bytes);
    assert!(
        record::decode(bytes).is_none() || is_known(),
        "a damaged record is served: {bytes:02x?}"
    );
    if let Some(row) = decode_row(bytes) {
        assert!(is_known(), "a damaged row is believed: {bytes:02x?}");
        let mut state = Catalogue::default();
        row.changes.iter().for_each(|change| state.apply(change));
    }
    let raw = RawBlock {
        first: FIRST,
        until: FIRST + 100,
        bytes: Bytes::copy_from_slice(bytes),
    };
    let parsed = Block::parse(raw);
    let whole: Vec<&[u8]> = ["dense-block", "record"]
        .iter()
        .filter_map(|name| known.get(name))
        .map(Vec::as_slice)
        .collect();
    for nth in 0..parsed.entries.len() {
        assert!(parsed.offset(nth) >= FIRST);
        if parsed.record(nth).is_some() {
            let stored = parsed.stored(nth).unwrap();
            let is_as_written = |file: &&[u8]| file.windows(stored.len()).any(|window| window == stored);
            assert!(whole.iter().any(is_as_written), "a record is served that was never written");
        }
    }
    block::is_misplaced(bytes, (1, FIRST));
    for at in 0..bytes.len().min(64) {
        record::decode_at(bytes, at);
        decode_row_at(bytes, at);
    }
    let wanted = Wanted {
        record: &|_, _| true,
        rows: true,
        by_blocks: true,
    };
    Scan::new(bytes, bytes.len(), wanted).for_each(drop);
    let as_payload = Record {
        id: RecordId {
            epoch: Epoch(1),
            stream: StreamId::DEAD,
            offset: Offset(1),
        },
        stream: StreamId::DEAD,
        offset: Offset(1),
        partition: Partition::of(""),
        received: crate::clock::Clock::now(&crate::testing::ManualClock::trusted()),
        identity: String::new(),
        route: String::new(),
        topic: String::new(),
        payload: Bytes::copy_from_slice(bytes),
        qos: 0,
        retain: false,
        expiry: None,
        properties: Bytes::new(),
    };
    drop(DeadLetter::open(&as_payload));
}

fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut crate::tests::sim::Rng) {
    let at = rng.below(bytes.len().max(1) as u64) as usize;
    if bytes.is_empty() {
        return;
    }
    match rng.below(7) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
        2 => bytes.truncate(at),
        3 => drop(bytes.remove(at)),
        4 => bytes.insert(at, rng.next() as u8),
        5 => {
            let end = (at + 8).min(bytes.len());
            bytes[at..end].fill(0xff);
        }
        _ => {
            if let Some(other) = rng.pick(others) {
                let from = rng.below(other.len() as u64) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[test]
fn the_corpus_is_what_this_version_writes() {
    for (name, bytes) in corpus() {
        let path = corpus_folder().join(format!("{name}.bin"));
        if std::env::var_os("FOREBAY_BLESS").is_some() {
            fs::create_dir_all(corpus_folder()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{}: the format has changed", path.display());
    }
}

#[test]
fn mutants_of_the_corpus_are_never_served_and_never_a_panic() {
    let known = corpus();
    let mut files: Vec<Vec<u8>> = fs::read_dir(corpus_folder())
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    files.sort();
    assert!(files.len() >= known.len());
    let mutants: u64 = std::env::var("FOREBAY_FUZZ").map_or(20_000, |count| count.parse().unwrap());
    let mut rng = crate::tests::sim::Rng::new(20_261_126);
    for _ in 0..mutants {
        let mut mutant = rng.pick(&files).unwrap().clone();
        for _ in 0..=rng.below(3) {
            mutate(&mut mutant, &files, &mut rng);
        }
        decode_all(&mutant, &known);
    }
}
