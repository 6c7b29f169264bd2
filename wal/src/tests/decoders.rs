//! The decoders against good and bad bytes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proptest::prelude::*;

use crate::catalog::catalogue::Catalogue;
use crate::clock::marks::Mark;
use crate::clock::{BootId, Timestamp};
use crate::encoding::block::{self, Block, HEADER, INDEX, NewBlock};
use crate::encoding::change::{Change, Count, Range};
use crate::encoding::entry::{Entry, RawBlock};
use crate::encoding::record;
use crate::encoding::row::{Row, RowKind, decode_row, decode_row_at, encode_row};
use crate::progress::gauges::Gauges;
use crate::progress::stream::{Outcome, Outstanding};
use crate::progress::tracker::Tracker;
use crate::record::{Epoch, NewRecord, Offset, Partition, RecordId, StreamId};
use crate::stats::Stats;

fn record<'a>(identity: &'a str, topic: &'a str, payload: &'a [u8], expiry: Option<u32>) -> NewRecord<'a> {
    let received = Timestamp {
        wall_ms: 0x0102_0304_0506,
        boot: BootId(0xA0),
        monotonic_ms: 9,
        trusted: true,
    };
    NewRecord {
        stream: StreamId(3),
        received,
        identity,
        route: "r",
        topic,
        payload,
        qos: 2,
        retain: true,
        expiry,
        properties: &[0xEE],
    }
}

fn raw(first: u64, until: u64, bytes: Vec<u8>) -> RawBlock {
    RawBlock {
        first,
        until,
        bytes: Bytes::from(bytes),
    }
}

fn block_of(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut entries = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        let at = data.len() as u32;
        let len = record::encode(&record("dev", "t", payload, None), 100 + n as u64, 7, None, &mut data) as u32;
        entries.push(Entry {
            partition: Partition::of("dev").index() as u8,
            slot: 7,
            at,
            len,
        });
    }
    let block = NewBlock::Dense {
        key: (3, 100),
        data: &data,
        entries: &entries,
    };
    block.to_vec()
}

#[test]
fn a_record_lies_on_disk_byte_by_byte_as_documented() {
    let mut out = Vec::new();
    let origin = RecordId {
        epoch: Epoch(5),
        stream: StreamId(6),
        offset: Offset(7),
    };
    record::encode(&record("id", "top", b"pay", Some(60)), 1, 2, Some(origin), &mut out);
    let mut expected = Vec::new();
    expected.extend_from_slice(&(out.len() as u32).to_le_bytes());
    expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 3, 0b11_1110, 2, 0, 0, 0, 6, 5, 4, 3, 2, 1, 0, 0, 0xA0]);
    expected.extend_from_slice(&[0; 15]);
    expected.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 3, 0, 1, 0, 0, 0, 60, 0, 0, 0]);
    expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 6, 7, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(b"idrtop\xEEpay");
    assert_eq!(out[4..], expected);
    assert_eq!(out[..4], crc32c::crc32c(&expected).to_le_bytes());
    let view = record::decode(&out).unwrap();
    assert_eq!(
        (view.identity, view.topic, view.payload, view.origin, view.expiry),
        ("id", "top", &b"pay"[..], Some(origin), Some(60))
    );
}

#[test]
fn blocks_fill_their_pages() {
    for count in [1_usize, 5, 13, 60, 500, 3000] {
        let runs = block::cut(&vec![300; count], 0);
        assert_eq!(runs.iter().sum::<usize>(), count);
        for (nth, run) in runs.iter().enumerate() {
            let size = HEADER + run * 300;
            let pages = (0..=4).map(|k| (4096 << k) - 64).find(|limit| size <= *limit).unwrap();
            let last = nth + 1 == runs.len();
            assert!(
                last || size + 300 > pages,
                "{count} records: block {nth} of {size} bytes wastes its run of {pages}"
            );
        }
    }
    assert_eq!(
        block::cut(&[10, 200_000, 10], 0),
        [1, 1, 1],
        "a record larger than a block is a block of its own"
    );
    assert!(block::cut(&[], 0).is_empty());
    // With 1000 bytes beside it the first block fills its run all the same.
    assert_eq!(block::cut(&[300; 13], 1000), [10, 3]);
    assert_eq!(block::cut(&[300; 60], 1000)[0], (4 * 4096 - 64 - 1000 - HEADER) / 300);
}

