//! The ring against a model, on a flash that loses power.

extern crate std;

use std::collections::{BTreeSet, VecDeque};
use std::vec::Vec;

use forebay_flash::sim::{Random, Sim};

use super::*;
use crate::sample::tests::sample;

const PAGES: u32 = 3;

fn waiting(journal: &mut Journal<&mut Sim>) -> Vec<SampleId> {
    let mut found = Vec::new();
    while let Some(sample) = journal.nth(found.len()) {
        assert_eq!(
            sample,
            crate::sample::tests::sample(sample.id.boot, sample.id.sequence),
            "nothing but what was appended"
        );
        found.push(sample.id);
    }
    assert_eq!(found.len(), journal.len());
    found
}

#[test]
fn samples_wait_in_order_over_reboots_until_they_are_released() {
    let mut flash = Sim::new(PAGES * PAGE, 1);
    for boot in 1..=3 {
        let mut journal = Journal::open(&mut flash);
        for sequence in 1..=5 {
            assert_eq!(journal.append(&sample(boot, sequence)), Ok(0));
        }
        assert!(journal.release(SampleId { boot, sequence: 2 }));
        assert!(!journal.release(SampleId { boot, sequence: 2 }));
    }
    let expected: Vec<_> = (1..=3)
        .flat_map(|boot| [1, 3, 4, 5].map(|sequence| SampleId { boot, sequence }))
        .collect();
    assert_eq!(waiting(&mut Journal::open(&mut flash)), expected);
}

#[test]
fn a_full_ring_evicts_its_oldest_page_and_says_so() {
    let mut flash = Sim::new(PAGES * PAGE, 1);
    let mut journal = Journal::open(&mut flash);
    let room = PAGES * SLOTS;
    for sequence in 1..=room {
        assert_eq!(journal.append(&sample(1, sequence)), Ok(0));
    }
    assert_eq!(journal.append(&sample(1, room + 1)), Ok(SLOTS));
    let found = waiting(&mut journal);
    assert_eq!(found.first().unwrap().sequence, SLOTS + 1);
    assert_eq!(found.last().unwrap().sequence, room + 1);
}

#[test]
fn wear_is_even() {
    let mut flash = Sim::new(PAGES * PAGE, 1);
    let mut journal = Journal::open(&mut flash);
    for sequence in 1..=SLOTS * PAGES * 10 {
        journal.append(&sample(1, sequence)).unwrap();
        assert!(journal.release(SampleId { boot: 1, sequence }));
    }
    assert_eq!(flash.most_erases(), 10);
}

#[test]
fn a_worn_word_costs_its_slot_and_no_sample() {
    const PAGES: u32 = 8;
    let mut flash = Sim::new(PAGES * PAGE, 1);
    flash.wear_out(40);
    let mut journal = Journal::open(&mut flash);
    let count = PAGES * SLOTS / 2;
    for sequence in 1..=count {
        assert_eq!(journal.append(&sample(1, sequence)), Ok(0));
    }
    let all: Vec<_> = (1..=count).map(|sequence| SampleId { boot: 1, sequence }).collect();
    assert_eq!(waiting(&mut Journal::open(&mut flash)), all);
}

#[test]
fn a_cut_while_a_page_is_claimed_brings_no_released_sample_back() {
    for seed in 0..1000 {
        let mut flash = Sim::new(PAGES * PAGE, seed);
        let mut journal = Journal::open(&mut flash);
        let room = PAGES * SLOTS;
        for sequence in 1..=room {
            journal.append(&sample(1, sequence)).unwrap();
            assert!(journal.release(SampleId { boot: 1, sequence }));
        }
        // The header's zeros, the erase, the new header: five operations.
        journal.flash.cut_after(seed % 5);
        journal.append(&sample(1, room + 1)).unwrap_err();
        flash.power_on();
        assert_eq!(waiting(&mut Journal::open(&mut flash)), [], "seed {seed}");
    }
}

/// A life of appends, releases and power cuts. The model says what must be there and what may.
fn live(seed: u64, cut_each: impl Fn(&mut Random) -> u64, boots: u32) {
    let mut random = Random(seed);
    let mut flash = Sim::new(PAGES * PAGE, seed);
    // What must wait, in order; what may be there besides, at any later boot, because a torn word reads differently each time:
    // appends, releases and evictions that a cut met.
    let mut must: VecDeque<SampleId> = VecDeque::new();
    let mut may: BTreeSet<SampleId> = BTreeSet::new();
    let mut all: Vec<SampleId> = Vec::new();
    for boot in 1..=boots {
        flash.power_on();
        let mut journal = Journal::open(&mut flash);
        let found = waiting(&mut journal);
        assert!(found.is_sorted(), "seed {seed} boot {boot}: {found:?}");
        let kept: BTreeSet<_> = found.iter().copied().collect();
        for id in &must {
            assert!(kept.contains(id) || may.contains(id), "seed {seed} boot {boot}: {id:?} is lost");
        }
        for id in &found {
            assert!(must.contains(id) || may.contains(id), "seed {seed} boot {boot}: {id:?} came back");
        }
        must = found.into();
        journal.flash.cut_after(cut_each(&mut random));
        for sequence in 1.. {
            let id = SampleId { boot, sequence };
            all.push(id);
            match journal.append(&sample(boot, sequence)) {
                Ok(evicted) => {
                    must.drain(..evicted as usize).for_each(drop);
                    must.push_back(id);
                }
                Err(NotWritten) => {
                    assert!(journal.flash.is_dark(), "seed {seed} boot {boot}: a living flash takes it");
                    // The cut met the append or the eviction before it: the oldest page may be gone or not.
                    may.insert(id);
                    let evicted: Vec<_> = must.drain(..must.len() - journal.len()).collect();
                    may.extend(evicted);
                    break;
                }
            }
            assert_eq!(journal.len(), must.len());
            while random.below(3) == 0 && !must.is_empty() {
                let index = random.below(must.len().min(8) as u64) as usize;
                let id = must.remove(index).unwrap();
                assert!(journal.release(id) || journal.flash.is_dark());
                if journal.flash.is_dark() {
                    may.insert(id);
                }
            }
            if journal.flash.is_dark() {
                break;
            }
        }
    }
}

#[test]
fn no_power_cut_in_thousands_of_lives_loses_mixes_or_brings_back_a_sample() {
    for seed in 0..2000 {
        live(seed, |random| random.below(400), 6);
    }
}

#[test]
fn a_cut_at_every_single_operation_is_survived() {
    // One wrap of the ring takes about 800 operations.
    for operation in 0..1000 {
        live(operation, |_| operation, 3);
    }
}
