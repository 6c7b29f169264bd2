//! Suspended pairs of route and device: finding and ending them.

use crate::encoding::block::Block;
use crate::error::ReadError;
use crate::progress::stream::{Meet, Outcome};
use crate::read::lookup::Absent;
use crate::read::reader::{judge, outstanding, tell_damaged};
use crate::read::stretch::{self, Place};
use crate::record::{Offset, Record, StreamId};
use crate::shared::Shared;
use crate::sync::lock;

/// One device's records on one route, which the cloud denies for now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SuspensionKey {
    /// The stream.
    pub stream: StreamId,
    /// The route's name.
    pub route: String,
    /// The device's identity.
    pub identity: String,
}

/// A suspended pair of route and device: its records from `next` on stay waiting while the reader passes them by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// Which records.
    pub key: SuspensionKey,
    /// The oldest of them.
    pub next: Offset,
}

const SCAN_BYTES: usize = 1 << 20;

/// Where a pair stands.
struct Standing {
    pair: u64,
    known: Vec<(u64, u64)>,
    scanned: u64,
    limit: u64,
}

/// The oldest waiting records of a pair.
pub(crate) fn read(shared: &Shared, key: &SuspensionKey, max_records: usize) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let Some(standing) = standing(shared, key) else {
        return Ok(records);
    };
    for (offset, segment) in standing.known.into_iter().take(max_records) {
        match shared.known_record_at(segment, key.stream.0, offset) {
            Ok(record) => records.push(record),
            Err(Absent::Damaged) => lose(shared, key.stream.0, segment, offset),
            Err(Absent::ForNow) => {}
        }
    }
    if records.len() < max_records {
        scan(shared, key, standing.pair, |record| {
            records.push(record);
            records.len() < max_records
        })?;
    }
    Ok(records)
}

/// Gives a record up that was readable when it was met first.
fn lose(shared: &Shared, stream: u8, segment: u64, offset: u64) {
    if lock(&shared.tracker).settle(stream, offset, Outcome::Damaged) {
        tell_damaged(stream, segment, offset);
        shared.mark_dirty();
    }
}

/// Ends a suspension if nothing of it is left waiting where readers have passed.
pub(crate) fn resume(shared: &Shared, key: &SuspensionKey) -> bool {
    while let Some(standing) = standing(shared, key) {
        if !standing.known.is_empty() {
            return false;
        }
        if standing.scanned < standing.limit {
            let mut found = false;
            let scanned = scan(shared, key, standing.pair, |_| {
                found = true;
                false
            });
            if found || scanned.is_err() {
                return false;
            }
            continue;
        }
        let mut tracker = lock(&shared.tracker);
        let suspension = tracker.streams.get(&key.stream.0).and_then(|stream| {
            let suspension = stream.suspensions.iter().find(|suspension| suspension.is_active(standing.pair))?;
            Some((suspension.scanned, suspension.queue.len(), stream.read_to[suspension.partition]))
        });
        // A reader may have passed more in between.
        if suspension.is_some_and(|(scanned, queued, limit)| queued == 0 && scanned >= limit) {
            tracker.resume(key.stream.0, standing.pair);
            drop(tracker);
            shared.mark_dirty();
            return true;
        }
    }
    false
}

fn standing(shared: &Shared, key: &SuspensionKey) -> Option<Standing> {
    let tracker = lock(&shared.tracker);
    let pair = tracker.pair(&key.route, &key.identity);
    let stream = tracker.streams.get(&key.stream.0)?;
    let suspension = stream.suspensions.iter().find(|suspension| suspension.is_active(pair))?;
    let waiting = suspension.queue.iter().filter_map(|offset| {
        let entry = stream.outstanding.get(offset).filter(|entry| entry.settled.is_none())?;
        Some((*offset, entry.segment))
    });
    Some(Standing {
        pair,
        known: waiting.collect(),
        scanned: suspension.scanned,
        limit: stream.read_to[suspension.partition],
    })
}

/// How a scan came through a block.
enum Scanned {
    On,
    Enough,
    /// Its records lie in another segment by now.
    Moved,
}

/// Goes on through what readers have passed, registering the pair's records, for as long as `more` says so.
fn scan(shared: &Shared, key: &SuspensionKey, pair: u64, mut more: impl FnMut(Record) -> bool) -> Result<(), ReadError> {
    while let Some(standing) = standing(shared, key).filter(|standing| standing.scanned < standing.limit) {
        let Some(next) = stretch::next(shared, key.stream.0, standing.scanned, standing.limit, SCAN_BYTES)? else {
            move_on(shared, key, pair, standing.limit);
            return Ok(());
        };
        if next.blocks.is_empty() {
            move_on(shared, key, pair, next.until.min(standing.limit));
        }
        for block in &next.blocks {
            let until = block.until.min(next.until).min(standing.limit);
            match scan_block(shared, key, pair, &next.place, block, (next.from, standing.limit), &mut more) {
                Scanned::On => move_on(shared, key, pair, until),
                Scanned::Enough => return Ok(()),
                Scanned::Moved => break,
            }
        }
    }
    Ok(())
}

fn scan_block(
    shared: &Shared,
    key: &SuspensionKey,
    pair: u64,
    place: &Place,
    block: &Block,
    (from, limit): (u64, u64),
    more: &mut impl FnMut(Record) -> bool,
) -> Scanned {
    if block.is_unsure {
        shared.mark_unsure(place.segment, key.stream.0);
    }
    let now = shared.clock.now();
    let marks = lock(&shared.catalogue).marks.clone();
    let max_age = shared.policy(key.stream.0).and_then(|options| options.max_age);
    for (nth, entry) in block.entries.iter().enumerate() {
        let offset = block.offset(nth);
        if offset < from {
            continue;
        }
        if offset >= limit.min(place.end) {
            return Scanned::On;
        }
        let Some(view) = block.record(nth) else {
            // Whether it was of this pair and waited, only a recount tells.
            shared.mark_unsure(place.segment, key.stream.0);
            continue;
        };
        if view.route != key.route || view.identity != key.identity {
            continue;
        }
        let mut tracker = lock(&shared.tracker);
        if !lock(&shared.catalogue).lies_in(place.segment, key.stream.0, offset) {
            return Scanned::Moved;
        }
        let Some(stream) = tracker.streams.get(&key.stream.0) else {
            return Scanned::Enough;
        };
        let passed = stream
            .suspensions
            .iter()
            .any(|suspension| suspension.is_active(pair) && offset >= suspension.scanned);
        if !passed
            || offset < stream.floor
            || stream.meet(offset, entry.partition % 64) != Meet::Skip
            || stream.outstanding.contains_key(&offset)
        {
            continue;
        }
        let outcome = judge(Some(view), max_age, |view| marks.age(key.stream.0, offset, &view.received, &now));
        let waits = outcome.is_none();
        tracker.register_suspended(
            key.stream.0,
            pair,
            offset,
            outstanding(*entry, place.segment, pair, Some(view), outcome, true),
        );
        drop(tracker);
        shared.mark_dirty();
        if waits && !more(view.to_record(&block.bytes, place.epoch)) {
            return Scanned::Enough;
        }
    }
    Scanned::On
}

fn move_on(shared: &Shared, key: &SuspensionKey, pair: u64, to: u64) {
    let mut tracker = lock(&shared.tracker);
    let Some(stream) = tracker.streams.get_mut(&key.stream.0) else {
        return;
    };
    if let Some(suspension) = stream.suspensions.iter_mut().find(|suspension| suspension.is_active(pair)) {
        suspension.scanned = suspension.scanned.max(to);
    }
}
