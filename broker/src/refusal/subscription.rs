//! Why a subscription is refused.

use forebay_topic::{FilterError, PeerText};

use crate::budget::{Bound, Exceeded, Owner};
use crate::codec::ReasonCode;
use crate::context::Context;
use crate::delivery::ShareError;
use crate::fanout::TooManyFilters;
use crate::limits::{MAX_FILTERS, MAX_MEMBERS};
use crate::observe::add;
use crate::policy::OverBound;

/// Why a filter of a SUBSCRIBE is not granted. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedSubscription {
    #[error("{0}")]
    InvalidShare(ShareError),
    #[error("{0}")]
    InvalidFilter(FilterError),
    #[error("{0}")]
    OverBound(OverBound),
    #[error("no access rule of this identity covers it; correct the filter, or `access` in the configuration")]
    NotAuthorized,
    #[error("its session has {limit} subscriptions already (limits.max_subscriptions); subscribe with wildcards")]
    TooMany { limit: usize },
    #[error("{0}")]
    OverBudget(Exceeded),
    #[error("{0}")]
    TooManyFilters(TooManyFilters),
    #[error("the shared subscription has {MAX_MEMBERS} members already; use several groups, each on a part of the topics")]
    TooManyMembers,
}

impl RefusedSubscription {
    /// The code of SUBACK; on 3.1.1 the codec says 0x80.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::InvalidShare(_) | Self::InvalidFilter(_) | Self::OverBound(_) => ReasonCode::TOPIC_FILTER_INVALID,
            Self::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            Self::TooMany { .. } | Self::OverBudget(_) | Self::TooManyFilters(_) | Self::TooManyMembers => ReasonCode::QUOTA_EXCEEDED,
        }
    }

    fn exceeded(&self) -> Option<Exceeded> {
        match self {
            Self::TooMany { limit } => Some(Exceeded::share(Bound::Subscriptions, *limit as u64)),
            Self::TooManyFilters(_) => Some(Exceeded::whole(Bound::Filters, MAX_FILTERS as u64)),
            Self::TooManyMembers => Some(Exceeded::share(Bound::Members, MAX_MEMBERS as u64)),
            _ => None,
        }
    }

    /// Counts it, and says so in the log, once for each identity.
    pub(crate) fn note(&self, identity: &str, filter: &str, context: &Context) {
        add(&context.stats.subscriptions_refused, 1);
        if let Some(exceeded) = self.exceeded() {
            context.budget.note(exceeded, &Owner::Identity(identity.into()));
        }
        if context.is_first(identity, "subscription") {
            let (identity, filter) = (PeerText::new(identity), PeerText::new(filter));
            tracing::warn!(?identity, ?filter, "a subscription was refused: {self}");
        }
    }
}
