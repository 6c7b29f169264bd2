//! The format on disk, version 1. Integers are little-endian. Every released version stays readable.
//!
//! # The directory
//!
//! | name | is |
//! |---|---|
//! | `0000000001.redb`, ... | segments; the one with the highest number takes appends and holds the truth about all |
//! | `next.tmp` | the next segment, made ahead; deleted at open |
//! | `spare.tmp` | the spare segment, whose blocks the next one reuses; deleted at open |
//! | `gone-*.tmp` | what nothing needs any more, until it is removed; deleted at open |
//! | `*.redb.damaged` | quarantined: segments that could not be read as they should; kept for salvage for 30 days, within a quarter of `max_disk` |
//! | `*.redb.damaged-uncounted` | the same, where nobody knows what waited in them; these go last |
//! | `counted` | what a rebuild has counted in older segments, so that a killed one goes on; deleted when the log is open |
//! | `lock` | locked for as long as a process uses the directory; names the log, the segment that a start is opening, the newest segment and, after a write to it failed, the last row of its state that is believed |
//! | `ballast` | a sixteenth of `max_disk`, 4 to 16 MiB, to be freed when trimming needs room on a full disk |
//!
//! # A segment
//!
//! A redb 4 database with one table, `log`:
//!
//! - `(stream u8, first offset u64)` → block,
//! - `(255, all ones less the row number u64)` → row of the state. Row numbers rise over all segments; a segment begins with a
//!   snapshot, which stands there twice, and each commit adds one delta. The newest stands first, next to the newest block.
//!
//! # A block
//!
//! ```text
//! CRC32C u32 of the rest of the header and of the index | version u8 | stream u8 | count u16 | first offset u64
//! index: count times (partition u8 | ledger slot u32 | length u32)                              version 1: dense
//!        count times (partition u8 | ledger slot u32 | length u32 | offset less the key's u32)  version 2: sparse
//! records, back to back
//! ```
//!
//! A dense block's records have consecutive offsets from the key's on. A sparse one holds what was left of blocks that were
//! copied to another segment.
//!
//! Blocks are cut to 64 bytes less than a run of 1, 2, 4, 8 or 16 pages of 4096 bytes, because redb writes the whole
//! run; a larger record is a block of its own.
//!
//! # A record
//!
//! ```text
//! CRC32C u32 of all that follows | length u32 of all | offset u64 | stream u8
//! flags u8: QoS (bits 0, 1), RETAIN (2), wall clock trusted (3), expiry follows (4), origin follows (5)
//! ledger slot u32 | wall clock ms u64 | boot id u128 | monotonic ms u64
//! identity length u16 | route length u16 | topic length u16 | properties length u32
//! [expiry seconds u32] [origin: epoch u64, stream u8, offset u64]
//! identity | route | topic | properties | payload
//! ```
//!
//! *Origin* is the id under which a record that was put back was first accepted. The partition of a record is CRC32C of
//! its identity modulo 64. redb does not verify its pages when it reads; these checksums are the only guard.
//!
//! # A row of the state
//!
//! ```text
//! CRC32C u32 of `row` and all that follows | length u32 of all | version u8 = 2 | kind u8: 0 snapshot, 1 delta | row number u64 | changes
//! ```
//!
//! A whole row of another version in the newest segment means that another version wrote the log: it is not opened, and nothing in
//! it is changed.
//!
//! A change is its tag and its fields. A field is a number in LEB128 (seven bits a byte, the lowest first) unless its type
//! stands there.
//!
//! Rows and records say how long they are and where they belong, so that they can be found in the bytes of a segment whose
//! redb pages are damaged.
//!
//! | tag | change | fields |
//! |---|---|---|
//! | 1 | the epoch | epoch |
//! | 2 | a stream got its id | stream u8, name |
//! | 3 | next offset | stream u8, offset |
//! | 4 | everything below was evicted or trimmed | stream u8, offset |
//! | 5 | delivered up to, per partition | stream u8, the farthest offset, bit per partition behind it u64, how far behind each of them is |
//! | 6 | a segment of the catalogue | segment, epoch |
//! | 7 | records appended to a segment | stream u8, segment, first, end, records, bytes |
//! | 8 | records of a segment wait no longer | stream u8, segment, records, bytes |
//! | 9 | a segment left the catalogue | segment |
//! | 10 | a device got its ledger slot | slot, identity |
//! | 11 | a counter of the ledger rose for some devices | counter u8, how many devices, for each: slot, by |
//! | 12 | a pair is suspended | stream u8, since offset, oldest waiting offset, ended at offset (all ones = not yet), route, identity |
//! | 13 | an ended suspension is forgotten | stream u8, since offset, route, identity |
//! | 14 | the last trusted time | wall clock ms (0 = none any more), boot time ms, boot id u128 |
//! | 15 | what waited of a range was copied from one segment to another | stream u8, from (0 = in a snapshot: it lies there), to, first, end, epoch, records, bytes |
//! | 16 | single dead letters were taken out | stream u8, first, end |
//!
//! A change 14, changes 3, and the same change 14 once more are a mark: where those streams stood at the first trusted commit of a boot.
//! Builds that know no marks read them as what they are made of, which changes nothing for them.
//!
//! Names are a length and UTF-8. Counters: 0 accepted, 1 requeued, 2 delivered, 3 expired, 4 evicted,
//! 5 dead-lettered, 6 damaged. Slot 0 is `other`.
//!
//! A segment holds of a stream what was appended to it, under the segment's epoch, and ranges that were copied to it, under
//! theirs. Ranges of one stream never overlap, over all segments. What is copied goes in ranges' order, and the change cuts
//! it off the front of the range that it comes from.
//!
//! When a delta is damaged, progress stands where it stood before it, the newest segment's ranges and the next offsets are
//! what its keys show, what waits is counted anew, and the line `other` takes the difference: records that no row knows of
//! as accepted, records that wait again as requeued, records that are not found as damaged. The epoch is renewed.
//!
//! # Invariants
//!
//! 1. A record is in a block whose segment's range in the catalogue contains its offset, or it does not exist: what a
//!    failed commit left behind is outside every range.
//! 2. An offset is used once. Next offsets are state, never derived from keys, and a failed commit's are burned.
//! 3. A record waits if it is at or above its stream's floor and at or above its partition's *delivered up to*, or if
//!    its pair is suspended and it is at or above the suspension's oldest waiting offset. A pair's records between the
//!    beginning and the end of a suspension are otherwise settled, wherever the partition stands.
//! 4. Whatever moves *delivered up to*, a floor or a suspension, moves the ledger and the segment's waiting counts in the
//!    same row.
//! 5. A segment takes its first record after its snapshot, its name and the directory are durable; it is unlinked after
//!    the commit that drops it from the catalogue.
//! 6. At most one segment is unclean, unless one failed: that one is never written again, repairs of it stay in memory, and
//!    what waits in it is copied to another by the process that saw it fail.
//!    No segment takes more records after a restart, unless there is no room for another.

/// Rows of version 1, in builds that were never released, had numbers of fixed length.
pub(crate) const VERSION: u8 = 2;

/// The highest ledger slot.
pub(crate) const MAX_SLOT: u32 = 1 << 20;
