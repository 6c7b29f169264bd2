//! What dials leave behind that fail for months: one test in a process of its own, for it counts what the process holds.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use forebay_aws_standin::certificates::Authority;
use forebay_bridge::{Backoff, Version};
use support::Rig;
use support::scripted::cloud;
use tokio::net::TcpListener;

/// Open descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[tokio::test]
async fn k27_dials_that_fail_leave_no_descriptor_and_no_thread() {
    let dials = std::env::var("FOREBAY_DIALS").map_or(300, |dials| dials.parse().unwrap());
    let authority = Authority::new("cloud").unwrap();
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let closing = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let closing_port = closing.local_addr().unwrap().port();
    tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    let refusing = cloud(|_| vec![0x20, 3, 0, 0x87, 0], |_| None).await;
    let garbage = cloud(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), |_| None).await;
    // Nothing is resolved for a name with a NUL, so no resolver of the network is asked.
    for (what, port, is_tls, host) in [
        ("refused", nobody, false, "127.0.0.1"),
        ("tls", closing_port, true, "localhost"),
        ("denied", refusing, false, "127.0.0.1"),
        ("protocol", garbage, false, "127.0.0.1"),
        ("dns", nobody, false, "no\0name"),
    ] {
        let mut rig = Rig::plain(Version::V5).await;
        (rig.config.port, rig.config.host) = (port, host.to_owned());
        rig.config.tls = is_tls.then(|| authority.client_tls(None).unwrap().into());
        rig.config.backoff = Backoff {
            initial: Duration::from_millis(1),
            ceiling: Duration::from_millis(1),
            connect_spacing: Duration::ZERO,
            ..rig.config.backoff
        };
        rig.publish("d1", 3);
        rig.start();
        rig.until("the first dials", |rig| rig.ended(what) >= dials / 3).await;
        let before = held();
        rig.until("many dials", |rig| rig.ended(what) >= dials).await;
        let after = held();
        // What is open at any moment differs by one dial and the ends of the one before.
        assert!(
            after.0 <= before.0 + 8 && after.1 <= before.1 + 4,
            "{what}: {before:?}, then {after:?}"
        );
        rig.stop().await;
    }
}