#[test]
fn a_damaged_index_costs_only_what_is_damaged_with_it() {
    let mut bytes = block_of(&[vec![1; 50], vec![2; 50], vec![3; 50]]);
    bytes[HEADER] ^= 1;
    let found = Block::parse(raw(100, 103, bytes.clone()));
    assert_eq!((0..3).filter(|nth| found.record(*nth).is_some()).count(), 3);
    let second = HEADER + 3 * INDEX + found.entries[0].len as usize;
    bytes[second + 70] ^= 1;
    let found = Block::parse(raw(100, 103, bytes.clone()));
    assert!(found.is_unsure);
    let offsets: Vec<u64> = (0..2).map(|nth| found.record(nth).unwrap().offset).collect();
    assert_eq!((offsets, found.entries.len()), (vec![100, 102], 2));
    bytes[HEADER] ^= 1;
    let found = Block::parse(raw(100, 103, bytes));
    assert!(!found.is_unsure);
    let readable: Vec<bool> = (0..3).map(|nth| found.record(nth).is_some()).collect();
    assert_eq!(readable, [true, false, true]);
}

#[test]
fn a_sparse_block_keeps_offsets_and_records() {
    let dense = Block::parse(raw(100, 103, block_of(&[vec![1; 50], vec![2; 60], vec![3; 70]])));
    let kept: Vec<_> = [0, 2]
        .into_iter()
        .map(|nth| (dense.offset(nth), dense.entries[nth], dense.stored(nth).unwrap()))
        .collect();
    let bytes = block::build_sparse(3, &kept).to_vec();
    assert_eq!(
        bytes.len(),
        HEADER + kept.iter().map(|kept| block::sparse_cost(kept.1)).sum::<usize>()
    );
    let sparse = Block::parse(raw(100, 500, bytes.clone()));
    assert_eq!((sparse.offset(1), sparse.position(102), sparse.position(101)), (102, Some(1), None));
    for (nth, payload) in [(0, vec![1; 50]), (1, vec![3; 70])] {
        assert_eq!(sparse.record(nth).unwrap().payload, payload.as_slice());
    }
    for bit in 0..(HEADER + 26) * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let found = Block::parse(raw(100, 500, damaged));
        let offsets: Vec<u64> = (0..found.entries.len()).filter_map(|nth| Some(found.record(nth)?.offset)).collect();
        assert_eq!(offsets, [100, 102], "bit {bit} of the index");
    }
}

fn changes() -> Vec<Change> {
    let mut up_to = Box::new([500; Partition::COUNT]);
    up_to[3] = 7;
    up_to[63] = 8;
    vec![
        Change::Epoch { epoch: 42 },
        Change::Stream {
            stream: 1,
            name: "alarms".into(),
        },
        Change::Segment { segment: 9, epoch: 42 },
        Change::Appended {
            segment: 9,
            stream: 1,
            first: 5,
            end: 10,
            records: 5,
            bytes: 500,
        },
        Change::Settled {
            segment: 9,
            stream: 1,
            records: 2,
            bytes: 200,
        },
        Change::Next { stream: 1, next: 12 },
        Change::Floor { stream: 1, floor: 6 },
        Change::Progress { stream: 1, up_to },
        Change::Slot {
            slot: 2,
            identity: "device".into(),
        },
        Change::Ledger {
            slot: 2,
            count: Count::Damaged,
            by: 3,
        },
        Change::Suspend {
            stream: 1,
            from: 5,
            next: 6,
            until: u64::MAX,
            route: "r".into(),
            identity: "i".into(),
        },
        Change::Suspend {
            stream: 1,
            from: 7,
            next: 8,
            until: 9,
            route: "r".into(),
            identity: "i".into(),
        },
        Change::Resume {
            stream: 1,
            from: 5,
            route: "r".into(),
            identity: "i".into(),
        },
        Change::DropSegment { segment: 8 },
        Change::Removed {
            stream: 1,
            first: 7,
            end: 9,
        },
        Change::Compacted {
            stream: 1,
            from: 0,
            to: 9,
            range: Range {
                first: 1,
                end: 3,
                epoch: 41,
            },
            records: 0,
            bytes: 0,
        },
        Change::Trusted {
            at: Timestamp {
                wall_ms: 1,
                boot: BootId(2),
                monotonic_ms: 3,
                trusted: true,
            },
        },
        // As a segment begins after a failed write: no mark.
        Change::Next { stream: 1, next: 12 },
        Change::Mark(Mark {
            at: Timestamp {
                wall_ms: 4,
                boot: BootId(5),
                monotonic_ms: 6,
                trusted: true,
            },
            next: vec![(0, 7), (1, 9)],
        }),
    ]
}

