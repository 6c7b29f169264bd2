//! Records of broken connections that the cloud has perhaps seen.

use std::collections::BTreeMap;

use forebay_wal::Offset;

use crate::message::item::RecordKey;

/// When this is full, a stream's oldest make room: those that the log evicted are never asked for again.
const MAX: usize = 65_536;

/// Written by an earlier connection and not settled, and whether they were late then.
#[derive(Debug, Default)]
pub(crate) struct MaybeDelivered {
    places: BTreeMap<RecordKey, bool>,
}

impl MaybeDelivered {
    pub(crate) fn insert(&mut self, place: RecordKey, late: bool) {
        if self.places.len() >= MAX {
            let oldest = self.places.range((place.0, Offset(0))..).next().map(|(oldest, _)| *oldest);
            match oldest.filter(|oldest| oldest.0 == place.0) {
                Some(oldest) => self.places.remove(&oldest),
                None => self.places.pop_first().map(|(_, late)| late),
            };
        }
        self.places.insert(place, late);
    }

    /// Whether the record was late when it was written first; `None` if it was not.
    pub(crate) fn late(&self, place: RecordKey) -> Option<bool> {
        self.places.get(&place).copied()
    }

    pub(crate) fn remove(&mut self, place: RecordKey) {
        if !self.places.is_empty() {
            self.places.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_wal::StreamId;

    use super::*;

    #[test]
    fn what_the_log_evicted_makes_room_for_what_the_cloud_may_see_twice() {
        let mut seen = MaybeDelivered::default();
        seen.insert((StreamId(0), Offset(1)), true);
        for offset in 0..2 * MAX as u64 {
            seen.insert((StreamId(1), Offset(offset)), false);
        }
        assert_eq!(seen.places.len(), MAX);
        assert_eq!(seen.late((StreamId(1), Offset(2 * MAX as u64 - 1))), Some(false));
        assert_eq!(seen.late((StreamId(0), Offset(1))), Some(true), "another stream's");
        seen.insert((StreamId(7), Offset(1)), false);
        assert_eq!(seen.places.len(), MAX);
    }
}
