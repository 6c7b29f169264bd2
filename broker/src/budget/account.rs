//! Charging one bound: to its owner and to the whole, before a thing is taken; given back when it ends.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bound::Bound;
use super::reached::{Exceeded, Reached};

/// Who is charged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// An identity that is a fixed word of a listener: a tenth is kept for these, and shares do not bind them.
    FixedWord,
    /// Any other identity.
    Identity(Arc<str>),
    /// A peer without an identity yet: an IPv4 address, or a /64 of IPv6, which one peer has whole.
    Address(IpAddr),
}

/// What is taken of one bound.
#[derive(Debug)]
pub(crate) struct Account {
    bound: Bound,
    /// For all owners together, the reserve included.
    whole: u64,
    /// The part that only fixed words may take.
    reserve: u64,
    /// For one owner that is no fixed word.
    share: u64,
    /// For all owners that are addresses.
    of_addresses: u64,
    taken: Mutex<Taken>,
    reached: Arc<Reached>,
}

#[derive(Debug, Default)]
struct Taken {
    fixed_words: u64,
    others: u64,
    /// Of the others, those without an identity yet.
    addresses: u64,
    by_owner: HashMap<Owner, u64>,
}

/// What one owner has taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    owner: Owner,
    amount: u64,
}

impl Owner {
    /// The owner of a connection with this identity.
    pub(crate) fn of(identity: &Arc<str>, is_fixed_word: bool) -> Self {
        if is_fixed_word {
            Self::FixedWord
        } else {
            Self::Identity(Arc::clone(identity))
        }
    }

    /// The owner of a connection from this address that has no identity yet.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl Account {
    /// An account of which `reserve` is kept for fixed words, within `whole`.
    pub(super) fn new(bound: Bound, whole: u64, reserve: u64, share: u64, reached: Arc<Reached>) -> Arc<Self> {
        Arc::new(Self {
            bound,
            whole,
            reserve,
            share,
            // Of what comes in, half is kept for those who have proved who they are.
            of_addresses: if bound == Bound::InputBytes { (whole - reserve) / 2 } else { whole },
            taken: Mutex::default(),
            reached,
        })
    }

    /// Charges nothing yet: a charge that will grow.
    pub(crate) fn open(self: &Arc<Self>, owner: Owner) -> Charge {
        Charge {
            account: Arc::clone(self),
            owner,
            amount: 0,
        }
    }

    /// Charges this amount, without counting a bound that it would exceed: the caller decides what that means.
    ///
    /// # Errors
    /// That bound.
    pub(crate) fn try_charge(self: &Arc<Self>, owner: Owner, amount: u64) -> Result<Charge, Exceeded> {
        self.take(&owner, amount, self.share)?;
        let mut charge = self.open(owner);
        charge.amount = amount;
        Ok(charge)
    }

    /// Charges this amount, within this share.
    ///
    /// # Errors
    /// The bound that it would exceed; that is counted.
    pub(crate) fn charge_within(self: &Arc<Self>, owner: Owner, amount: u64, share: u64) -> Result<Charge, Exceeded> {
        let mut charge = self.open(owner);
        charge.grow_within(amount, share)?;
        Ok(charge)
    }

    /// What all owners have taken.
    pub(crate) fn taken(&self) -> u64 {
        let taken = self.lock();
        taken.fixed_words + taken.others
    }

    /// What this owner may take while nobody has taken anything.
    fn most(&self, owner: &Owner) -> u64 {
        match owner {
            Owner::FixedWord => self.whole,
            Owner::Identity(_) => self.share.min(self.whole - self.reserve),
            Owner::Address(_) => self.share.min(self.of_addresses),
        }
    }

