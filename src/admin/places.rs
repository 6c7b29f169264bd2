//! How many admin connections there are: of all peers together, and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections. One address has at most a quarter of all places, so that no peer in the network keeps Prometheus out; this
/// machine itself has all.
#[derive(Clone, Debug)]
pub(super) struct Places {
    limit: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    owner: IpAddr,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: Arc::default(),
        }
    }

    /// A place for a connection from this address; `None` if there is none.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let owner = owner(address);
        let mut taken = self.lock();
        let own = taken.get(&owner).copied().unwrap_or(0);
        let share = if owner.is_loopback() { self.limit } else { self.limit.div_ceil(4) };
        if own >= share || taken.values().sum::<usize>() >= self.limit {
            return None;
        }
        taken.insert(owner, own + 1);
        drop(taken);
        Some(Place {
            places: self.clone(),
            owner,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 address: who has one of its addresses has all.
fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_quarter_and_this_machine_all_and_each_place_comes_back() {
        let places = Places::new(8);
        let at = |text: &str| places.take(text.parse().unwrap());
        let mut greedy: Vec<_> = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"].into_iter().filter_map(at).collect();
        assert_eq!((greedy.len(), at("192.0.2.1").is_none()), (2, true));
        let local: Vec<_> = (0..9).filter_map(|_| at("127.0.0.1")).collect();
        assert_eq!((local.len(), at("127.0.0.1").is_none(), at("192.0.2.9").is_none()), (6, true, true));
        greedy.pop();
        drop(local);
        let network: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].into_iter().filter_map(at).collect();
        assert_eq!(network.len(), 2);
        drop((greedy, network));
        assert!(places.lock().is_empty());
        let all: Vec<_> = (0..8).filter_map(|_| at("::1")).collect();
        assert_eq!(all.len(), 8);
    }
}
