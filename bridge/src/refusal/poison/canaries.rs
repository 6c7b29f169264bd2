//! What the bridge's own canaries have shown: on one connection, and since the start.

/// So many connections must end at the canary before its topic may be what ends them.
const CLOSES: u32 = 3;

/// How far one connection is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    #[default]
    None,
    /// The canary is in flight.
    Asked,
    /// It was acked, or refused by name: this cloud answers.
    Given,
}

/// What this process knows of its canaries.
#[derive(Debug, Default)]
pub(super) struct Canaries {
    /// One was answered.
    answered: bool,
    /// Connections in a row that the peer closed at one.
    closes: u32,
    /// Another publish was acked.
    others: bool,
}

impl Canaries {
    /// A canary was answered.
    pub(super) const fn answered(&mut self) {
        (self.answered, self.closes) = (true, 0);
    }

    /// Another publish was acked.
    pub(super) const fn other_acked(&mut self) {
        self.others = true;
    }

    /// The peer closed at a canary; true when that begins to look like the canary's own doing.
    pub(super) const fn closed(&mut self) -> bool {
        self.closes = self.closes.saturating_add(1);
        self.closes == CLOSES
    }

    /// Whether no canary was answered yet, and it is not tried in vain: on MQTT 3.1.1 the first connection begins with one, so
    /// that it is known later, when the peer closes at it, whether its topic was allowed before.
    pub(super) const fn are_unknown(&self) -> bool {
        !self.answered && self.closes < CLOSES
    }

    /// Whether the cloud closes at the canary and at it alone: it never took one, and took others. On MQTT 3.1.1 that is a policy
    /// that denies its topic, and it proves nothing.
    pub(super) const fn are_useless(&self) -> bool {
        !self.answered && self.closes >= CLOSES && self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_useless_only_if_it_alone_is_closed_at() {
        let mut canaries = Canaries::default();
        assert!(canaries.are_unknown());
        assert_eq!(
            [canaries.closed(), canaries.closed(), canaries.closed(), canaries.closed()],
            [false, false, true, false]
        );
        assert!(!canaries.are_unknown() && !canaries.are_useless(), "the cloud closes at everything");
        canaries.other_acked();
        assert!(canaries.are_useless());
        canaries.answered();
        for _ in 0..10 {
            canaries.closed();
        }
        assert!(!canaries.are_useless(), "its topic was allowed: what closes now is the cloud");
    }
}
