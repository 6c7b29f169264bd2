//! Names that devices connect to and the server certificate lacks, counted when the handshake fails: a common fault of a new
//! certificate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::budget::Owner;
use crate::tls::{HandshakeFailure, HandshakeFault, name_is_covered};

/// Distinct names counted; further ones count as `other`.
const MAX_NAMES: usize = 32;
/// Of these, from one address: a name is not proved, and nobody in the network may fill the list.
const MAX_OF_ONE: usize = 4;
/// Counted for a peer that sent no name (SNI), as clients do that connect to an address.
const ADDRESS: &str = "none";
const OTHER: &str = "other";

/// Failed handshakes by the name that the device connected to.
#[derive(Debug, Default)]
pub(crate) struct WrongNames(Mutex<BTreeMap<String, Counted>>);

#[derive(Debug)]
struct Counted {
    handshakes: u64,
    /// Who dialled it first.
    owner: Owner,
}

impl WrongNames {
    /// Counts the failure if the name explains it. A peer that closed without an alert is counted only if it sent a name:
    /// without one it may be any scanner.
    pub(crate) fn note(&self, failure: &HandshakeFailure, address: IpAddr) {
        let refused = matches!(failure.fault, HandshakeFault::RefusedOurs { .. });
        let name = match (&failure.fault, failure.sni.as_deref()) {
            (HandshakeFault::RefusedOurs { .. } | HandshakeFault::ClosedEarly, Some(name)) if !name_is_covered(&failure.names, name) => {
                name
            }
            (_, None) if refused => ADDRESS,
            _ => return,
        };
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = Owner::at(address);
        let of_one = || names.values().filter(|counted| counted.owner == owner).count();
        let is_known = names.contains_key(name) || (names.len() < MAX_NAMES && of_one() < MAX_OF_ONE);
        let counted = names.entry(if is_known { name } else { OTHER }.to_owned());
        counted.or_insert(Counted { handshakes: 0, owner }).handshakes += 1;
    }

    /// The names, and how many handshakes failed for each.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(|(name, counted)| (name.clone(), counted.handshakes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(fault: HandshakeFault, sni: Option<&str>) -> HandshakeFailure {
        HandshakeFailure {
            fault,
            sni: sni.map(str::to_owned),
            presented: None,
            names: vec!["plant-7.local".to_owned()].into(),
            ours_ended: None,
        }
    }

    fn at(host: u8) -> IpAddr {
        [192, 0, 2, host].into()
    }

    const REFUSED: HandshakeFault = HandshakeFault::RefusedOurs { alert: "bad_certificate" };

    #[test]
    fn only_names_that_our_certificate_lacks_are_counted() {
        let names = WrongNames::default();
        names.note(&failure(REFUSED, Some("plant-7.local")), at(1));
        names.note(&failure(HandshakeFault::UnknownCa, Some("gateway.local")), at(1));
        names.note(&failure(HandshakeFault::ClosedEarly, None), at(1));
        assert!(names.list().is_empty(), "{:?}", names.list());
        names.note(&failure(REFUSED, Some("gateway.local")), at(1));
        names.note(&failure(HandshakeFault::ClosedEarly, Some("gateway.local")), at(1));
        names.note(&failure(REFUSED, None), at(1));
        assert_eq!(names.list(), [("gateway.local".to_owned(), 2), (ADDRESS.to_owned(), 1)]);
    }

    #[test]
    fn names_are_bounded() {
        let names = WrongNames::default();
        for number in 0..1000 {
            names.note(&failure(REFUSED, Some(&format!("n{number}"))), at(1));
        }
        assert_eq!(names.list().len(), MAX_OF_ONE + 1, "one address does not fill the list");
        names.note(&failure(REFUSED, Some("gateway.local")), at(2));
        assert!(names.list().contains(&("gateway.local".to_owned(), 1)));
        for number in 0..1000_u16 {
            names.note(&failure(REFUSED, Some(&format!("n{number}"))), at(3 + (number % 100) as u8));
        }
        let list = names.list();
        assert!(list.len() <= MAX_NAMES + 1);
        assert_eq!(list.iter().map(|(_, count)| count).sum::<u64>(), 2001);
    }
}
