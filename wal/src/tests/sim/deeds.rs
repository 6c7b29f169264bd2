//! What devices, the cloud and a person do to the log.

use super::model::{End, Known, Told, payload};
use super::world::{DEVICES, Process, Verdict, World};
use crate::clock::Clock;
use crate::commit::writer::Writer;
use crate::intake::job::What;
use crate::read::suspended::SuspensionKey;
use crate::record::{NewRecord, Offset, PartitionSet, Record, Settlement, StreamId};
use crate::sync::lock;

impl World {
    pub(super) fn append(&mut self) -> Verdict {
        self.with(|world, process| {
            let count = 1 + world.rng.below(12);
            for _ in 0..count {
                let stream = StreamId(world.rng.below(2) as u8);
                let device = world.rng.below(DEVICES) as u8;
                let size = match world.rng.below(20) {
                    0 => 20_000,
                    1 => 5000,
                    _ => world.rng.below(600) as usize,
                };
                let number = world.next;
                world.next += 1;
                let expiry = world.rng.one_in(6).then(|| world.rng.below(300) as u32);
                let max_age = process.log.shared().policy(stream.0).and_then(|options| options.max_age);
                let record = NewRecord {
                    stream,
                    received: world.clock.now(),
                    identity: &format!("d{device}"),
                    route: "r",
                    topic: &format!("t/{number}"),
                    payload: &payload(number, size),
                    qos: 1,
                    retain: false,
                    expiry,
                    properties: &[],
                };
                if let Ok(ticket) = process.producer.append(&[record]) {
                    world.model.records.insert(
                        number,
                        Known {
                            stream,
                            device,
                            size,
                            may_expire: expiry.is_some() || max_age.is_some(),
                            told: Told::Nothing(ticket.batch),
                            may_be_there: false,
                            offset: None,
                            end: None,
                            is_final: false,
                            is_touched: false,
                        },
                    );
                }
            }
            Ok(())
        })
    }

    /// Runs the writer once, and takes note of what is on disk after it.
    pub(super) fn write(&mut self, process: &mut Process, act: impl FnOnce(&mut Writer) -> bool) {
        let settled: Vec<u64> = {
            let tracker = lock(&process.log.shared().tracker);
            let is_counted = |known: &Known| {
                let tracked = tracker.streams.get(&known.stream.0);
                let is_gone = known
                    .offset
                    .zip(tracked)
                    .is_some_and(|(offset, tracked)| !tracked.outstanding.contains_key(&offset.0));
                known.end.is_some() && is_gone
            };
            self.model
                .records
                .iter()
                .filter(|(_, known)| is_counted(known))
                .map(|(number, _)| *number)
                .collect()
        };
        let done = act(&mut process.writer);
        process.writer.reject_late();
        // A dead record that the disk does not give keeps the ends of all of them out of the commit.
        let is_put_off = lock(&process.log.shared().tracker).letters_waited > 0;
        if done && !is_put_off {
            for number in settled {
                if let Some(known) = self.model.records.get_mut(&number) {
                    known.is_final = true;
                }
            }
        }
    }

    pub(super) fn commit(&mut self) -> Verdict {
        self.with(|world, process| {
            world.write(process, |writer| {
                let shared = writer.shared.clone();
                let batch = writer.swap(&mut lock(&shared.intake));
                writer.commit(batch).is_ok()
            });
            Ok(())
        })
    }

    pub(super) fn progress(&mut self) -> Verdict {
        self.with(|world, process| {
            world.write(process, |writer| {
                writer.rotation.broken().is_none() && writer.commit_progress().is_ok()
            });
            Ok(())
        })
    }

    pub(super) fn ticks(&mut self) -> Verdict {
        self.with(|world, process| {
            // Long enough, sometimes, for a segment to have stood still.
            let ticks = if world.rng.one_in(3) { 40 } else { 1 + world.rng.below(3) };
            let mut compacted = 0;
            for _ in 0..ticks {
                process.writer.tick();
                while process.writer.compaction.is_under_way() && process.writer.rotation.broken().is_none() && !world.disk.is_off() {
                    process.writer.compact_step().ok();
                    compacted += 1;
                }
            }
            process.writer.reject_late();
            if compacted > 0 {
                world.note(format!("compacted in {compacted} steps"));
            }
            Ok(())
        })
    }

    pub(super) fn read(&mut self) -> Verdict {
        self.with(|world, process| {
            let stream = StreamId(world.rng.below(2) as u8);
            if world.rng.one_in(6)
                && let Some(reader) = process.readers.get_mut(&stream)
            {
                reader.rewind();
                process.passed.insert(stream, None);
            }
            let bytes = 1 + world.rng.below(30_000) as usize;
            world.read_on(process, stream, bytes).map(|_| ())
        })
    }

