//! Watches Prometheus' alerts and notes when each began to fire and when it was over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::NAMED;
use super::support::prometheus::Prometheus;
use super::support::within;

/// How often the alerts are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long after its cure an alert may stay: the rules look back two minutes, a device's trouble counts for five.
const RESOLVED: Duration = Duration::from_secs(400);

/// One alert's time of firing.
#[derive(Clone, Debug)]
struct Firing {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    since: Instant,
    until: Option<Instant>,
    /// A fault has claimed it.
    expected: bool,
}

/// The alert that a fault must raise.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// The fault, as docs/detection.md lists it.
    pub(crate) fault: &'static str,
    pub(crate) alert: &'static str,
    /// Labels it must have.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// What its summary must say: what is wrong, and where.
    pub(crate) words: Vec<String>,
}

/// What became of a fault.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) fault: &'static str,
    pub(crate) alert: &'static str,
    pub(crate) summary: String,
    pub(crate) runbook: String,
    pub(crate) named: Duration,
    pub(crate) resolved: Duration,
}

/// The watcher. Ends when dropped.
pub(crate) struct Judge {
    firings: Arc<Mutex<Vec<Firing>>>,
    task: AbortHandle,
}

impl Judge {
    pub(crate) fn start(prometheus: Arc<Prometheus>) -> Self {
        let firings = Arc::<Mutex<Vec<Firing>>>::default();
        let noted = Arc::clone(&firings);
        let task = tokio::spawn(async move {
            loop {
                let alerts = prometheus.alerts().await;
                note(&mut lock(&noted), &alerts);
                sleep(LOOK).await;
            }
        });
        Self {
            firings,
            task: task.abort_handle(),
        }
    }

    /// The fault has just been caused: waits until it is named; the alert's words are judged.
    pub(crate) async fn names(&self, expected: &Expected, caused: Instant) -> Named {
        let what = format!("{} names itself by {}{:?}", expected.fault, expected.alert, expected.labels);
        let firing = within(NAMED, &what, || async { self.claim(expected, caused) }).await;
        let text = |name: &str| firing.annotations.get(name).cloned().unwrap_or_default();
        for word in &expected.words {
            assert!(
                text("summary").contains(word),
                "{what}: `{}` does not say `{word}`",
                text("summary")
            );
        }
        println!(
            "{}: {:?} until {}",
            expected.fault,
            firing.since.duration_since(caused),
            text("summary")
        );
        Named {
            summary: text("summary"),
            runbook: text("runbook"),
            after: firing.since.duration_since(caused),
        }
    }

    /// The fault has just been cured: waits until its alert is over.
    pub(crate) async fn is_over(&self, expected: &Expected, named: Named, cured: Instant) -> Row {
        let what = format!("{} is over", expected.alert);
        let over = within(RESOLVED, &what, || async { self.over(expected) }).await;
        let resolved = over.saturating_duration_since(cured);
        println!("{}: over {resolved:?} after its cure", expected.fault);
        Row {
            fault: expected.fault,
            alert: expected.alert,
            summary: named.summary,
            runbook: named.runbook,
            named: named.after,
            resolved,
        }
    }

    /// Nothing has fired so far.
    pub(crate) fn has_seen_nothing(&self) {
        let firings = lock(&self.firings);
        assert!(firings.is_empty(), "nothing was done to them: {firings:#?}");
    }

    /// The names of the alerts that began to fire at an instance after a moment.
    pub(crate) fn raised_since(&self, instance: &str, since: Instant) -> Vec<String> {
        let firings = lock(&self.firings);
        let here = firings
            .iter()
            .filter(|firing| firing.since >= since && firing.labels.get("instance").is_some_and(|at| at == instance));
        let mut names: Vec<_> = here.filter_map(|firing| firing.labels.get("alertname").cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Alerts that no fault claimed: its consequences elsewhere.
    pub(crate) fn others(&self) -> Vec<String> {
        let firings = lock(&self.firings);
        let others = firings.iter().filter(|firing| !firing.expected);
        others
            .map(|firing| firing.annotations.get("summary").cloned().unwrap_or_default())
            .collect()
    }

    fn claim(&self, expected: &Expected, caused: Instant) -> Option<Firing> {
        let mut firings = lock(&self.firings);
        let found = firings.iter_mut().find(|firing| firing.since >= caused && firing.fits(expected))?;
        found.expected = true;
        Some(found.clone())
    }

    /// When the last of the fault's alerts ended, if none is left.
    fn over(&self, expected: &Expected) -> Option<Instant> {
        let mut firings = lock(&self.firings);
        let mut last = None;
        for firing in firings.iter_mut().filter(|firing| firing.fits(expected)) {
            firing.expected = true;
            last = last.max(Some(firing.until?));
        }
        last
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A fault that is named.
pub(crate) struct Named {
    summary: String,
    runbook: String,
    after: Duration,
}

impl Firing {
    fn fits(&self, expected: &Expected) -> bool {
        let name = self.labels.get("alertname");
        name.is_some_and(|name| name == expected.alert)
            && expected.labels.iter().all(|(label, value)| self.labels.get(*label) == Some(value))
    }
}

/// A test that failed meanwhile has said why.
fn lock(firings: &Mutex<Vec<Firing>>) -> MutexGuard<'_, Vec<Firing>> {
    firings.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(firings: &mut Vec<Firing>, alerts: &[Value]) {
    let now = Instant::now();
    let firing: Vec<_> = alerts.iter().filter(|alert| alert["state"] == "firing").collect();
    let texts = |value: &Value| -> BTreeMap<String, String> { serde_json::from_value(value.clone()).unwrap() };
    for alert in &firing {
        let labels = texts(&alert["labels"]);
        match firings.iter_mut().find(|known| known.until.is_none() && known.labels == labels) {
            Some(_) => {}
            None => firings.push(Firing {
                labels,
                annotations: texts(&alert["annotations"]),
                since: now,
                until: None,
                expected: false,
            }),
        }
    }
    for known in firings.iter_mut().filter(|known| known.until.is_none()) {
        if !firing.iter().any(|alert| texts(&alert["labels"]) == known.labels) {
            known.until = Some(now);
        }
    }
}