#[test]
fn a_snapshot_leads_to_the_same_state_as_the_changes_it_stands_for() {
    let row = Row {
        kind: RowKind::Delta,
        number: 77,
        changes: changes(),
    };
    let bytes = encode_row(RowKind::Delta, 77, &changes());
    assert_eq!(decode_row(&bytes), Some(row.clone()));
    let shifted = [&[9; 5], bytes.as_slice(), &[9; 30]].concat();
    assert_eq!(decode_row_at(&shifted, 5), Some((row, bytes.len())));
    assert!(record::decode_at(&bytes, 0).is_none(), "a row is no record");
    let mut state = Catalogue::default();
    changes().iter().for_each(|change| state.apply(change));
    assert_eq!(
        (state.waiting(1), state.streams[0].next, state.suspensions.len()),
        ((3, 300), 12, 1)
    );
    let mut again = Catalogue::default();
    let snapshot = decode_row(&encode_row(RowKind::Snapshot, 1, &state.snapshot())).unwrap();
    snapshot.changes.iter().for_each(|change| again.apply(change));
    assert_eq!(again, state);
}

proptest! {
    #[test]
    fn every_record_is_read_back_as_it_was_written(
        identity in ".{0,40}", topic in ".{0,80}", payload in proptest::collection::vec(any::<u8>(), 0..2000), expiry in any::<Option<u32>>(),
    ) {
        let written = record(&identity, &topic, &payload, expiry);
        let mut out = Vec::new();
        let len = record::encode(&written, 11, 12, None, &mut out);
        prop_assert_eq!(len, out.len());
        let view = record::decode(&out).unwrap();
        prop_assert_eq!((view.identity, view.topic, view.payload, view.expiry), (identity.as_str(), topic.as_str(), payload.as_slice(), expiry));
        prop_assert_eq!((view.offset, view.slot, view.received, view.qos, view.retain), (11, 12, written.received, 2, true));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), until in 0_u64..200) {
        prop_assert!(record::decode(&bytes).is_none());
        prop_assert!(decode_row(&bytes).is_none());
        let block = Block::parse(raw(100, until, bytes));
        prop_assert!((0..block.entries.len()).all(|nth| block.record(nth).is_none()));
    }

    #[test]
    fn a_flipped_bit_is_never_served(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let payloads: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 60]).collect();
        let mut bytes = block_of(&payloads);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let block = Block::parse(raw(100, 105, bytes));
        let mut damaged = 0;
        for (nth, payload) in payloads.iter().enumerate() {
            match block.position(100 + nth as u64).and_then(|nth| block.record(nth)) {
                Some(view) => prop_assert_eq!(view.payload, payload.as_slice()),
                None => damaged += 1,
            }
        }
        prop_assert!(damaged <= 1);
    }

    #[test]
    fn a_damaged_row_of_the_state_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut row = encode_row(RowKind::Delta, 1, &changes());
        let at = at.index(row.len());
        row[at] ^= 1 << bit;
        prop_assert!(decode_row(&row).is_none());
    }

    #[test]
    fn a_row_with_a_right_checksum_and_wrong_content_does_not_panic(mut body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut head = (body.len() as u32 + 18).to_le_bytes().to_vec();
        head.extend_from_slice(&[2, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        body.splice(0..0, head);
        let mut row = crc32c::crc32c_append(crc32c::crc32c(b"row"), &body).to_le_bytes().to_vec();
        row.extend_from_slice(&body);
        if let Some(row) = decode_row(&row) {
            let mut state = Catalogue::default();
            row.changes.iter().for_each(|change| state.apply(change));
        }
    }
}

#[test]
fn what_could_not_be_read_before_a_suspension_is_not_charged_but_counted_again() {
    let mut state = Catalogue::default();
    state.apply(&Change::Stream {
        stream: 1,
        name: "main".into(),
    });
    let mut tracker = Tracker::new(&state, Arc::new(Gauges::new()), Arc::new(Stats::default()));
    let partition = Partition::of("d").index() as u8;
    let unreadable = |segment| Outstanding {
        partition,
        slot: 1,
        cost: 100,
        segment,
        pair: 0,
        received: None,
        settled: Some(Outcome::Damaged),
        suspended: false,
    };
    let waiting = Outstanding {
        settled: None,
        ..unreadable(3)
    };
    tracker.register(1, 4, waiting);
    tracker.register(1, 5, unreadable(3));
    tracker.register(1, 8, unreadable(4));
    assert_eq!(tracker.stats.damaged.load(Ordering::Relaxed), 2);
    // From 6 on: the one at 5 is none of its records.
    assert_eq!(tracker.suspend(1, "r", "d", 6), Some(BTreeSet::from([4])));
    assert_eq!(tracker.suspend(1, "r", "d", 6), None, "it is suspended already");
    assert_eq!(tracker.stats.damaged.load(Ordering::Relaxed), 1);
    assert!(tracker.settle(1, 4, Outcome::Delivered));
    let (changes, _) = tracker.collect(&state);
    let charged = |change: &&Change| matches!(change, Change::Ledger { count: Count::Damaged, .. });
    let charged: Vec<_> = changes.iter().filter(charged).collect();
    let once = Change::Ledger {
        slot: 1,
        count: Count::Damaged,
        by: 1,
    };
    assert_eq!(charged, [&once]);
}
