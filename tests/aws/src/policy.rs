//! What a client may do, after the IoT policy model: a deny wins, then an allow is needed.

use crate::glob;

/// An IoT policy reduced to topic globs (`*` and `?`; `+` and `#` are literals).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Client ids that may connect.
    pub connect: Vec<String>,
    /// Topics that may be published to.
    pub publish: Vec<String>,
    /// Topic filters that may be subscribed to, and topics that may be received.
    pub subscribe: Vec<String>,
    /// Topics and filters refused whatever the other lists say.
    pub deny: Vec<String>,
}

impl Policy {
    /// Everything is allowed; the starting point of most tests.
    pub fn allow_all() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            connect: all(),
            publish: all(),
            subscribe: all(),
            deny: Vec::new(),
        }
    }

    pub(crate) fn may_connect(&self, client_id: &str) -> bool {
        any(&self.connect, client_id)
    }

    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        !any(&self.deny, topic) && any(&self.publish, topic)
    }

    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        !any(&self.deny, filter) && any(&self.subscribe, filter)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::allow_all()
    }
}

fn any(globs: &[String], text: &str) -> bool {
    globs.iter().any(|pattern| glob::matches(pattern, text))
}
