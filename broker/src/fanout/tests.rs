//! The fan-out with its threads and its router.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;

use super::*;

/// A subscriber whose connection takes as long as the test says.
struct Slow {
    took: Sender<Bytes>,
    go_on: Mutex<Receiver<()>>,
}

impl Recipient for Slow {
    fn owe(&self, message: &Arc<Message>, subscriptions: &[SubscriptionOptions]) {
        self.deliver(message, subscriptions);
    }

    fn deliver(&self, message: &Message, _: &[SubscriptionOptions]) {
        self.took.send(message.topic.clone()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
    }
}

fn message(topic: &'static str) -> Message {
    Message {
        topic: Bytes::from_static(topic.as_bytes()),
        origin: Origin::UNKNOWN,
        qos: 0,
        retain: false,
        expiry: None,
        properties: Bytes::new(),
        payload: Bytes::new(),
    }
}

fn options() -> SubscriptionOptions {
    SubscriptionOptions {
        qos: 0,
        no_local: false,
        retain_as_published: false,
        subscription_id: None,
    }
}

#[tokio::test]
async fn a2_a_subscription_is_made_and_ended_while_a_delivery_stands() {
    let (fanout, threads) = start(Arc::default()).unwrap();
    let (took, taken) = channel();
    let (let_go, go_on) = channel();
    let slow: Arc<dyn Recipient> = Arc::new(Slow {
        took,
        go_on: Mutex::new(go_on),
    });
    let filter = |text: &str| TopicFilter::parse(text).unwrap();
    fanout.subscribe(&filter("slow/#"), &slow, options(), Batch(0)).unwrap();
    // More than is in the router at a time: the inlet waits, too.
    for _ in 0..3 * PUSH {
        fanout.publish(Batch(0), message("slow/x"));
    }
    assert_eq!(taken.recv().unwrap(), "slow/x");
    for round in 0..100 {
        let text = format!("other/{round}");
        let place = fanout.subscribe(&filter(&text), &slow, options(), Batch(0)).unwrap().unwrap();
        assert_eq!(fanout.place(&text), Some(place));
        if round % 2 == 0 {
            assert!(fanout.unsubscribe(place, &slow));
        }
    }
    fanout.barrier_within(Batch(0), Duration::from_millis(1)).await;
    // Nothing has moved for as long as one likes, and the fan-out does not take that for its own death.
    assert!(!fanout.is_dead());
    fanout.publish(Batch(0), message("other/99"));
    fanout.publish(Batch(0), message("other/98"));
    for _ in 0..3 * PUSH {
        let_go.send(()).unwrap();
    }
    for _ in 1..3 * PUSH {
        assert_eq!(taken.recv().unwrap(), "slow/x");
    }
    assert_eq!(taken.recv().unwrap(), "other/99");
    let_go.send(()).unwrap();
    fanout.stop();
    assert!(threads.join());
    assert_eq!(taken.try_recv().ok(), None, "what was unsubscribed gets nothing");
}
