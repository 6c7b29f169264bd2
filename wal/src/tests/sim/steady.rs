//! What a commit asks of the file system once the log has run for a while.

#![allow(clippy::unwrap_used)]

use rustix::io::Errno;

use super::disk::{CREATE, OPEN_TO_WRITE, Omission, REMOVE, RENAME, SET_LENGTH, SYNC_DIRECTORY, SimDisk};
use super::rotation::{open, store_of};
use crate::io::directory::Directory;
use crate::record::{PartitionSet, Settlement, StreamId};
use crate::segment::segments::name;

/// While another program writes, a sync that needs a commit of the file system waits for all that this one has to write.
#[test]
fn k17_a_commit_into_reused_blocks_needs_nothing_of_the_file_system_but_its_own_write() {
    let mut disk = SimDisk::new(1, Omission::Nothing);
    let (log, mut writer) = open(&disk);
    writer.space.segment_bytes = 512 << 10;
    let mut reader = log.reader(StreamId(0), PartitionSet::ALL);
    let first = writer.number;
    let mut number = 0;
    // The cloud takes all: each segment is laid over the one before the last.
    while writer.number < first + 6 {
        assert!(store_of(&log, &mut writer, number, 3000));
        number += 1;
        for record in reader.read(1 << 20).unwrap() {
            log.settle(StreamId(0), record.offset, Settlement::Delivered);
        }
        writer.commit_progress().unwrap();
    }
    let active = name(writer.number);
    let before = disk.allocated(&active).unwrap();
    disk.set_failing(Some((
        &[CREATE, OPEN_TO_WRITE, SET_LENGTH, RENAME, REMOVE, SYNC_DIRECTORY],
        Errno::IO,
    )));
    for nth in 0..10 {
        assert!(
            store_of(&log, &mut writer, number + nth, 3000),
            "commit {nth} asked for more: {:?}",
            writer.rotation.broken()
        );
    }
    assert_eq!(disk.allocated(&active).unwrap(), before, "the file grew");
    disk.set_failing(None);
    disk.next_process();
    drop((reader, log, writer));
}
