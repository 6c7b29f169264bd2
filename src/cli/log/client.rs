//! A running gateway, asked through its admin API.

use anyhow::{Context as _, anyhow};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::failure::Failure;
use crate::cli::admin_api::AdminApi;
use crate::http::Answer;
use crate::inspect::Line;

/// An answer that is an error.
const MAX_ERROR: usize = 1 << 20;
/// An answer that is not made of lines: a page, an error.
const MAX_WHOLE: usize = 64 << 20;
/// A record of 4 MiB, every byte of it escaped.
const MAX_LINE: usize = 32 << 20;

const ENDED_EARLY: &str = "the answer ended early; was the gateway stopped?";

/// A running gateway.
pub(super) struct Client {
    api: AdminApi,
    runtime: Runtime,
    /// What to say when there is no answer.
    unreachable: String,
}

impl Client {
    pub(super) fn new(api: AdminApi, unreachable: String) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")
            .map_err(Failure::Internal)?;
        Ok(Self { api, runtime, unreachable })
    }

    /// One object.
    pub(super) fn object<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let answer = self.send(Method::GET, path, vec![]).await?;
            self.whole(answer).await
        })
    }

    /// A change.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body)
            .context("the request cannot be written")
            .map_err(Failure::Internal)?;
        self.runtime.block_on(async {
            let answer = self.send(Method::POST, path, body).await?;
            self.whole(answer).await
        })
    }

    /// Lines as they come, until `see` wants no more.
    pub(super) fn lines(&self, path: &str, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut answer = self.send(Method::GET, path, vec![]).await?;
            let mut rest: Vec<u8> = Vec::new();
            while let Some(data) = answer.chunk().await.context(ENDED_EARLY).map_err(Failure::Failed)? {
                let searched = rest.len();
                rest.extend_from_slice(&data);
                let mut from = 0;
                // Only what has just come can hold the end of a line.
                let mut look = searched;
                while let Some(end) = rest[look..].iter().position(|byte| *byte == b'\n').map(|at| look + at) {
                    let line = serde_json::from_slice(&rest[from..end])
                        .with_context(|| format!("{} sent an unknown line; is it another version?", self.api.address()))
                        .map_err(Failure::Failed)?;
                    if let Line::Failed { error } = line {
                        return Err(Failure::Disk(anyhow!(error)));
                    }
                    if !see(line) {
                        return Ok(());
                    }
                    from = end + 1;
                    look = from;
                }
                rest.drain(..from);
                if rest.len() > MAX_LINE {
                    return Err(Failure::Failed(anyhow!(
                        "{} sent a line of over {MAX_LINE} bytes",
                        self.api.address()
                    )));
                }
            }
            Ok(())
        })
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        let unreachable = |error: anyhow::Error| Failure::Failed(error.context(self.unreachable.clone()));
        let answer = self.api.send(method, path, body).await;
        let mut answer = answer.map_err(|error| unreachable(error.into()))?;
        let status = answer.head.status;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let said = answer.whole(MAX_ERROR).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let advice = match status {
            StatusCode::NOT_FOUND => "; is it an older version?",
            StatusCode::UNAUTHORIZED => "; name the file with --token-file, or the configuration with -c",
            _ => "",
        };
        Err(Failure::Failed(anyhow!(
            "the gateway at {} says: {said} ({status}){advice}",
            self.api.address()
        )))
    }

    async fn whole<T: DeserializeOwned>(&self, mut answer: Answer) -> Result<T, Failure> {
        let body = answer.whole(MAX_WHOLE).await.context(ENDED_EARLY).map_err(Failure::Failed)?;
        if let Ok(Line::Failed { error }) = serde_json::from_slice(&body) {
            return Err(Failure::Disk(anyhow!(error)));
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("{} sent an unknown answer; is it another version?", self.api.address()))
            .map_err(Failure::Failed)
    }
}
