//! How fast a lane may send: token buckets for smoothness, a sliding window for the promise, and a limit that gives way
//! when the cloud refuses or keeps silent. Time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::RateLimit;

const WINDOW: Duration = Duration::from_secs(1);
/// Sends this close together share a slot of the sliding window, which bounds its memory.
const SLOT: Duration = Duration::from_millis(10);
/// The share of a quota that is used: clocks and queues on the way bunch packets a little.
const USED_SHARE: f64 = 0.9;
/// The share of the way back that the limit recovers per second.
const RECOVERY_PER_SECOND: f64 = 0.05;

/// Decides when the next publish may go.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    quota: RateLimit,
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    recent: VecDeque<Slot>,
    recent_messages: u32,
    recent_bytes: u64,
    reduced: Option<Reduced>,
    last_cut: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    at: Instant,
    messages: u32,
    bytes: u64,
}

/// A limit below the configured one, on its way back up.
#[derive(Debug)]
struct Reduced {
    limit: f64,
    target: f64,
    raised_at: Instant,
}

impl RateLimiter {
    pub(crate) fn new(quota: RateLimit, now: Instant) -> Self {
        // A quota of nothing would be a wait without end, which a clock cannot hold.
        let quota = RateLimit {
            messages_per_second: quota.messages_per_second.map(|quota| quota.max(1)),
            bytes_per_second: quota.bytes_per_second.map(|quota| quota.max(1)),
        };
        let bucket = |quota: f64| Bucket::empty(quota * USED_SHARE, quota * (1.0 - USED_SHARE), now);
        Self {
            quota,
            messages: quota.messages_per_second.map(|quota| bucket(f64::from(quota))),
            bytes: quota.bytes_per_second.map(|quota| bucket(quota as f64)),
            recent: VecDeque::new(),
            recent_messages: 0,
            recent_bytes: 0,
            reduced: None,
            last_cut: None,
        }
    }

    /// Begins a connection: the buckets start empty.
    pub(crate) fn restart(&mut self, now: Instant) {
        for bucket in self.messages.iter_mut().chain(self.bytes.iter_mut()) {
            bucket.drain(now);
        }
    }

    /// Whether any limit is in force.
    pub(crate) const fn is_limited(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }

    /// Publishes per second that are allowed now; `None` if there is no limit.
    pub(crate) fn messages_per_second(&mut self, now: Instant) -> Option<f64> {
        self.recover(now);
        self.messages.as_ref().map(|bucket| bucket.rate)
    }

    /// Whether a refusal or silence keeps the limit below the configured one; it rises by itself.
    pub(crate) const fn is_reduced(&self) -> bool {
        self.reduced.is_some()
    }

    /// `None` = a packet of `size` bytes may go now; otherwise when to ask again.
    pub(crate) fn wait_until(&mut self, size: usize, now: Instant) -> Option<Instant> {
        self.recover(now);
        self.forget(now);
        let size = size as u64;
        let messages = self.messages.as_mut().and_then(|bucket| bucket.ready_at(1.0, now));
        let bytes = self.bytes.as_mut().and_then(|bucket| bucket.ready_at(size as f64, now));
        let over_messages = self.quota.messages_per_second.is_some_and(|quota| self.recent_messages >= quota);
        // A packet above the whole quota goes alone in its second.
        let over_bytes = self
            .quota
            .bytes_per_second
            .is_some_and(|quota| self.recent_bytes > 0 && self.recent_bytes + size > quota);
        let window = (over_messages || over_bytes).then(|| self.recent.front().map_or(now, |slot| slot.at + WINDOW));
        messages.into_iter().chain(bytes).chain(window).max()
    }

    /// Takes note of a packet sent.
    pub(crate) fn spend(&mut self, size: usize, now: Instant) {
        let size = size as u64;
        if let Some(bucket) = &mut self.messages {
            bucket.spend(1.0, now);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(size as f64, now);
        }
        self.recent_messages += 1;
        self.recent_bytes += size;
        match self.recent.back_mut() {
            Some(slot) if now < slot.at => {
                slot.messages += 1;
                slot.bytes += size;
            }
            // A slot carries its end, so that none of its packets leaves the window early.
            _ => self.recent.push_back(Slot {
                at: now + SLOT,
                messages: 1,
                bytes: size,
            }),
        }
    }

