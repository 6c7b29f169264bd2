//! One story: a factory-fresh signed device is provisioned, publishes into the cloud, and goes on through restarts of everything and
//! through an update. `losses.rs` has what it goes through; `firmware/tools/tests/emulator.rs` the promises of its start.
//!
//! Needs the images and QEMU 10: `firmware/run images`.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use forebay_aws_standin::Ledger;
use forebay_image::Slot;
use support::board::{self, Board, CONFIRMED, image};
use support::eventually;
use support::plant::Plant;
use support::telemetry::{self, cloud, scene};

/// A line of firmware/README.md's table of budgets, in bytes.
fn budget(image: &str, what: &str) -> u32 {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/README.md")).unwrap();
    let start = format!("| `{image}` | {what} | ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// The samples in the cloud, as boot and sequence.
fn samples(ledger: &Ledger) -> BTreeSet<(u64, u64)> {
    let arrived = telemetry::samples(ledger, board::NAME).into_iter();
    arrived.map(|sample| (sample.boot, sample.sequence)).collect()
}

async fn more_samples(ledger: &Ledger, than: usize) {
    eventually("more samples are in the cloud", || async {
        (samples(ledger).len() > than).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_device_publishes_over_restarts_of_everything() {
    let plant = Plant::new(&[board::NAME]);
    let (cloud, ledger) = cloud().await;
    let mut gateway = scene(&plant, cloud.address()).gateway();
    gateway.start().await;
    let mut board = Board::new(&plant, gateway.listeners[0]).await;

    // Factory-fresh: it confirms itself once a publish was acked, not before.
    board.see("boot: slot A version 1.0.0 verified");
    board.see("app::application: connected");
    board.see(CONFIRMED);
    more_samples(&ledger, 2).await;
    println!("{}", board.lines.join("\n"));

    // The gateway is killed and comes back.
    let before = samples(&ledger).len();
    gateway.kill().await;
    board.see("app::application: not connected");
    gateway.start().await;
    board.see("app::application: connected");
    more_samples(&ledger, before + 2).await;

    // The module resets itself.
    let before = samples(&ledger).len();
    board.module.set(|faults| faults.resets_itself = true);
    board.see("app::application: not connected");
    board.see("app::application: connected");
    more_samples(&ledger, before + 2).await;

    // The power is cut.
    board.cut_power();
    board.see("version 1.0.0 in slot A, confirmed");
    board.see("app::application: connected");
    let before = samples(&ledger).len();
    more_samples(&ledger, before + 2).await;

    // An update: tried, and confirmed by its own publishes.
    board.offer(Some(&image(Slot::B, 1))).unwrap();
    board.see("boot: slot B version 1.0.1 on trial");
    board.offer(None).unwrap();
    board.see(CONFIRMED);
    board.see(", heap ");
    let stack = board.stack_used().unwrap();
    let said = board.lines.last().unwrap();
    let heap: u32 = said
        .split(", heap ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    println!("{stack} bytes of stack and {heap} of heap, TLS included");
    assert!(stack <= budget("app", "stack"), "{stack} bytes of stack");
    assert!(heap <= budget("app", "heap"), "{heap} bytes of heap");
    board.cut_power();
    assert_eq!(board.flash().unwrap().state().unwrap().confirmed, Some(Slot::B));

    let boots: BTreeSet<u64> = samples(&ledger).into_iter().map(|(boot, _)| boot).collect();
    assert!(boots.len() >= 2, "{boots:?}");
    assert_eq!(gateway.stop().await, 0);
}
