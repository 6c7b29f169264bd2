//! SUBSCRIBE and UNSUBSCRIBE.

use super::{Connection, Ending, Line};
use crate::{
    decode::{Subscribe, Version},
    encode,
    hub::End,
    rules,
};

impl Connection {
    pub(super) fn on_subscribe<S>(&self, line: &mut Line<S>, subscribe: &Subscribe) -> Result<(), Ending> {
        let limits = &self.shared.config.limits;
        if subscribe.has_identifier {
            return Err(self.violate(0xA1, "subscription identifiers are not available"));
        }
        if subscribe.filters.len() > limits.filters_per_subscribe {
            let why = format!(
                "{} filters in one SUBSCRIBE, the limit is {}",
                subscribe.filters.len(),
                limits.filters_per_subscribe
            );
            if self.version == Version::V311 {
                return Err(self.violate(0x97, &why));
            }
            self.note_violation(&why);
            line.out.extend(encode::suback(
                self.version,
                subscribe.packet_id,
                &vec![0x97; subscribe.filters.len()],
            ));
            return Ok(());
        }
        let policy = self.shared.faults.policy();
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for (filter, asked) in &subscribe.filters {
            let code = if let Some(code) = rules::filter_refused(filter, limits) {
                self.note_violation(&format!("topic filter {filter:?} is refused with 0x{code:02X}"));
                code
            } else if !policy.may_subscribe(filter) {
                if self.version == Version::V311 {
                    return Err(Ending::Ours(End::Disconnect(0x87)));
                }
                0x87
            } else if !self
                .shared
                .hub
                .subscribe(&self.client_id, filter, (*asked).min(1), limits.subscriptions)
            {
                self.note_violation(&format!("more than {} subscriptions", limits.subscriptions));
                0x97
            } else {
                (*asked).min(1)
            };
            codes.push(code);
        }
        line.out.extend(encode::suback(self.version, subscribe.packet_id, &codes));
        Ok(())
    }

    pub(super) fn on_unsubscribe<S>(&self, line: &mut Line<S>, packet_id: u16, filters: &[String]) {
        let removed = |filter: &String| self.shared.hub.unsubscribe(&self.client_id, filter);
        let codes: Vec<u8> = filters.iter().map(|filter| if removed(filter) { 0 } else { 0x11 }).collect();
        line.out.extend(encode::unsuback(self.version, packet_id, &codes));
    }
}
