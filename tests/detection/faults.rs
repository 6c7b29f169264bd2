//! The twelve faults: how each is caused, by what it must be named, how it is cured.

use std::future::Future;
use std::time::Duration;

use forebay_aws_standin::{Cut, Which};
use forebay_broker::codec::Version;
use tokio::time::{Instant, sleep};

use super::expiry;
use super::fleet::Board;
use super::judge::{Expected, Judge, Row};
use super::plants::{Site, Sites, TELEMETRY};
use super::support::device::Device;
use super::support::eventually;

/// All of them at once, in the order of the issue.
pub(crate) async fn all(sites: &Sites, judge: &Judge) -> Vec<Row> {
    let (a, b, c) = tokio::join!(of_devices(sites, judge), of_the_cloud(sites, judge), of_the_gateway(sites, judge));
    let mut rows = [a, b, c].concat();
    rows.sort_by_key(|row| {
        row.fault
            .split('.')
            .next()
            .and_then(|number| number.trim_end_matches(char::is_alphabetic).parse::<u32>().ok())
    });
    rows
}

/// Causes a fault, waits until it is named, cures it, waits until the alert is over.
async fn fault(judge: &Judge, expected: Expected, cause: impl Future<Output = ()>, cure: impl Future<Output = ()>) -> Row {
    let caused = Instant::now();
    cause.await;
    let named = judge.names(&expected, caused).await;
    let cured = Instant::now();
    cure.await;
    judge.is_over(&expected, named, cured).await
}