    /// What all owners may take together.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    fn take(&self, owner: &Owner, amount: u64, share: u64) -> Result<(), Exceeded> {
        let mut taken = self.lock();
        let own = taken.by_owner.get(owner).copied().unwrap_or(0);
        let is_fixed_word = *owner == Owner::FixedWord;
        // Fixed words use up their reserve first.
        let of_the_rest = taken.others + taken.fixed_words.saturating_sub(self.reserve);
        let rest = self.whole - self.reserve;
        let of_addresses = taken.addresses.saturating_add(amount);
        let is_bound = match owner {
            Owner::FixedWord => false,
            Owner::Identity(_) => true,
            // Many devices may be behind one address.
            Owner::Address(_) => of_addresses > self.of_addresses / 2,
        };
        if is_bound && own.saturating_add(amount) > share {
            return Err(Exceeded::share(self.bound, share));
        }
        if matches!(owner, Owner::Address(_)) && of_addresses > self.of_addresses {
            return Err(Exceeded::whole(self.bound, rest));
        }
        let fits = match is_fixed_word {
            true => (taken.others + taken.fixed_words).saturating_add(amount) <= self.whole,
            false => of_the_rest.saturating_add(amount) <= rest,
        };
        if !fits {
            return Err(Exceeded::whole(self.bound, if is_fixed_word { self.whole } else { rest }));
        }
        taken.add(owner, amount);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn add(&mut self, owner: &Owner, amount: u64) {
        if amount == 0 {
            return;
        }
        match owner {
            Owner::FixedWord => self.fixed_words += amount,
            Owner::Identity(_) | Owner::Address(_) => {
                self.others += amount;
                if matches!(owner, Owner::Address(_)) {
                    self.addresses += amount;
                }
                match self.by_owner.get_mut(owner) {
                    Some(own) => *own += amount,
                    None => drop(self.by_owner.insert(owner.clone(), amount)),
                }
            }
        }
    }

    fn give_back(&mut self, owner: &Owner, amount: u64) {
        match owner {
            Owner::FixedWord => self.fixed_words -= amount,
            Owner::Identity(_) | Owner::Address(_) => {
                self.others -= amount;
                if matches!(owner, Owner::Address(_)) {
                    self.addresses -= amount;
                }
                if let Some(own) = self.by_owner.get_mut(owner) {
                    *own -= amount;
                    if *own == 0 {
                        self.by_owner.remove(owner);
                    }
                }
            }
        }
    }
}

impl Charge {
    /// Charges this much more.
    ///
    /// # Errors
    /// The bound that it would exceed; that is counted, and the charge stays as it was.
    pub(crate) fn grow(&mut self, amount: u64) -> Result<(), Exceeded> {
        self.grow_within(amount, self.account.share)
    }

    /// Charges this much more whatever the bound says, for what cannot be refused any more.
    pub(crate) fn force(&mut self, amount: u64) {
        self.account.lock().add(&self.owner, amount);
        self.amount += amount;
    }

    /// Counts a bound of its owner that is kept elsewhere.
    pub(crate) fn note(&self, exceeded: Exceeded) {
        self.account.reached.note(exceeded, &self.owner);
    }

    /// Charges this much in all, more or less than before; an exceeded bound is not counted.
    ///
    /// # Errors
    /// The bound that it would exceed; then the charge stays as it was.
    pub(crate) fn set(&mut self, amount: u64) -> Result<(), Exceeded> {
        // What is larger than any bound may come alone.
        let amount = amount.min(self.account.most(&self.owner));
        if amount > self.amount {
            let more = amount - self.amount;
            self.account.take(&self.owner, more, self.account.share)?;
            self.amount = amount;
        } else {
            self.shrink(self.amount - amount);
        }
        Ok(())
    }

    /// Gives this much of it back.
    pub(crate) fn shrink(&mut self, amount: u64) {
        let amount = amount.min(self.amount);
        if amount == 0 {
            return;
        }
        self.account.lock().give_back(&self.owner, amount);
        self.amount -= amount;
    }

    /// The most that its owner may ever have.
    pub(crate) fn most(&self) -> u64 {
        self.account.most(&self.owner)
    }

    /// What is charged.
    pub(crate) fn amount(&self) -> u64 {
        self.amount
    }

