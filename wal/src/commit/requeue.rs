//! What a person puts back: dead letters, and records that were settled already.
//!
//! The writer thread does it, because the records' offsets must follow those of the open batch: what is to be put back is read,
//! encoded at the end of the open batch under its first id, and that batch is swapped out at once and committed together with the
//! letters' removal. So a letter is either still there, or its record waits again.
//!
//! A [`Requeue`] says what each commit takes; the writer commits.

use std::sync::mpsc::{Receiver, sync_channel};

use crate::commit::producer::cost;
use crate::encoding::dead_letter::DeadLetter;
use crate::intake::batch::Intake;
use crate::intake::job::{Job, RequeueError, Requeued, What};
use crate::options::WhenFull;
use crate::progress::pending::Leaving;
use crate::record::{NewRecord, Offset, Record, RecordId, StreamId};
use crate::shared::Shared;
use crate::sync::lock;

/// How much is put back in one commit.
const AT_ONCE: usize = 1 << 20;
/// How many letters are dropped in one commit.
const DROPPED_AT_ONCE: usize = 1000;

/// A job of a person on its way, one commit after the other.
pub(crate) struct Requeue {
    what: What,
    /// How many of its offsets are behind it.
    at: usize,
    /// Whether it asked for its last commit.
    is_over: bool,
    done: Requeued,
}

/// What one commit takes of a job.
pub(crate) enum Portion {
    /// Records that wait again. They must be appended to the open batch, which is swapped out under the same lock.
    PutBack(Vec<Again>),
    /// Dead letters that leave.
    Drop(Vec<Leaving>),
    /// The last trusted time is forgotten.
    ForgetTime,
}

/// A record to put back.
#[derive(Debug)]
pub(crate) struct Again {
    record: Record,
    /// The stream that takes it.
    stream: StreamId,
    /// Its first id.
    origin: RecordId,
    offset: Offset,
    leaving: Option<Leaving>,
}

impl Shared {
    pub(crate) fn requeue(&self, letters: &[Offset]) -> Result<Requeued, RequeueError> {
        self.ask(What::Requeue(letters.to_vec()))
    }

    pub(crate) fn drop_dead(&self, letters: &[Offset]) -> Result<u64, RequeueError> {
        Ok(self.ask(What::Drop(letters.to_vec()))?.requeued)
    }

    pub(crate) fn replay(&self, stream: StreamId, offsets: &[Offset]) -> Result<Requeued, RequeueError> {
        self.ask(What::Replay(stream, offsets.to_vec()))
    }

    pub(crate) fn forget_time(&self) -> Result<bool, RequeueError> {
        Ok(self.ask(What::ForgetTime)?.requeued > 0)
    }

    fn ask(&self, what: What) -> Result<Requeued, RequeueError> {
        let answered = self.post(what)?;
        answered.recv().unwrap_or(Err(RequeueError::Closed))
    }

    pub(crate) fn post(&self, what: What) -> Result<Receiver<Result<Requeued, RequeueError>>, RequeueError> {
        let (answer, answered) = sync_channel(1);
        let mut intake = lock(&self.intake);
        if intake.closing {
            return Err(RequeueError::Closed);
        }
        if let Some(reason) = &intake.unavailable {
            return Err(RequeueError::NotStored { reason: reason.clone() });
        }
        intake.jobs.push_back(Job { what, answer });
        drop(intake);
        self.bell.notify_one();
        Ok(answered)
    }

    /// A record of a stream, wherever it lies, with its segment and what it takes there.
    fn find(&self, stream: StreamId, offset: Offset) -> Option<(u64, Result<Record, ()>)> {
        let segment = lock(&self.catalogue).segment_of(stream.0, offset.0)?;
        Some((segment, self.record_at(segment, stream.0, offset.0).map_err(drop)))
    }
}

impl Requeue {
    pub(crate) fn new(what: What) -> Self {
        Self {
            what,
            at: 0,
            is_over: false,
            done: Requeued::default(),
        }
    }