    /// The cloud refused for the moment, or kept silent: half the rate, at most once a second.
    pub(crate) fn cut(&mut self, now: Instant) {
        if self.last_cut.is_some_and(|at| now.duration_since(at) < WINDOW) {
            return;
        }
        self.last_cut = Some(now);
        self.forget(now);
        let measured = f64::from(self.recent_messages);
        let current = self
            .messages_per_second(now)
            .map_or(measured, |limit| limit.min(measured.max(limit / 2.0)));
        let limit = (current / 2.0).max(1.0);
        // Without a quota the limit is lifted again once it has passed twice the rate at which the cloud objected.
        let target = match (self.quota.messages_per_second, &self.reduced) {
            (Some(quota), _) => f64::from(quota) * USED_SHARE,
            (None, Some(reduced)) => reduced.target,
            (None, None) => (measured * 2.0).max(20.0),
        };
        self.reduced = Some(Reduced {
            limit,
            target,
            raised_at: now,
        });
        self.apply(limit, now);
    }

    fn recover(&mut self, now: Instant) {
        let Some(reduced) = &mut self.reduced else { return };
        let elapsed = now.duration_since(reduced.raised_at).as_secs_f64();
        if elapsed < 0.1 {
            return;
        }
        reduced.raised_at = now;
        reduced.limit += (reduced.target * RECOVERY_PER_SECOND).max(0.2) * elapsed;
        let (limit, target) = (reduced.limit, reduced.target);
        if limit < target {
            return self.apply(limit, now);
        }
        self.reduced = None;
        match self.quota.messages_per_second {
            Some(_) => self.apply(target, now),
            None => self.messages = None,
        }
    }

    fn apply(&mut self, rate: f64, now: Instant) {
        let capacity = (rate * (1.0 - USED_SHARE) / USED_SHARE).max(1.0);
        match &mut self.messages {
            Some(bucket) => bucket.change(rate, capacity, now),
            None => self.messages = Some(Bucket::empty(rate, capacity, now)),
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(slot) = self.recent.front() {
            if slot.at + WINDOW > now {
                return;
            }
            self.recent_messages -= slot.messages;
            self.recent_bytes -= slot.bytes;
            self.recent.pop_front();
        }
    }
}

#[derive(Debug)]
struct Bucket {
    rate: f64,
    capacity: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn empty(rate: f64, capacity: f64, now: Instant) -> Self {
        Self {
            rate,
            capacity: capacity.max(1.0),
            tokens: 0.0,
            at: now,
        }
    }

    fn drain(&mut self, now: Instant) {
        self.tokens = self.tokens.min(0.0);
        self.at = now;
    }

    fn change(&mut self, rate: f64, capacity: f64, now: Instant) {
        self.refill(now);
        (self.rate, self.capacity) = (rate, capacity);
        self.tokens = self.tokens.min(capacity);
    }

    fn refill(&mut self, now: Instant) {
        self.tokens = (self.tokens + self.rate * now.duration_since(self.at).as_secs_f64()).min(self.capacity);
        self.at = now;
    }

    /// A packet larger than the bucket goes when the bucket is full and leaves a debt.
    fn ready_at(&mut self, need: f64, now: Instant) -> Option<Instant> {
        self.refill(now);
        let missing = need.min(self.capacity) - self.tokens;
        // Below a millionth of a token only rounding is missing.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64((missing / self.rate).max(0.000_1)))
    }

