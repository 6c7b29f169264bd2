//! The device never gives up, never storms, and loses nothing that it measured.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::Duration;

use forebay_device_core::{Cause, Exit, Lost};
use forebay_flash::sim::Random;
use support::{BUILD, Flash, World, boot, pass};
use tokio::task::LocalSet;

async fn local<T>(story: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(story).await
}

/// All numbers of these boots came, each at least once.
fn assert_all(world: &World, boots: &[(u64, u64)]) {
    let got = world.got.borrow();
    for (boot, last) in boots {
        for sequence in 1..=*last {
            assert!(got.contains_key(&(*boot, sequence)), "sample {sequence} of boot {boot} is lost");
        }
    }
    assert_eq!(got.len() as u64, boots.iter().map(|(_, last)| last).sum::<u64>());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_gateway_restarts_cost_no_device_restart_and_no_sample() {
    local(async {
        let seed = std::env::var("FOREBAY_SEED").ok().map_or(1, |text| text.parse().unwrap());
        println!("FOREBAY_SEED={seed}");
        let (world, mut flash) = (World::new(), Flash::new(seed));
        let mut measured = 0;
        let exit = boot(&world, &mut flash, seed, false, async |state| {
            let mut random = Random(seed);
            for _ in 0..1000 {
                pass(random.below(120)).await;
                // Sometimes what came is stored, and the ack never sent.
                world.cut_before_ack.set(random.below(3) as u32);
                world.keeps_sessions.set(random.below(2) == 0);
                world.go_down();
                pass(random.below(240)).await;
                world.is_up.set(true);
            }
            pass(120).await;
            measured = state.borrow().counters().measured;
            let counters = state.borrow().counters();
            assert!(counters.connections > 700, "{counters:?}");
            assert_eq!(state.borrow().queue_counters().evicted, 0);
        })
        .await;
        assert_eq!(exit, Some(Exit::Stopped), "it never asked for a reboot");
        assert_all(&world, &[(1, u64::from(measured))]);
        let order = world.order.borrow();
        let mut firsts: Vec<_> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for key in order.iter() {
            if seen.insert(*key) {
                firsts.push(*key);
            }
        }
        assert!(firsts.is_sorted(), "samples come first in the order in which they were measured");
        println!(
            "{measured} samples over {:?}, {} of them twice",
            world.began.elapsed(),
            order.len() - firsts.len()
        );
    })
    .await;
}

/// The fault of the firmware before this one: three failed tries, a fault, a restart, and what was measured gone.
#[tokio::test(start_paused = true)]
async fn three_failed_tries_are_neither_a_fault_nor_a_restart() {
    for lost in Lost::ALL.into_iter().filter(|lost| *lost != Lost::Module) {
        local(async {
            let (world, mut flash) = (World::new(), Flash::new(1));
            world.join.set(Some(lost));
            let mut measured = 0;
            let exit = boot(&world, &mut flash, 1, false, async |state| {
                while state.borrow().counters().lost[lost.index()] <= 3 {
                    pass(1).await;
                }
                pass(24 * 3600).await;
                world.join.set(None);
                pass(120).await;
                measured = state.borrow().counters().measured;
                assert!(state.borrow().is_connected(), "{lost}: it came back by itself after a day");
                assert_eq!(state.borrow().boot(), 1);
            })
            .await;
            assert_eq!(exit, Some(Exit::Stopped));
            let evicted = {
                let got = world.got.borrow();
                u64::from(measured) - got.len() as u64
            };
            // The ring holds about two hours of samples at one in ten seconds; the rest was counted.
            let health = world.health.borrow();
            assert_eq!(health.len(), 1);
            assert!(
                evicted > 0 && health[0]["queue"]["evicted"].as_u64().unwrap() >= evicted,
                "{}",
                health[0]
            );
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_devices_do_not_dial_at_once_when_their_gateway_returns() {
    local(async {
        let mut dials = Vec::new();
        let down = Duration::from_secs(600);
        for seed in 0..100 {
            let (world, mut flash) = (World::new(), Flash::new(seed));
            boot(&world, &mut flash, seed, false, async |_| {
                pass(60).await;
                world.go_down();
                pass(down.as_secs()).await;
                world.is_up.set(true);
                pass(90).await;
            })
            .await;
            let began = world.began;
            let while_down = world
                .dials
                .borrow()
                .iter()
                .filter(|at| (60..660).contains(&at.duration_since(began).as_secs()))
                .count();
            assert!((8..120).contains(&while_down), "{while_down} dials in ten minutes");
            dials.extend(
                world
                    .dials
                    .borrow()
                    .iter()
                    .map(|at| at.duration_since(began).as_secs())
                    .filter(|at| *at >= 660),
            );
        }
        let mut busiest = [0; 120];
        for at in dials {
            if let Some(second) = busiest.get_mut(at as usize - 660) {
                *second += 1;
            }
        }
        let busiest = busiest.iter().max().unwrap();
        assert!(*busiest <= 12, "of 100 devices {busiest} dialled in one second");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_phase_has_a_deadline() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        world.join.set(Some(Lost::TimedOut));
        let exit = boot(&world, &mut flash, 1, false, async |state| {
            let timeouts = || state.borrow().counters().lost[Lost::TimedOut.index()];
            pass(40).await;
            assert_eq!(timeouts(), 1, "joining");
            world.join.set(None);
            world.open.set(Some(Lost::TimedOut));
            while timeouts() < 2 {
                pass(1).await;
            }
            world.open.set(None);
            world.is_silent.set(true);
            let before = timeouts();
            while timeouts() < before + 1 {
                pass(1).await;
            }
            world.is_silent.set(false);
            pass(180).await;
            assert!(state.borrow().is_connected());
            // A gateway that falls silent in the middle is noticed by an ack that does not come.
            world.is_silent.set(true);
            pass(40).await;
            assert!(!state.borrow().is_connected());
            world.is_silent.set(false);
            pass(180).await;
        })
        .await;
        assert_eq!(exit, Some(Exit::Stopped));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_is_dead_for_an_hour_reboots_the_device_and_costs_no_sample() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        world.join.set(Some(Lost::Module));
        let mut measured = 0;
        let exit = boot(&world, &mut flash, 1, false, async |state| {
            loop {
                pass(1).await;
                measured = state.borrow().counters().measured;
            }
        })
        .await;
        assert_eq!(exit, Some(Exit::Reboot(Cause::Module)));
        assert!(world.began.elapsed() >= Duration::from_secs(3600));
        assert!(world.resets.get() >= 8);
        world.join.set(None);
        let mut second = 0;
        boot(&world, &mut flash, 2, false, async |state| {
            assert_eq!(state.borrow().boot(), 2);
            pass(60).await;
            second = state.borrow().counters().measured;
        })
        .await;
        let first = world.got.borrow().keys().filter(|(boot, _)| *boot == 1).count() as u64;
        assert!(first >= u64::from(measured), "{first} of {measured}");
        assert_all(&world, &[(1, first), (2, u64::from(second))]);
        assert_eq!(world.health.borrow()[0]["gave_up"], "module");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_still_is_not_fed_and_ends_in_a_reboot_that_costs_no_sample() {
    for (hang, cause) in [
        ((|world| world.sensors_hang.set(true)) as fn(&World), Cause::MeasuringStalled),
        (|world| world.radio_hangs.set(true), Cause::ConnectingStalled),
    ] {
        local(async {
            let (world, mut flash) = (World::new(), Flash::new(1));
            world.open.set(Some(Lost::Unreachable));
            let mut measured = 0;
            let mut fed = 0;
            let exit = boot(&world, &mut flash, 1, false, async |state| {
                pass(600).await;
                assert!(world.fed.get() >= 600, "a gateway that is away is no reason to starve the watchdog");
                hang(&world);
                fed = world.fed.get();
                loop {
                    pass(1).await;
                    measured = u64::from(state.borrow().counters().measured);
                }
            })
            .await;
            assert_eq!(exit, Some(Exit::Reboot(cause)));
            assert!(world.fed.get() - fed < 130, "{}", world.fed.get() - fed);
            world.sensors_hang.set(false);
            world.radio_hangs.set(false);
            world.open.set(None);
            boot(&world, &mut flash, 2, false, async |_| pass(60).await).await;
            let first = world.got.borrow().keys().filter(|(boot, _)| *boot == 1).count() as u64;
            assert!(first >= measured, "{first} of {measured}");
            assert_eq!(world.health.borrow()[0]["gave_up"], cause.word());
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_costs_at_most_the_last_minute() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        world.is_up.set(false);
        let mut measured = 0;
        boot(&world, &mut flash, 1, true, async |state| {
            pass(1800).await;
            measured = u64::from(state.borrow().counters().measured);
        })
        .await;
        world.is_up.set(true);
        boot(&world, &mut flash, 2, false, async |_| pass(60).await).await;
        let first = world.got.borrow().keys().filter(|(boot, _)| *boot == 1).count() as u64;
        assert!(first + 7 >= measured, "{first} of {measured} samples, one in ten seconds");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_resumed_and_what_was_in_flight_is_sent_again() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        boot(&world, &mut flash, 1, false, async |_| {
            pass(60).await;
            world.cut_before_ack.set(1);
            pass(120).await;
        })
        .await;
        assert_eq!(*world.connects.borrow(), [true, false], "clean after a boot only");
        assert_eq!(world.got.borrow().values().filter(|count| **count == 2).count(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_publish_waits_and_is_sent_again() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        world.puback.set(0x97);
        let mut measured = 0;
        boot(&world, &mut flash, 1, false, async |state| {
            pass(600).await;
            assert_eq!(state.borrow().counters().acked, 0);
            let refused = state.borrow().counters().refused;
            assert!((60..1200).contains(&refused), "it asks again, and does not hammer: {refused}");
            world.puback.set(0);
            pass(60).await;
            measured = u64::from(state.borrow().counters().measured);
        })
        .await;
        assert_all(&world, &[(1, measured)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_time_is_told_by_the_gateway_dates_what_waits_and_is_known_at_the_next_boot() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        world.is_up.set(false);
        world.time.set(Some(BUILD + Duration::from_secs(86_400)));
        boot(&world, &mut flash, 1, false, async |_| {
            pass(300).await;
            world.is_up.set(true);
            pass(120).await;
        })
        .await;
        for payload in world.payloads.borrow().iter() {
            let (up, at) = (payload["up"].as_u64().unwrap(), payload["at"].as_u64().unwrap());
            assert_eq!(at - up, (BUILD.as_secs() + 86_400) * 1000, "{payload}");
        }
        boot(&world, &mut flash, 2, false, async |state| {
            let state = format!("{:?}", state.borrow());
            assert!(state.contains("is_told: false"));
            pass(60).await;
        })
        .await;
        let health = world.health.borrow();
        assert_eq!((&health[0]["boot"], &health[1]["boot"]), (&1.into(), &2.into()));
        assert_eq!(health[1]["signal"], -61);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn health_is_reported_at_boot_and_hourly_and_an_idle_line_is_pinged() {
    local(async {
        let (world, mut flash) = (World::new(), Flash::new(1));
        boot(&world, &mut flash, 1, false, async |_| pass(3 * 3600 + 60).await).await;
        assert_eq!(world.health.borrow().len(), 4);
        assert_eq!(world.connects.borrow().len(), 1, "one connection all the time");
    })
    .await;
}