    /// What the next commit takes; `None` if nothing is left to do. What it asked for before is committed.
    pub(crate) fn next(&mut self, shared: &Shared) -> Option<Portion> {
        if self.is_over {
            return None;
        }
        match &self.what {
            What::Requeue(offsets) | What::Replay(_, offsets) => {
                if self.at >= offsets.len() {
                    return None;
                }
                let mut again = Vec::new();
                let mut bytes = 0;
                for offset in &offsets[self.at..] {
                    self.at += 1;
                    let found = match &self.what {
                        What::Replay(stream, _) => settled(shared, *stream, *offset),
                        _ => letter(shared, *offset),
                    };
                    match found {
                        Ok(found) => {
                            bytes += found.record.payload.len() + found.record.topic.len();
                            again.push(found);
                        }
                        Err(reason) => self.done.kept.push((*offset, reason)),
                    }
                    if bytes >= AT_ONCE {
                        break;
                    }
                }
                Some(Portion::PutBack(again))
            }
            What::Drop(letters) => {
                let rest = &letters[self.at..];
                let portion = &rest[..rest.len().min(DROPPED_AT_ONCE)];
                if portion.is_empty() {
                    return None;
                }
                self.at += portion.len();
                let leaving: Vec<Leaving> = portion.iter().filter_map(|offset| Some(leaving(shared, *offset)?.0)).collect();
                self.done.requeued += leaving.len() as u64;
                Some(Portion::Drop(leaving))
            }
            What::ForgetTime => {
                self.is_over = true;
                let is_known = lock(&shared.catalogue).trusted.is_some();
                self.done.requeued = u64::from(is_known);
                is_known.then_some(Portion::ForgetTime)
            }
        }
    }

    /// Appends records to the open batch, which must be swapped out before `intake` is let go; gives the letters that leave with
    /// them. What a full stream refuses stays where it is.
    pub(crate) fn append(&mut self, shared: &Shared, intake: &mut Intake, again: Vec<Again>) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        intake.open.requeued_from = intake.open.records.len();
        for again in again {
            let record = again.as_new();
            let cost = cost(&record, true);
            let options = shared.policy(again.stream.0);
            let is_full = options.is_some_and(|options| {
                options.when_full == WhenFull::Refuse && shared.gauges.bytes(again.stream.0) + cost > options.max_bytes
            });
            if is_full {
                self.done.kept.push((again.offset, "stream-full"));
                continue;
            }
            let slot = intake.slots.of(record.identity);
            intake.take(&record, slot, Some(again.origin));
            shared.gauges.enter(again.stream.0, 1, cost);
            leaving.extend(again.leaving);
            self.done.requeued += 1;
        }
        leaving
    }

    /// What became of it, when all was committed that it asked for.
    pub(crate) fn done(self) -> Requeued {
        self.done
    }
}

/// A dead letter, opened.
fn letter(shared: &Shared, offset: Offset) -> Result<Again, &'static str> {
    let (leaving, record) = leaving(shared, offset).ok_or("not-found")?;
    let record = record.map_err(|()| "damaged")?;
    let letter = DeadLetter::open(&record).ok_or("damaged")?;
    let stream = letter.id.stream;
    if shared.policy(stream.0).is_none() {
        return Err("stream-gone");
    }
    Ok(Again {
        record: Record {
            payload: letter.payload,
            ..record
        },
        stream,
        origin: letter.id,
        offset,
        leaving: Some(leaving),
    })
}

fn leaving(shared: &Shared, offset: Offset) -> Option<(Leaving, Result<Record, ()>)> {
    let is_there = {
        let tracker = lock(&shared.tracker);
        let dead = tracker.streams.get(&StreamId::DEAD.0)?;
        offset.0 >= dead.floor && !dead.removed.contains(offset.0)
    };
    let (segment, record) = shared.find(StreamId::DEAD, offset).filter(|_| is_there)?;
    let bytes = shared.cost_at(segment, StreamId::DEAD.0, offset.0)?;
    let leaving = Leaving {
        segment,
        offset: offset.0,
        bytes,
    };
    Some((leaving, record))
}

/// A record that is settled and still in its segment.
fn settled(shared: &Shared, stream: StreamId, offset: Offset) -> Result<Again, &'static str> {
    if shared.policy(stream.0).is_none() {
        return Err("stream-gone");
    }
    let (segment, record) = shared.find(stream, offset).ok_or("not-found")?;
    let record = record.map_err(|()| "damaged")?;
    if shared.is_waiting(segment, stream.0, offset.0) {
        return Err("waiting");
    }
    Ok(Again {
        stream,
        origin: record.id,
        record,
        offset,
        leaving: None,
    })
}

impl Again {
    fn as_new(&self) -> NewRecord<'_> {
        let record = &self.record;
        NewRecord {
            stream: self.stream,
            received: record.received,
            identity: &record.identity,
            route: &record.route,
            topic: &record.topic,
            payload: &record.payload,
            qos: record.qos,
            retain: record.retain,
            expiry: record.expiry,
            properties: &record.properties,
        }
    }
}
