//! What a person puts back: dead letters, and records that were settled already.
//!
//! The writer thread does it, because the records' offsets must follow those of the open batch: it reads what is to be put
//! back, encodes it at the end of the open batch under its first id, swaps that batch out at once, and commits it together
//! with the letters' removal. So a letter is either still there, or its record waits again.

use std::sync::mpsc::{Receiver, sync_channel};

use crate::commit::write::Extra;
use crate::commit::writer::Writer;
use crate::encoding::dead_letter::DeadLetter;
use crate::intake::batch::OpenBatch;
use crate::intake::job::{Job, RequeueError, Requeued, What};
use crate::options::WhenFull;
use crate::progress::pending::Leaving;
use crate::record::{Batch, NewRecord, Offset, Record, RecordId, StreamId};
use crate::shared::Shared;
use crate::sync::lock;

/// How much is put back in one commit.
const AT_ONCE: usize = 1 << 20;

/// A record to put back.
struct Again {
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
        Some((segment, self.record_at(segment, stream.0, offset.0).ok_or(())))
    }
}

impl Writer {
    pub(crate) fn do_job(&mut self, job: Job) {
        let result = match job.what {
            What::Requeue(letters) => self.put_back(&letters, |writer, letter| writer.letter(letter)),
            What::Replay(stream, offsets) => self.put_back(&offsets, |writer, offset| writer.settled(stream, offset)),
            What::Drop(letters) => self.drop_letters(&letters),
            What::ForgetTime => self.forget_time(),
        };
        // Whoever asked may have gone.
        job.answer.send(result).ok();
    }

    fn forget_time(&mut self) -> Result<Requeued, RequeueError> {
        let is_known = lock(&self.shared.catalogue).trusted.is_some();
        if is_known {
            let stored = self.commit_beside(OpenBatch::new(Batch(0)), &Extra::Forgetting);
            stored.map_err(|error| RequeueError::NotStored { reason: error.reason })?;
        }
        Ok(Requeued {
            requeued: u64::from(is_known),
            kept: Vec::new(),
        })
    }

    fn put_back(
        &mut self,
        offsets: &[Offset],
        find: impl Fn(&Self, Offset) -> Result<Again, &'static str>,
    ) -> Result<Requeued, RequeueError> {
        let mut done = Requeued::default();
        let mut offsets = offsets.iter();
        while !offsets.as_slice().is_empty() {
            let mut again = Vec::new();
            let mut bytes = 0;
            for offset in offsets.by_ref() {
                match find(self, *offset) {
                    Ok(found) => {
                        bytes += found.record.payload.len() + found.record.topic.len();
                        again.push(found);
                    }
                    Err(reason) => done.kept.push((*offset, reason)),
                }
                if bytes >= AT_ONCE {
                    break;
                }
            }
            let put = self.append_again(again, &mut done.kept)?;
            done.requeued += put;
        }
        Ok(done)
    }

    /// A dead letter, opened.
    fn letter(&self, offset: Offset) -> Result<Again, &'static str> {
        let (leaving, record) = self.leaving(offset).ok_or("not-found")?;
        let record = record.map_err(|()| "damaged")?;
        let letter = DeadLetter::open(&record).ok_or("damaged")?;
        let stream = letter.id.stream;
        if self.shared.policy(stream.0).is_none() {
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

    fn leaving(&self, offset: Offset) -> Option<(Leaving, Result<Record, ()>)> {
        let is_there = {
            let tracker = lock(&self.shared.tracker);
            let dead = tracker.streams.get(&StreamId::DEAD.0)?;
            offset.0 >= dead.floor && !dead.removed.contains(offset.0)
        };
        let (segment, record) = self.shared.find(StreamId::DEAD, offset).filter(|_| is_there)?;
        let bytes = self.shared.cost_at(segment, StreamId::DEAD.0, offset.0)?;
        let leaving = Leaving {
            segment,
            offset: offset.0,
            bytes,
        };
        Some((leaving, record))
    }

    /// A record that is settled and still in its segment.
    fn settled(&self, stream: StreamId, offset: Offset) -> Result<Again, &'static str> {
        if self.shared.policy(stream.0).is_none() {
            return Err("stream-gone");
        }
        let (segment, record) = self.shared.find(stream, offset).ok_or("not-found")?;
        let record = record.map_err(|()| "damaged")?;
        if self.shared.is_waiting(segment, stream.0, offset.0) {
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

    fn append_again(&mut self, again: Vec<Again>, kept: &mut Vec<(Offset, &'static str)>) -> Result<u64, RequeueError> {
        let shared = self.shared.clone();
        let mut leaving = Vec::new();
        let mut put = 0;
        let batch = {
            let mut intake = lock(&shared.intake);
            intake.open.requeued_from = intake.open.records.len();
            for again in &again {
                let record = again.as_new();
                let cost = crate::commit::producer::cost(&record, true);
                let options = shared.policy(again.stream.0);
                let is_full = options.is_some_and(|options| {
                    options.when_full == WhenFull::Refuse && shared.gauges.bytes(again.stream.0) + cost > options.max_bytes
                });
                if is_full {
                    kept.push((again.offset, "stream-full"));
                    continue;
                }
                let slot = intake.slots.of(record.identity);
                intake.take(&record, slot, Some(again.origin));
                shared.gauges.enter(again.stream.0, 1, cost);
                leaving.extend(again.leaving);
                put += 1;
            }
            self.swap(&mut intake)
        };
        self.commit_beside(batch, &Extra::Leaving(&leaving))
            .map(|()| put)
            .map_err(|error| RequeueError::NotStored { reason: error.reason })
    }

    fn drop_letters(&mut self, letters: &[Offset]) -> Result<Requeued, RequeueError> {
        let mut done = Requeued::default();
        for chunk in letters.chunks(1000) {
            let leaving: Vec<Leaving> = chunk.iter().filter_map(|offset| Some(self.leaving(*offset)?.0)).collect();
            let empty = OpenBatch::new(Batch(0));
            self.commit_beside(empty, &Extra::Leaving(&leaving))
                .map_err(|error| RequeueError::NotStored { reason: error.reason })?;
            done.requeued += leaving.len() as u64;
        }
        Ok(done)
    }
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
