//! Turns: a device thread has many connections, and none of them may keep it for longer than a millisecond at a stretch.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The longest turn. A handler that began within it is not interrupted.
const LONGEST: Duration = Duration::from_millis(1);

thread_local! {
    /// When the task that is at work on this thread got its turn.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `task`, which gives way by [`give_way`].
pub(crate) fn in_turns<T>(mut task: impl Future<Output = T> + Unpin) -> impl Future<Output = T> {
    std::future::poll_fn(move |context| {
        BEGAN.set(Some(Instant::now()));
        Pin::new(&mut task).poll(context)
    })
}

/// Lets the others of this thread go on if the turn has been long enough.
pub(super) fn give_way() -> GiveWay {
    give_way_since(BEGAN.get())
}

/// The same for a task that notes its own time.
pub(super) fn give_way_since(began: Option<Instant>) -> GiveWay {
    GiveWay(began.is_some_and(|began| began.elapsed() >= LONGEST))
}

/// Whether a turn is still to be given.
pub(super) struct GiveWay(bool);

impl Future for GiveWay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::take(&mut self.0) {
            return Poll::Ready(());
        }
        // Behind all that can go on now.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn a_task_gives_way_after_a_millisecond_and_not_before() {
        let turns = Arc::<Mutex<Vec<&str>>>::default();
        let work = |name, each: Duration| {
            let turns = Arc::clone(&turns);
            tokio::spawn(in_turns(Box::pin(async move {
                for _ in 0..3 {
                    let began = Instant::now();
                    while began.elapsed() < each {
                        std::hint::spin_loop();
                    }
                    turns.lock().unwrap().push(name);
                    give_way().await;
                }
            })))
        };
        let (one, other) = (work("one", LONGEST), work("other", LONGEST));
        one.await.unwrap();
        other.await.unwrap();
        let held = |turns: &[&str]| turns.windows(3).any(|three| three.iter().all(|name| *name == three[0]));
        assert!(!held(&turns.lock().unwrap()), "{turns:?}");
        turns.lock().unwrap().clear();
        let (quick, other) = (work("quick", Duration::ZERO), work("other", Duration::ZERO));
        quick.await.unwrap();
        other.await.unwrap();
        // A busy machine may interrupt it.
        assert!(turns.lock().unwrap().windows(2).any(|two| two[0] == two[1]));
    }
}