fn expected(fault: &'static str, alert: &'static str, site: &Site, labels: &[(&'static str, &str)], words: &[&str]) -> Expected {
    let mut labels: Vec<_> = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
    labels.push(("instance", site.instance()));
    Expected {
        fault,
        alert,
        labels,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

async fn of_devices(sites: &Sites, judge: &Judge) -> Vec<Row> {
    let site = &sites.field;
    let board = |number: usize| &site.boards[number - 1];
    let change = |number: usize, change: fn(&mut super::fleet::State)| async move { change(&mut board(number).state()) };
    let topic = fault(
        judge,
        expected(
            "1. A device publishes to a mistyped topic",
            "ForebayPublishesMatchNoRoute",
            site,
            &[("topic", "devices/board-1/telemtry")],
            &["devices/board-1/telemtry", "plant-7", "devices/+/telemetry"],
        ),
        change(1, |state| state.topic = "devices/board-1/telemtry".to_owned()),
        change(1, |state| state.topic = "devices/board-1/telemetry".to_owned()),
    );
    let filter = mistyped_route(sites, judge);
    let name = wrong_name(sites, judge);
    let silent = fault(
        judge,
        expected(
            "4. A device falls silent",
            "ForebayDeviceSilent",
            site,
            &[("device", "board-4")],
            &["board-4", "plant-7", "silent"],
        ),
        change(4, |state| state.is_mute = true),
        change(4, |state| state.is_mute = false),
    );
    let flapping = fault(
        judge,
        expected(
            "5a. A device reconnects over and over",
            "ForebayDeviceFlapping",
            site,
            &[("device", "board-5")],
            &["board-5", "plant-7", "over and over"],
        ),
        change(5, |state| {
            state.flaps = true;
            state.every = Duration::from_secs(3);
        }),
        change(5, |state| {
            state.flaps = false;
            state.every = Duration::from_millis(500);
        }),
    );
    let restarts = fault(
        judge,
        expected(
            "5b. A device reboots",
            "ForebayDeviceRestarted",
            site,
            &[("device", "board-6")],
            &["board-6", "plant-7", "restarted"],
        ),
        change(6, |state| (state.boot, state.seq) = (state.boot + 1, 1)),
        async {},
    );
    let repeats = fault(
        judge,
        expected(
            "6a. A device replays its store",
            "ForebayDeviceSendsTwice",
            site,
            &[("device", "board-7")],
            &["board-7", "plant-7", "twice"],
        ),
        change(7, |state| state.replays = 20),
        async {},
    );
    let gap = fault(
        judge,
        expected(
            "7. 17 messages of a device are missing",
            "ForebayDeviceMessagesMissing",
            site,
            &[("device", "board-8")],
            &["board-8", "plant-7", "17 messages"],
        ),
        change(8, |state| state.seq += 17),
        async {},
    );
    let drift = fault(
        judge,
        expected(
            "12. A temperature climbs 7 degrees against its reference (in 2 minutes instead of hours)",
            "ForebayFieldDrifts",
            site,
            &[("device", "board-9"), ("field", "/temp")],
            &["/temp", "board-9", "plant-7", "off its reference"],
        ),
        // 240 readings in two minutes.
        change(9, |state| state.climb = 7.0 / 240.0),
        change(9, |state| (state.climb, state.temperature) = (0.0, 21.0)),
    );
    let rows = tokio::join!(topic, filter, name, silent, flapping, restarts, repeats, gap, drift);
    let (topic, filter, name, silent, flapping, restarts, repeats, gap, drift) = rows;
    vec![topic, filter, name, silent, flapping, restarts, repeats, gap, drift]
}

/// The site's route is mistyped from the start; the fault begins with the device that it was meant for.
async fn mistyped_route(sites: &Sites, judge: &Judge) -> Row {
    let mut site = sites.mistyped.lock().await;
    let expected = expected(
        "2. A route's filter is mistyped",
        "ForebayRouteMatchesNothing",
        &site,
        &[("route", "devices/+/telemtry")],
        &["devices/+/telemtry", "mistyped", "never matched"],
    );
    let caused = Instant::now();
    let board = Board::start(*site.gateway.listeners.last().unwrap(), "board-1", Duration::from_secs(1));
    let named = judge.names(&expected, caused).await;
    let cured = Instant::now();
    site.reroute("mistyped", TELEMETRY).await;
    let row = judge.is_over(&expected, named, cured).await;
    // It goes on until its site stops, so that it does not fall silent.
    site.boards.push(board);
    row
}

async fn wrong_name(sites: &Sites, judge: &Judge) -> Row {
    let site = &sites.field;
    let (address, tls) = (site.gateway.listeners[0], sites.plant.device("board-3"));
    let dialling = tokio_util::sync::CancellationToken::new();
    let expected = expected(
        "3. Devices dial a name that our certificate does not have",
        "ForebayDevicesDialWrongName",
        site,
        &[("name", "gateway.lan")],
        &["gateway.lan", "plant-7"],
    );
    let cause = async {
        let dialling = dialling.clone();
        tokio::spawn(dialling.run_until_cancelled_owned(async move {
            loop {
                let refused = Device::connect_tls(address, "gateway.lan", &tls, "board-3", Version::V5).await;
                assert!(refused.is_err(), "the device does not accept that certificate");
                sleep(Duration::from_secs(2)).await;
            }
        }));
    };
    fault(judge, expected, cause, async { dialling.cancel() }).await
}

async fn of_the_cloud(sites: &Sites, judge: &Judge) -> Vec<Row> {
    let (deaf, lossy, denied) = (&sites.deaf, &sites.lossy, &sites.denied);
    let acks = fault(
        judge,
        expected(
            "8. The cloud is connected but acks nothing",
            "ForebayCloudAcksNothing",
            deaf,
            &[],
            &["deaf", "acks nothing"],
        ),
        async { deaf.cloud.faults().drop_pubacks(Which::All) },
        async { deaf.cloud.faults().drop_pubacks(Which::None) },
    );
    let twice = fault(
        judge,
        expected(
            "6b. The cloud has messages twice after a replay",
            "ForebayCloudDuplicates",
            lossy,
            &[],
            &["lossy", "twice"],
        ),
        async {
            for _ in 0..2 {
                lossy.cloud.faults().drop_pubacks(Which::All);
                eventually("a window waits for acks", || async {
                    (lossy.gateway.metric("forebay_cloud_in_flight", &[]).await >= 20.0).then_some(())
                })
                .await;
                lossy.cloud.faults().drop_pubacks(Which::None);
                lossy.cloud.faults().cut_all(Cut::Reset);
                eventually("the window was acked", || async {
                    (lossy.gateway.metric("forebay_cloud_in_flight", &[]).await < 10.0).then_some(())
                })
                .await;
            }
        },
        async {},
    );
    let policy = fault(
        judge,
        expected(
            "9. The cloud refuses one route's topic by policy",
            "ForebayCloudDeniesTopic",
            denied,
            &[("route", "devices/+/alarm")],
            &["devices/+/alarm", "denied", "policy"],
        ),
        async {
            denied.cloud.faults().deny("alarm/*");
            denied.boards[0].state().topic = "devices/board-1/alarm".to_owned();
        },
        async { denied.cloud.faults().allow("alarm/*") },
    );
    let (acks, twice, policy) = tokio::join!(acks, twice, policy);
    vec![acks, twice, policy]
}

async fn of_the_gateway(sites: &Sites, judge: &Judge) -> Vec<Row> {
    let filling = &sites.filling;
    let disk = fault(
        judge,
        expected(
            "10. The log would be full before the stated outage is over",
            "ForebayHoldOutTooShort",
            filling,
            &[],
            &["filling", "without the cloud"],
        ),
        async {
            let mut state = filling.boards[0].state();
            (state.every, state.fill) = (Duration::from_millis(20), 400);
        },
        async {
            let mut state = filling.boards[0].state();
            (state.every, state.fill) = (Duration::from_secs(1), 0);
        },
    );
    let (disk, expiring) = tokio::join!(disk, expiry::both(sites, judge));
    let mut rows = vec![disk];
    rows.extend(expiring);
    rows
}
