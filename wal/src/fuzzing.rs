//! The decoders of the log as one function for `fuzz/`. Not part of the crate's API.

use bytes::Bytes;

use crate::catalog::catalogue::Catalogue;
use crate::clock::Clock;
use crate::encoding::block::{self, Block, HEADER, INDEX};
use crate::encoding::dead_letter::{self, DeadLetter};
use crate::encoding::entry::RawBlock;
use crate::encoding::record::{self, FIXED, View};
use crate::encoding::row::{self, ROW_HEAD, decode_row, decode_row_at, encode_row};
use crate::encoding::scan::{Scan, Wanted};
use crate::record::{Epoch, NewRecord, Offset, Partition, Record, RecordId, StreamId};
use crate::testing::ManualClock;

/// The offset at which every block is read.
const FIRST: u64 = 700;

/// What is to be read, and whether its length and checksum are made right first: mutants would never get past them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes as a damaged disk gives them, to every decoder.
    Raw,
    /// A record with a right checksum.
    Record,
    /// A row of the catalogue with a right checksum.
    Row,
    /// A block whose header has a right checksum.
    Block,
    /// The envelope of a dead letter.
    DeadLetter,
}

/// 1. Nothing panics.
/// 2. What is decoded can be encoded, and decodes to the same.
/// 3. Changes that are decoded can be applied, and the state's snapshot decodes to itself.
/// 4. What a block yields lies within it.
/// 5. Of what is decoded, no bit can be changed without being noticed.
///
/// # Panics
/// When one of these does not hold.
pub fn decode(input: Input, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    match input {
        Input::Raw => raw(&bytes),
        Input::Record => {
            seal(&mut bytes, FIXED, crc32c::crc32c);
            record(&bytes);
        }
        Input::Row => {
            seal(&mut bytes, ROW_HEAD, row::checksum);
            row(&bytes);
        }
        Input::Block => {
            seal_block(&mut bytes);
            block(&bytes);
        }
        Input::DeadLetter => dead_letter(&bytes),
    }
}

fn raw(bytes: &[u8]) {
    record(bytes);
    row(bytes);
    block(bytes);
    dead_letter(bytes);
    for at in 0..bytes.len().min(64) {
        let _ = record::decode_at(bytes, at);
        let _ = decode_row_at(bytes, at);
    }
    let wanted = Wanted {
        record: &|_, _| true,
        rows: true,
        by_blocks: true,
    };
    Scan::new(bytes, bytes.len(), wanted).for_each(drop);
}

/// Writes the length and then the checksum over all behind it.
fn seal(bytes: &mut Vec<u8>, least: usize, checksum: fn(&[u8]) -> u32) {
    bytes.resize(bytes.len().max(least), 0);
    let len = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A dense block of as many records as there is room for index lines, up to what its count says.
fn seal_block(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().max(HEADER), 0);
    bytes[4] = 1 + bytes[4] % 2;
    let line = if bytes[4] == 1 { INDEX } else { INDEX + 4 };
    let room = (bytes.len() - HEADER) / line;
    let count = usize::from(u16::from_le_bytes([bytes[6], bytes[7]])).min(room);
    bytes[6..8].copy_from_slice(&(count as u16).to_le_bytes());
    bytes[8..16].copy_from_slice(&FIRST.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[4..HEADER + count * line]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

fn record(bytes: &[u8]) {
    let buffer = Bytes::copy_from_slice(bytes);
    let Some(view) = record::decode(&buffer) else { return };
    let again = encoded(&view);
    assert_eq!(record::decode(&again), Some(view));
    let _ = view.to_record(&buffer, Epoch(1));
    notices_changes(bytes, |bytes| record::decode(bytes).is_some());
}

/// The checksum is the only guard against a disk that returns wrong bytes.
fn notices_changes(bytes: &[u8], is_decoded: impl Fn(&[u8]) -> bool) {
    for at in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        let mut wrong = bytes.to_vec();
        wrong[at] ^= 1;
        assert!(!is_decoded(&wrong), "a changed bit at {at} was not noticed");
    }
}

fn encoded(view: &View<'_>) -> Vec<u8> {
    let new = NewRecord {
        stream: view.stream,
        received: view.received,
        identity: view.identity,
        route: view.route,
        topic: view.topic,
        payload: view.payload,
        qos: view.qos,
        retain: view.retain,
        expiry: view.expiry,
        properties: view.properties,
    };
    let mut out = Vec::new();
    record::encode(&new, view.offset, view.slot, view.origin, &mut out);
    out
}

fn row(bytes: &[u8]) {
    let Some(row) = decode_row(bytes) else { return };
    assert_eq!(decode_row(&encode_row(row.kind, row.number, &row.changes)).as_ref(), Some(&row));
    notices_changes(bytes, |bytes| decode_row(bytes).is_some());
    let mut state = Catalogue::default();
    row.changes.iter().for_each(|change| state.apply(change));
    let snapshot = state.snapshot();
    let encoded = encode_row(row.kind, row.number, &snapshot);
    assert_eq!(decode_row(&encoded).map(|row| row.changes), Some(snapshot));
}

fn block(bytes: &[u8]) {
    let block = Block::parse(RawBlock {
        first: FIRST,
        until: FIRST + 100,
        bytes: Bytes::copy_from_slice(bytes),
    });
    for nth in 0..block.entries.len() {
        assert!(block.offset(nth) >= FIRST);
        if block.record(nth).is_some() {
            assert!(block.stored(nth).is_some_and(|stored| stored.len() >= FIXED));
        }
    }
    let _ = block.position(FIRST + 1);
    let _ = block::is_whole(bytes);
    let _ = block::is_misplaced(bytes, (1, FIRST));
}

/// `bytes` as the payload of a record of the stream of dead letters.
fn dead_letter(bytes: &[u8]) {
    let mut record = Record {
        id: RecordId {
            epoch: Epoch(1),
            stream: StreamId::DEAD,
            offset: Offset(1),
        },
        stream: StreamId::DEAD,
        offset: Offset(1),
        partition: Partition::of(""),
        received: ManualClock::trusted().now(),
        identity: String::new(),
        route: String::new(),
        topic: String::new(),
        payload: Bytes::copy_from_slice(bytes),
        qos: 0,
        retain: false,
        expiry: None,
        properties: Bytes::new(),
    };
    let Some(letter) = DeadLetter::open(&record) else { return };
    record.id = letter.id;
    record.payload = letter.payload.clone();
    let mut out = Vec::new();
    dead_letter::encode(&record, &letter.reason, &letter.detail, 4, &mut out);
    let buffer = Bytes::from(out);
    let again = record::decode(&buffer).map(|view| view.to_record(&buffer, Epoch(1)));
    let again = again
        .and_then(|record| DeadLetter::open(&record))
        .expect("a dead letter as written");
    assert_eq!((again.id, again.payload), (letter.id, letter.payload));
    assert!(letter.reason.starts_with(&again.reason) && letter.detail.starts_with(&again.detail));
}
