//! The instruments of the bounds on what peers leave behind.

use forebay_broker::{BoundStatus, DroppedSession};

use super::{Instrument, Moment, Series, by, by_reason, counter, gauge, series};

#[rustfmt::skip]
pub(super) const BUDGET: &[Instrument] = &[
    by(&["bound"], counter("forebay_bound_reached_total", "times", "How often a bound on what peers leave behind was reached, by bound: which of them is short? docs/configuration.md lists them with what happens then.", |m| bounds(m, |bound| Some(bound.reached)))),
    by(&["bound"], gauge("forebay_bound_taken", "of the bound", "What is taken of the bound now. Only bounds that are charged to an account.", |m| bounds(m, |bound| Some(bound.taken?.0)))),
    by(&["bound"], gauge("forebay_bound_max", "of the bound", "The bound of all peers together, with the tenth that is kept for fixed words.", |m| bounds(m, |bound| Some(bound.taken?.1)))),
    by(&["reason"], counter("forebay_sessions_dropped_total", "sessions", "Sessions without a connection, and parts of them, that were dropped before their expiry. `made_room`: an empty session ended for a new one; `longest_gone`: there was no empty one, and the one that had been away for longest did; `at_start`: a session, a subscription or a packet id over a bound. `operator`: `forebay sessions drop`, connected or not.", |m| by_reason(DroppedSession::ALL, DroppedSession::label, |reason| m.stats.front.dropped_sessions(reason)))),
];

fn bounds(moment: &Moment<'_>, read: fn(&BoundStatus) -> Option<u64>) -> Vec<Series> {
    let bounds = moment.figures.front.bounds.iter();
    bounds
        .filter_map(|bound| Some(series(&[bound.bound.label()], read(bound)? as f64)))
        .collect()
}
