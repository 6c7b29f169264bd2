//! `forebay sessions`: what an operator sees of sessions, and drops.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_broker::codec::{Packet, ReasonCode, Subscribe, SubscribeOptions, Subscription, Text, Version};
use serde_json::{Value, json};
use support::device::Device;
use support::eventually;
use support::gateway::{Gateway, forebay};
use support::scene::Scene;

async fn run(gateway: &Gateway, arguments: &[&str]) -> (i32, String) {
    let api = gateway.admin.to_string();
    let url = format!("http://{api}");
    let (code, out, err) = forebay(&[&["sessions"], arguments, &["--url", &url]].concat(), gateway.folder()).await;
    (code, if code == 0 { out } else { out + &err })
}

async fn listed(gateway: &Gateway) -> Vec<Value> {
    let (code, out) = run(gateway, &["ls", "--json"]).await;
    assert_eq!(code, 0, "{out}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    answer["sessions"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_shows_and_drops_sessions_connected_or_not() {
    let mut gateway = Scene::new("sessions").listener("identity: \"{client_id}\"").gateway();
    gateway.start().await;
    let address = gateway.listeners[0];
    // MQTT 3.1.1 without a clean session: it lasts.
    let mut away = Device::connect(address, "away", Version::V311, false).await.unwrap();
    let subscribe = Subscribe {
        packet_id: 1.try_into().unwrap(),
        subscription_id: None,
        user: Vec::new(),
        filters: vec![Subscription {
            filter: Text::from("devices/away/commands/#"),
            options: SubscribeOptions::default(),
        }],
    };
    away.send(&Packet::Subscribe(subscribe)).await.unwrap();
    assert!(matches!(away.next().await, Some(Packet::SubAck(_))));
    drop(away);
    let mut here = Device::connect(address, "here", Version::V5, true).await.unwrap();
    eventually("one is absent", || async {
        (listed(&gateway).await[0]["connected"] == json!(false)).then_some(())
    })
    .await;
    let sessions = listed(&gateway).await;
    assert_eq!(sessions.len(), 2);
    assert_eq!(
        (&sessions[0]["identity"], &sessions[0]["client_id"], &sessions[0]["subscriptions"]),
        (&json!("away"), &json!("away"), &json!(1))
    );
    assert_eq!(
        (&sessions[1]["identity"], &sessions[1]["connected"], &sessions[1]["subscriptions"]),
        (&json!("here"), &json!(true), &Value::Null)
    );
    let status = gateway.status().await;
    assert_eq!(status["sessions"], json!({"kept": 2, "connected": 1}));
    let (code, table) = run(&gateway, &["ls"]).await;
    assert!(code == 0 && table.contains("absent for") && table.contains("connected"), "{table}");
    let (code, shown) = run(&gateway, &["show", "away", "away"]).await;
    assert!(code == 0 && shown.contains("devices/away/commands/#"), "{shown}");
    let (code, text) = run(&gateway, &["show", "away", "other"]).await;
    assert!(code == 1 && text.contains("no such session"), "{text}");

    let (code, text) = run(&gateway, &["drop", "away", "away"]).await;
    assert!(code == 0 && text.contains("nothing was done"), "{text}");
    assert_eq!(listed(&gateway).await.len(), 2);
    assert_eq!(run(&gateway, &["drop", "away", "away", "--yes"]).await.0, 0);
    assert_eq!(run(&gateway, &["drop", "here", "here", "--yes"]).await.0, 0);
    let Some(Packet::Disconnect(disconnect)) = here.next().await else {
        panic!("DISCONNECT was due")
    };
    assert_eq!(disconnect.reason, ReasonCode::ADMINISTRATIVE_ACTION);
    assert!(listed(&gateway).await.is_empty());
    let (code, text) = run(&gateway, &["drop", "here", "here", "--yes"]).await;
    assert!(code == 1 && text.contains("no such session"), "{text}");
    assert_eq!(
        gateway.metric("forebay_sessions_dropped_total", &["reason=\"operator\""]).await,
        2.0
    );
    assert_eq!(
        gateway.metric("forebay_disconnects_total", &["reason=\"session_dropped\""]).await,
        1.0
    );
    gateway.logs(&["INFO", "a session was dropped", "here"]).await;
    // It is gone for good.
    gateway.kill().await;
    gateway.start().await;
    assert!(listed(&gateway).await.is_empty());
}