    /// This charge, and another of nothing in its place.
    pub(crate) fn take(&mut self) -> Self {
        let rest = self.account.open(self.owner.clone());
        std::mem::replace(self, rest)
    }

    fn grow_within(&mut self, amount: u64, share: u64) -> Result<(), Exceeded> {
        match self.account.take(&self.owner, amount, share) {
            Ok(()) => {
                self.amount += amount;
                Ok(())
            }
            Err(exceeded) => {
                self.account.reached.note(exceeded, &self.owner);
                Err(exceeded)
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.account.lock().give_back(&self.owner, self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(whole: u64, reserve: u64, share: u64) -> Arc<Account> {
        Account::new(Bound::OutputBytes, whole, reserve, share, Arc::default())
    }

    fn device(name: &str) -> Owner {
        Owner::Identity(name.into())
    }

    #[test]
    fn a_share_binds_its_owner_and_the_whole_binds_all() {
        let account = account(100, 10, 60);
        let first = account.try_charge(device("a"), 60).unwrap();
        assert_eq!(
            account.try_charge(device("a"), 1).unwrap_err(),
            Exceeded::share(Bound::OutputBytes, 60)
        );
        let second = account.try_charge(device("b"), 30).unwrap();
        assert_eq!(
            account.try_charge(device("b"), 1).unwrap_err(),
            Exceeded::whole(Bound::OutputBytes, 90)
        );
        assert_eq!((first.amount(), second.amount(), account.taken()), (60, 30, 90));
        drop(first);
        account.try_charge(device("b"), 30).unwrap();
        drop(second);
        assert_eq!(account.taken(), 0);
        assert!(account.lock().by_owner.is_empty(), "an owner without a charge takes no memory");
    }

    #[test]
    fn half_is_kept_for_identities_and_the_share_of_an_address_binds_while_room_is_short() {
        let account = Account::new(Bound::InputBytes, 100, 0, 10, Arc::default());
        let at = |host: u8| Owner::at([192, 0, 2, host].into());
        let _one = account.try_charge(at(1), 25).unwrap();
        assert_eq!(account.try_charge(at(1), 1).unwrap_err(), Exceeded::share(Bound::InputBytes, 10));
        let _others: Vec<_> = (2..=26).map(|host| account.try_charge(at(host), 1).unwrap()).collect();
        account.try_charge(at(99), 1).unwrap_err();
        let _devices: Vec<_> = (0..5)
            .map(|number| account.try_charge(device(&number.to_string()), 10).unwrap())
            .collect();
        assert_eq!(account.taken(), 100);
    }

    #[test]
    fn the_reserve_is_there_for_fixed_words_alone() {
        let account = account(100, 10, 90);
        let _others = account.try_charge(device("a"), 90).unwrap();
        let mut local = account.try_charge(Owner::FixedWord, 10).unwrap();
        local.grow(1).unwrap_err();
        drop(_others);
        local.grow(90).unwrap();
        account.try_charge(device("a"), 1).unwrap_err();
        // Of what fixed words take, the reserve comes first.
        local.shrink(60);
        account.try_charge(device("a"), 60).unwrap();
        account.try_charge(device("a"), 61).unwrap_err();
    }

    #[test]
    fn a_charge_goes_over_only_by_force_and_is_split_whole() {
        let account = account(100, 0, 100);
        let mut charge = account.try_charge(device("a"), 90).unwrap();
        charge.grow(20).unwrap_err();
        charge.force(20);
        let first = charge.take();
        assert_eq!((first.amount(), charge.amount(), account.taken()), (110, 0, 110));
        charge.grow(1).unwrap_err();
        drop(first);
        charge.grow(100).unwrap();
        assert_eq!(account.taken(), 100);
    }

    #[test]
    fn the_addresses_of_a_64_are_one_owner_and_an_ipv4_address_is_one_however_it_is_written() {
        let at = |text: &str| Owner::at(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
