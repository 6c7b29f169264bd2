//! The log over the admin API: `/log/...`, `/dead/...` and `/audit`, described in `docs/status.md`.
//!
//! Reading blocks on the disk, so it has threads of its own and at most [`MAX_READERS`] at once; what it finds goes out
//! line by line, so that memory does not grow with the log.

mod body;
mod changes;
mod clock;
mod guard;

use std::cell::RefCell;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_wal::{Inspector, Log};
use hyper::body::Body;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};

use super::State;
use super::pages::{JSON, text};
use crate::inspect::{About, Line, Live, Selection, audit, follow, letters, records, segments, stat, tail, verify};

pub(crate) use guard::CHANGE;

pub(super) use body::{AnswerBody, Progress};
pub(super) use changes::body_of;
pub(super) use guard::refusal;

/// Readers of the log at once; further ones get 503.
const MAX_READERS: usize = 4;
/// How often a follower looks for what is new.
const LOOK: Duration = Duration::from_millis(200);
const LINES: &str = "application/x-ndjson";

/// What the pages about the log are made from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogPages {
    log: Log,
    about: Arc<About>,
    readers: Arc<Semaphore>,
    /// One change after the other.
    turn: Arc<Mutex<()>>,
}

type Answer = Response<AnswerBody>;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Stat,
    Segments,
    Records,
    Verify,
    Letters,
    Audit,
}

impl LogPages {
    /// Pages about a running log.
    #[must_use]
    pub(crate) fn new(log: Log, about: About) -> Self {
        Self {
            log,
            about: Arc::new(about),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            turn: Arc::default(),
        }
    }

    /// Whether a path is about the log.
    pub(super) fn has(path: &str) -> bool {
        matches!(path, "/audit" | "/clock" | "/clock/reset") || path.starts_with("/log/") || path.starts_with("/dead/")
    }

    /// Answers one request; `is_local` = it came over this machine's loopback.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        state: &State,
        peer: SocketAddr,
        is_local: bool,
        progress: Arc<Progress>,
    ) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if let Some(page) = clock::answer(self, &request, state, peer, is_local).await {
            return whole(page);
        }
        match changes::of_path(request.uri().path()) {
            Some(make) => whole(changes::answer(self, request, state, peer, is_local, make).await),
            None => self.answer_reader(&request, state, is_local, progress),
        }
    }

    fn answer_reader<B>(&self, request: &Request<B>, state: &State, is_local: bool, progress: Arc<Progress>) -> Answer {
        let what = match request.uri().path() {
            "/log/stat" => What::Stat,
            "/log/segments" => What::Segments,
            "/log/records" => What::Records,
            "/log/verify" => What::Verify,
            "/dead/records" => What::Letters,
            "/audit" => What::Audit,
            _ => {
                let there_are = "not found; docs/status.md lists the paths of the log\n";
                return whole(text(StatusCode::NOT_FOUND, there_are.to_owned()));
            }
        };
        if let Some(refusal) = refusal(request, state, is_local, false) {
            return whole(refusal);
        }
        let asked = match Asked::parse(request.uri().query().unwrap_or_default(), what) {
            Ok(asked) => asked,
            Err(reason) => return whole(text(StatusCode::BAD_REQUEST, reason + "\n")),
        };
        let inspector = self.log.inspector();
        if let Err(reason) = asked.selection.streams(&inspector) {
            return whole(text(StatusCode::BAD_REQUEST, reason + "\n"));
        }
        self.read(state, what, asked, inspector, progress)
    }

    /// Reads on a thread of its own.
    fn read(&self, state: &State, what: What, asked: Asked, inspector: Inspector, progress: Arc<Progress>) -> Answer {
        let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() else {
            let advice = format!("{MAX_READERS} readers of the log run already; try again when one has ended\n");
            return whole(text(StatusCode::SERVICE_UNAVAILABLE, advice));
        };
        let (body, out) = body::lines(progress);
        let (pages, state, runtime) = (self.clone(), state.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let out = RefCell::new(out);
            let see = &mut |line: Line| out.borrow_mut().put(&line);
            let gateway = pages.about.gateway.as_str();
            let result = match what {
                What::Segments => segments(&inspector, see),
                What::Verify => {
                    verify(&inspector, see);
                    Ok(())
                }
                What::Letters => {
                    letters(gateway, &inspector, &asked.selection, see);
                    Ok(())
                }
                What::Records => match (asked.follow, asked.tail) {
                    (true, count) => {
                        let wait = &mut || out.borrow_mut().wait(&runtime, LOOK);
                        follow(gateway, &inspector, &asked.selection, count.unwrap_or(0), wait, see)
                    }
                    (false, Some(count)) => tail(gateway, &inspector, &asked.selection, count, see),
                    (false, None) => records(gateway, &inspector, &asked.selection, see),
                },
                What::Stat => {
                    out.borrow_mut().put_json(&pages.stat(&state, &inspector));
                    Ok(())
                }
                What::Audit => audit(&inspector).map(|audit| out.borrow_mut().put_json(&audit)),
            };
            if let Err(error) = result {
                out.borrow_mut().put(&Line::Failed { error });
            }
            out.into_inner().end();
        });
        let mut answer = Response::new(body);
        let content_type = if matches!(what, What::Stat | What::Audit) { JSON } else { LINES };
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    fn stat(&self, state: &State, inspector: &Inspector) -> crate::inspect::Stat {
        let now = Instant::now();
        let flow = state.telemetry.look(now).map(|look| look.flow);
        let live = Live {
            status: self.log.status(),
            stats: self.log.stats(),
            uptime: now.duration_since(state.telemetry.identity().started),
            accepted_per_second: flow.as_ref().map_or(0.0, |flow| flow.accepted),
            delivered_per_second: flow.as_ref().map_or(0.0, |flow| flow.delivered),
        };
        stat(&self.about, inspector, Some(&live))
    }
}

/// A query, taken apart.
struct Asked {
    selection: Selection,
    follow: bool,
    tail: Option<usize>,
}

impl Asked {
    fn parse(query: &str, what: What) -> Result<Self, String> {
        let (selection, others) = Selection::parse(query)?;
        let mut asked = Self {
            selection,
            follow: false,
            tail: None,
        };
        for (key, value) in others {
            match (what, key.as_str()) {
                (What::Records, "follow") => asked.follow = value == "true",
                (What::Records, "tail") => asked.tail = Some(value.parse().map_err(|_| format!("tail={value}: must be a number"))?),
                _ => return Err(format!("`{key}` is not known")),
            }
        }
        Ok(asked)
    }
}

pub(super) fn whole(page: super::pages::Page) -> Answer {
    page.map(AnswerBody::Whole)
}
