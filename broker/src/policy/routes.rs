//! Routes: which publishes go to the cloud, and by which stream.

use forebay_topic::TopicFilter;
use forebay_wal::StreamId;

/// One route of the configuration.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in records and metrics: `name:` or its filter.
    pub name: String,
    /// What it matches.
    pub from: TopicFilter,
    /// Where matching publishes go; `None` for `local: true`, which keeps them on the gateway.
    pub stream: Option<StreamId>,
}

/// All routes in order; the first match wins.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// The routes in the order of the configuration.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// The first route that matches, with its index.
    #[must_use]
    pub fn find(&self, topic: &str) -> Option<(usize, &Route)> {
        self.0.iter().enumerate().find(|(_, route)| route.from.matches(topic))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }
}

/// The cloud side's check of a publish before it is acked: whether it can ever be delivered.
pub trait Admission: Send + Sync {
    /// Whether a publish on the route could be delivered upstream.
    ///
    /// # Errors
    /// Why it never can be.
    fn admit(&self, route: &str, identity: &str, topic: &str, payload_bytes: usize) -> Result<(), Undeliverable>;
}

/// A publish that the cloud can never accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeliverable {
    /// A stable reason code such as `topic-too-long`, for labels and dead letters.
    pub reason: &'static str,
    /// A sentence with what is wrong, the value, the limit and what to do.
    pub detail: String,
}

/// Accepts every publish; for a gateway without a cloud.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&self, _route: &str, _identity: &str, _topic: &str, _payload_bytes: usize) -> Result<(), Undeliverable> {
        Ok(())
    }
}
