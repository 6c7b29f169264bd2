//! What must be true of the log, whatever happened to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Batch, Offset, Record, StreamId};

/// How a record was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Delivered,
    Dead,
    Expired,
}

/// What a device knows of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing yet.
    Nothing(Batch),
    /// It is stored.
    Acked,
    /// It is not.
    Failed,
}

/// One record, by the number in its payload.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) stream: StreamId,
    pub(crate) device: u8,
    pub(crate) size: usize,
    pub(crate) may_expire: bool,
    pub(crate) told: Told,
    /// The log may hold it although the device was told otherwise, or nothing: the process ended in between.
    pub(crate) may_be_there: bool,
    /// Where it was read last.
    pub(crate) offset: Option<Offset>,
    pub(crate) end: Option<End>,
    /// Its end is on disk: it must not be read again.
    pub(crate) is_final: bool,
    /// A letter of it was dropped, or it was put back: its later fate is looser.
    pub(crate) is_touched: bool,
}

/// All records, and what faults excuse.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) records: BTreeMap<u64, Known>,
    /// Content of the disk was changed behind the log's back: records may be missing if they are counted, and read again.
    pub(crate) is_corrupted: bool,
}

/// What a record's payload is made of: its number, then bytes that follow from it.
pub(crate) fn payload(number: u64, size: usize) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend((0..size).map(|at| (number as usize + at * 7) as u8));
    payload
}

impl Model {
    /// Takes note of a record that the log yielded, or says what is wrong with it.
    pub(crate) fn yielded(&mut self, record: &Record) -> Result<u64, String> {
        let number = record
            .payload
            .first_chunk()
            .map(|number| u64::from_le_bytes(*number))
            .unwrap_or(u64::MAX);
        let Some(known) = self.records.get_mut(&number) else {
            return Err(format!("record {number} was never appended: {record:?}"));
        };
        let is_as_written = record.payload == payload(number, known.size)
            && record.identity == format!("d{}", known.device)
            && record.stream == known.stream
            && record.topic == format!("t/{number}");
        if !is_as_written {
            return Err(format!("record {number} was changed: {record:?}"));
        }
        if known.is_final && !self.is_corrupted && !known.is_touched {
            return Err(format!("record {number} came again after its end was on disk: {known:?}"));
        }
        if known.told == Told::Failed && !known.may_be_there {
            return Err(format!("record {number} came although its device was told that it is not stored"));
        }
        known.offset = Some(record.offset);
        Ok(number)
    }

    /// The process ended: what was not decided may have been stored.
    pub(crate) fn process_ended(&mut self) {
        for known in self.records.values_mut() {
            if known.told != Told::Acked {
                known.told = Told::Failed;
                known.may_be_there = true;
            }
        }
    }

    /// The newest segment is gone, and with it all knowledge of what was in it: nothing is promised of what was before.
    pub(crate) fn forget_all(&mut self) {
        let all: Vec<u64> = self.records.keys().copied().collect();
        self.nothing_is_promised_of(&all);
    }

    pub(crate) fn nothing_is_promised_of(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(known) = self.records.get_mut(number) {
                known.told = Told::Failed;
                known.may_be_there = true;
            }
        }
    }

    /// The acked records that have no end and are not among `found`.
    pub(crate) fn missing(&self, found: &BTreeSet<u64>) -> Vec<u64> {
        let open = self
            .records
            .iter()
            .filter(|(_, known)| known.told == Told::Acked && known.end.is_none());
        open.map(|(number, _)| *number).filter(|number| !found.contains(number)).collect()
    }

    pub(crate) fn count(&self, is_counted: impl Fn(&Known) -> bool) -> u64 {
        self.records.values().filter(|known| is_counted(known)).count() as u64
    }
}