    fn spend(&mut self, amount: f64, now: Instant) {
        self.refill(now);
        self.tokens -= amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as the rate limiter lets it for `length`, with sizes from `size`.
    fn simulate(
        rate_limiter: &mut RateLimiter,
        start: Instant,
        length: Duration,
        mut size: impl FnMut() -> usize,
    ) -> Vec<(Duration, usize)> {
        let (mut now, mut sent) = (start, Vec::new());
        let mut next = size();
        while now < start + length {
            match rate_limiter.wait_until(next, now) {
                Some(at) => {
                    assert!(at > now, "no busy loop");
                    now = at;
                }
                None => {
                    rate_limiter.spend(next, now);
                    sent.push((now - start, next));
                    next = size();
                }
            }
        }
        sent
    }

    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    #[test]
    fn no_window_of_one_second_passes_the_quota() {
        for seed in 0..40 {
            let mut next = random(seed);
            let quota = RateLimit {
                messages_per_second: Some(100),
                bytes_per_second: Some(512 * 1024),
            };
            let start = Instant::now();
            let mut rate_limiter = RateLimiter::new(quota, start);
            let largest = [300, 6_000, 131_072][(seed % 3) as usize];
            let sent = simulate(&mut rate_limiter, start, Duration::from_secs(8), || {
                40 + (next() % largest) as usize
            });
            for (index, (begin, _)) in sent.iter().enumerate() {
                let window: Vec<_> = sent[index..].iter().take_while(|(at, _)| *at < *begin + WINDOW).collect();
                assert!(window.len() <= 100, "seed {seed}: {} messages from {begin:?}", window.len());
                let bytes: usize = window.iter().map(|(_, size)| size).sum();
                assert!(bytes <= 512 * 1024, "seed {seed}: {bytes} bytes from {begin:?}");
            }
        }
    }

    #[test]
    fn most_of_the_quota_is_used() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(
            RateLimit {
                messages_per_second: Some(100),
                bytes_per_second: None,
            },
            start,
        );
        let sent = simulate(&mut rate_limiter, start, Duration::from_secs(10), || 256).len();
        assert!((850..=910).contains(&sent), "{sent}");
    }

    #[test]
    fn a_packet_above_the_whole_quota_goes_alone_in_its_second() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(
            RateLimit {
                messages_per_second: None,
                bytes_per_second: Some(64 * 1024),
            },
            start,
        );
        let sent = simulate(&mut rate_limiter, start, Duration::from_secs(20), || 128 * 1024);
        assert!(sent.len() >= 7, "{}", sent.len());
        assert!(sent.windows(2).all(|pair| pair[1].0 - pair[0].0 >= WINDOW));
    }

    #[test]
    fn a_quota_of_nothing_is_the_least_there_is() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(
            RateLimit {
                messages_per_second: Some(0),
                bytes_per_second: Some(0),
            },
            start,
        );
        assert!(simulate(&mut rate_limiter, start, Duration::from_secs(5), || 1).len() >= 3);
    }

    #[test]
    fn a_refusal_halves_the_rate_and_it_recovers() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(
            RateLimit {
                messages_per_second: Some(100),
                bytes_per_second: None,
            },
            start,
        );
        simulate(&mut rate_limiter, start, Duration::from_secs(3), || 256);
        let at = start + Duration::from_secs(3);
        rate_limiter.cut(at);
        rate_limiter.cut(at + Duration::from_millis(10));
        let after = rate_limiter.messages_per_second(at).unwrap();
        assert!((40.0..=46.0).contains(&after), "{after}");
        simulate(&mut rate_limiter, at, Duration::from_secs(30), || 256);
        let later = at + Duration::from_secs(30);
        assert!((rate_limiter.messages_per_second(later).unwrap() - 90.0).abs() < 0.1);
    }

    #[test]
    fn without_a_quota_a_refusal_limits_for_a_while_only() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(RateLimit::default(), start);
        for index in 0..1000 {
            rate_limiter.spend(100, start + Duration::from_micros(index * 500));
        }
        let at = start + Duration::from_millis(600);
        rate_limiter.cut(at);
        assert!((rate_limiter.messages_per_second(at).unwrap() - 500.0).abs() < 1.0);
        let lifted = (1..60).find(|second| rate_limiter.messages_per_second(at + Duration::from_secs(*second)).is_none());
        assert!(lifted.is_some_and(|seconds| (10..40).contains(&seconds)), "{lifted:?}");
    }
}
