//! Group commit around a store: one thread commits whatever has come since its last commit.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Acks, Commits, Service, Store, record};

/// A store behind a writer thread, as a program with many connections would use it.
#[derive(Debug)]
pub struct Group {
    shared: Arc<Shared>,
    acks: Arc<Acks>,
    thread: Option<JoinHandle<()>>,
    sequence: u64,
    taken: Vec<u32>,
}

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<Open>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    data: Vec<u8>,
    producers: Vec<u32>,
    closing: bool,
}

impl Group {
    /// Starts the writer thread.
    pub fn new(store: impl Store, acks: Arc<Acks>) -> Group {
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, acks) = (Arc::clone(&shared), Arc::clone(&acks));
            std::thread::spawn(move || write(store, &shared, &acks))
        };
        Group {
            shared,
            acks,
            thread: Some(thread),
            sequence: 0,
            taken: Vec::new(),
        }
    }

    fn append_some(&mut self, producer: u32, count: usize) {
        let mut open = self.shared.lock();
        let was_empty = open.producers.is_empty();
        for _ in 0..count {
            self.sequence += 1;
            record::encode(self.sequence, &mut open.data);
        }
        open.producers.push(producer);
        drop(open);
        if was_empty {
            self.shared.bell.notify_one();
        }
    }
}

impl Service for Group {
    fn append(&mut self, producer: u32) -> anyhow::Result<()> {
        self.append_some(producer, 1);
        Ok(())
    }

    fn rest(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Commits for Group {
    fn commit(&mut self, count: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.append_some(0, count);
        let mut taken = std::mem::take(&mut self.taken);
        taken.clear();
        self.acks.take(&mut taken, None)?;
        self.taken = taken;
        Ok(began.elapsed())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(mut store: impl Store, shared: &Shared, acks: &Acks) {
    let mut batch = Open::default();
    loop {
        {
            let mut open = shared.lock();
            while open.producers.is_empty() {
                if open.closing {
                    return;
                }
                open = shared.bell.wait(open).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut open.data, &mut batch.data);
            std::mem::swap(&mut open.producers, &mut batch.producers);
        }
        match store.commit(&batch.data) {
            Ok(()) => batch.producers.iter().for_each(|producer| acks.push(*producer)),
            Err(error) => acks.fail(format!("{error:#}")),
        }
        batch.data.clear();
        batch.producers.clear();
    }
}
