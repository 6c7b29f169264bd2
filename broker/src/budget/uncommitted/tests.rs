//! Shares, turns, and nothing lost between those who wait and those who give back.

use std::time::Duration;

use super::*;

fn budget(whole: usize, share: usize, turn: usize) -> Arc<Uncommitted> {
    Arc::new(Uncommitted {
        whole,
        share,
        turn,
        taken: AtomicUsize::new(0),
        waiting: AtomicUsize::new(0),
        turns: Mutex::default(),
        reached: Arc::default(),
    })
}

fn device(number: usize) -> Owner {
    Owner::Identity(format!("d{number}").into())
}

#[test]
fn a15_an_identity_at_its_share_waits_for_itself_alone() {
    let budget = budget(1000, 300, 200);
    let (first, second) = (budget.line(device(1)), budget.line(device(1)));
    let other = budget.line(device(2));
    let held = [first.take(200).unwrap(), second.take(100).unwrap()];
    assert!(
        first.take(1).is_none(),
        "the share is that of the identity, over all its connections"
    );
    let mut waits = second.queue(50);
    assert!(waits.try_recv().is_err());
    for _ in 0..10 {
        assert!(other.queue(150).try_recv().is_ok(), "another identity does not wait for it");
    }
    drop(held);
    assert!(waits.try_recv().is_ok());
    assert_eq!(budget.taken(), 0);
    // A fixed word has no share.
    let local = budget.line(Owner::FixedWord);
    assert!(local.take(900).is_some());
}

/// Each round is a commit: all that was let in is given back. Identities differ in the sizes of their publishes and in how many
/// of them wait, and none of them ever has enough.
#[test]
fn a15_what_waits_goes_round_by_identity_whatever_the_sizes_and_connections() {
    for (whole, sizes) in [
        (1000, &[(10, 100), (10, 700), (90, 30)][..]),
        (1000, &[(1, 1000), (100, 10), (33, 50), (64, 90)]),
        (250, &[(100, 4), (99, 9)]),
    ] {
        let turn = 100;
        let budget = budget(whole, whole, turn);
        let lines: Vec<_> = (0..sizes.len()).map(|identity| budget.line(device(identity))).collect();
        let full = budget.line(Owner::FixedWord).take(whole).unwrap();
        let mut waiting: Vec<VecDeque<_>> = sizes.iter().map(|_| VecDeque::new()).collect();
        let mut got = vec![0; sizes.len()];
        let mut held = vec![full];
        for _ in 0..200 {
            for (identity, (size, most)) in sizes.iter().enumerate() {
                while waiting[identity].len() < *most {
                    waiting[identity].push_back(lines[identity].queue(*size));
                }
            }
            held.clear();
            for (identity, (size, _)) in sizes.iter().enumerate() {
                while let Some(Ok(room)) = waiting[identity].front_mut().map(|first| first.try_recv()) {
                    waiting[identity].pop_front();
                    held.push(room);
                    got[identity] += size;
                }
            }
            assert!(budget.taken() <= whole && budget.taken() + turn > whole, "room is not left empty");
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least <= 2 * turn, "{sizes:?}: {got:?}");
    }
}

#[test]
fn a15_a_large_publish_is_not_kept_out_by_small_ones() {
    let budget = budget(100, 100, 100);
    let (small, large) = (budget.line(device(1)), budget.line(device(2)));
    let mut held: VecDeque<_> = (0..10).map(|_| small.take(10).unwrap()).collect();
    let mut waits = large.queue(100);
    let mut others = Vec::new();
    while !held.is_empty() {
        others.push(small.queue(10));
        assert!(
            others.iter_mut().all(|other| other.try_recv().is_err()),
            "it is the large one's turn"
        );
        held.pop_front();
    }
    assert!(waits.try_recv().is_ok());
    drop((waits, others));
    // More than the whole goes alone.
    assert_eq!(large.ask(1000).unwrap().keep(), 100);
    large.give_back(100);
}

#[test]
fn what_waits_or_was_let_in_for_a_connection_that_ended_is_given_back() {
    let budget = budget(100, 100, 100);
    let (line, other) = (budget.line(device(1)), budget.line(device(2)));
    let full = line.take(100).unwrap();
    let ended = [line.queue(60), other.queue(60)];
    drop(ended);
    let let_in = other.queue(30);
    drop(full);
    assert_eq!(budget.taken(), 30);
    drop(let_in);
    assert_eq!((budget.taken(), budget.waiting.load(SeqCst)), (0, 0));
    let full = line.take(100).unwrap();
    drop(line.queue(1));
    drop(full);
    drop((line, other));
    let turns = budget.lock();
    assert!(turns.round.is_empty() && turns.taken.is_empty(), "{turns:?}");
}

async fn room(line: &Line, amount: usize) -> Room {
    match line.ask(amount) {
        Ok(room) => room,
        Err(granted) => granted.await.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_between_those_who_wait_and_those_who_give_back() {
    let budget = budget(1000, 400, 300);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let line = budget.line(device(number % 7));
        let budget = Arc::clone(&budget);
        tasks.spawn(async move {
            for round in 0..500 {
                let amount = 1 + (number * 37 + round * 11) % 300;
                if round % 13 == 0 {
                    // One that gives up.
                    tokio::time::timeout(Duration::ZERO, room(&line, amount)).await.ok();
                    continue;
                }
                let kept = room(&line, amount).await.keep();
                assert!(kept == amount && budget.taken() <= 1000);
                tokio::task::yield_now().await;
                line.give_back(kept);
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), tasks.join_all())
        .await
        .expect("none waits for ever");
    assert_eq!((budget.taken(), budget.waiting.load(SeqCst)), (0, 0));
    assert!(budget.lock().taken.is_empty());
}