    pub(super) fn read_on(&mut self, process: &mut Process, stream: StreamId, bytes: usize) -> Result<usize, String> {
        let Some(reader) = process.readers.get_mut(&stream) else {
            return Ok(0);
        };
        let Ok(records) = reader.read(bytes) else { return Ok(0) };
        for record in &records {
            let passed = process.passed.entry(stream).or_default();
            if passed.is_some_and(|passed| passed >= record.offset) {
                return Err(format!("out of order: {:?} after {passed:?} in {stream:?}", record.offset));
            }
            *passed = Some(record.offset);
            let number = self.model.yielded(record)?;
            process.open.insert((stream, record.offset), number);
        }
        Ok(records.len())
    }

    pub(super) fn settle(&mut self) -> Verdict {
        self.with(|world, process| {
            let places: Vec<(StreamId, Offset)> = process.open.keys().copied().collect();
            for place in places {
                if !world.rng.one_in(3) {
                    world.settle_one(process, place);
                }
            }
            Ok(())
        })
    }

    pub(super) fn settle_one(&mut self, process: &mut Process, place: (StreamId, Offset)) {
        let Some(number) = process.open.remove(&place) else { return };
        let (settlement, end) = match self.rng.below(12) {
            0 => (
                Settlement::Dead {
                    reason: "x",
                    detail: "simulated".into(),
                },
                End::Dead,
            ),
            1 => (Settlement::Expired, End::Expired),
            _ => (Settlement::Delivered, End::Delivered),
        };
        process.log.settle(place.0, place.1, settlement);
        if let Some(known) = self.model.records.get_mut(&number) {
            known.end = Some(end);
        }
    }

    pub(super) fn hold_or_release(&mut self) -> Verdict {
        self.with(|world, process| {
            let stream = StreamId(world.rng.below(2) as u8);
            let suspensions = process.log.suspensions(stream);
            if let Some(suspension) = world.rng.pick(&suspensions).cloned() {
                world.look_at_hold(process, &suspension.key)?;
                return Ok(());
            }
            let open: Vec<((StreamId, Offset), u64)> = process.open.iter().map(|(place, number)| (*place, *number)).collect();
            if let Some((place, number)) = world.rng.pick(&open)
                && let Some(known) = world.model.records.get(number)
            {
                let identity = format!("d{}", known.device);
                let key = SuspensionKey {
                    stream: place.0,
                    route: "r".into(),
                    identity,
                };
                process.log.suspend(key, place.1);
            }
            Ok(())
        })
    }

    /// Takes some of a suspended pair's records and settles them; ends the suspension when nothing is left.
    pub(super) fn look_at_hold(&mut self, process: &mut Process, key: &SuspensionKey) -> Result<bool, String> {
        let Ok(records) = process.log.read_suspended(key, 1 + self.rng.below(20) as usize) else {
            return Ok(false);
        };
        for record in &records {
            let number = self.model.yielded(record)?;
            process.open.insert((key.stream, record.offset), number);
            self.settle_one(process, (key.stream, record.offset));
        }
        Ok(records.is_empty() && process.log.resume(key))
    }

    /// A person puts dead letters back, drops them, or replays what was settled.
    pub(super) fn person(&mut self) -> Verdict {
        self.with(|world, process| {
            let mut reader = process.log.reader(StreamId::DEAD, PartitionSet::ALL);
            let letters: Vec<Record> = reader.read(100_000).unwrap_or_default();
            let chosen: Vec<Record> = letters.into_iter().filter(|_| world.rng.one_in(2)).collect();
            let offsets: Vec<Offset> = chosen.iter().map(|letter| letter.offset).collect();
            let touched: Vec<u64> = chosen
                .iter()
                .filter_map(|letter| {
                    let payload = crate::encoding::dead_letter::DeadLetter::open(letter)?.payload;
                    payload.first_chunk().map(|number| u64::from_le_bytes(*number))
                })
                .collect();
            let (what, numbers) = match world.rng.below(3) {
                0 => (What::Drop(offsets), Vec::new()),
                1 => (What::Requeue(offsets), touched),
                _ => {
                    let stream = StreamId(world.rng.below(2) as u8);
                    let is_settled = |known: &Known| known.stream == stream && known.is_final && known.offset.is_some();
                    let settled: Vec<(u64, Offset)> = world
                        .model
                        .records
                        .iter()
                        .filter(|(_, known)| is_settled(known))
                        .filter_map(|(number, known)| Some((*number, known.offset?)))
                        .take(5)
                        .collect();
                    let numbers = settled.iter().map(|(number, _)| *number).collect();
                    (
                        What::Replay(stream, settled.into_iter().map(|(_, offset)| offset).collect()),
                        numbers,
                    )
                }
            };
            for number in numbers {
                if let Some(known) = world.model.records.get_mut(&number) {
                    known.is_touched = true;
                }
            }
            let text = format!("{what:?}");
            let Ok(answer) = process.log.shared().post(what) else {
                return Ok(());
            };
            let job = lock(&process.log.shared().intake).jobs.pop_front();
            if let Some(job) = job {
                world.write(process, |writer| {
                    writer.do_job(job);
                    false
                });
            }
            world.note(format!("{text}: {:?}", answer.try_recv()));
            Ok(())
        })
    }
}
