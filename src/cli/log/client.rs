//! A running gateway, asked through its admin API.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::failure::Failure;
use crate::admin::CHANGE;
use crate::config::Secret;
use crate::inspect::Line;

const CONNECT: Duration = Duration::from_secs(5);
/// An answer that is not made of lines: a page, an error.
const MAX_WHOLE: usize = 64 << 20;
/// A record of 4 MiB, every byte of it escaped.
const MAX_LINE: usize = 32 << 20;

/// A running gateway.
pub(super) struct Client {
    address: String,
    token: Option<Secret>,
    runtime: Runtime,
    /// What to say when nobody answers.
    unreachable: String,
}

impl Client {
    pub(super) fn new(address: String, token: Option<Secret>, unreachable: String) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")
            .map_err(Failure::Internal)?;
        Ok(Self {
            address,
            token,
            runtime,
            unreachable,
        })
    }

    /// One object.
    pub(super) fn object<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, path, None).await?;
            self.whole(response).await
        })
    }

    /// A change.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body)
            .context("the request cannot be written")
            .map_err(Failure::Internal)?;
        self.runtime.block_on(async {
            let response = self.send(Method::POST, path, Some(body)).await?;
            self.whole(response).await
        })
    }

    /// Lines as they come, until `see` wants no more.
    pub(super) fn lines(&self, path: &str, see: &mut dyn FnMut(Line) -> bool) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut response = self.send(Method::GET, path, None).await?;
            let mut rest: Vec<u8> = Vec::new();
            while let Some(frame) = response.body_mut().frame().await {
                let frame = frame
                    .context("the answer ended early; was the gateway stopped?")
                    .map_err(Failure::Failed)?;
                let Ok(data) = frame.into_data() else { continue };
                let searched = rest.len();
                rest.extend_from_slice(&data);
                let mut from = 0;
                // Only what has just come can hold the end of a line.
                let mut look = searched;
                while let Some(end) = rest[look..].iter().position(|byte| *byte == b'\n').map(|at| look + at) {
                    let line = serde_json::from_slice(&rest[from..end])
                        .with_context(|| format!("{} sent an unknown line; is it another version?", self.address))
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
                    return Err(Failure::Failed(anyhow!("{} sent a line of over {MAX_LINE} bytes", self.address)));
                }
            }
            Ok(())
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response<Incoming>, Failure> {
        let unreachable = |error: anyhow::Error| Failure::Failed(error.context(self.unreachable.clone()));
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(&self.address)).await;
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.into())),
            Err(_) => return Err(unreachable(anyhow!("no answer within {CONNECT:?}"))),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.into()))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(HOST, &self.address)
            .header(CONNECTION, "close");
        if method == Method::POST {
            request = request.header(CHANGE, "yes");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .context("the request cannot be made")
            .map_err(Failure::Internal)?;
        let response = sender.send_request(request).await.map_err(|error| unreachable(error.into()))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let said = Limited::new(response.into_body(), 1 << 20)
            .collect()
            .await
            .map(|body| body.to_bytes());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).trim().to_owned();
        let advice = match status {
            StatusCode::NOT_FOUND => "; is it an older version?",
            StatusCode::UNAUTHORIZED => "; name the file with --token-file, or the configuration with -c",
            _ => "",
        };
        Err(Failure::Failed(anyhow!(
            "the gateway at {} says: {said} ({status}){advice}",
            self.address
        )))
    }

    async fn whole<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        let body = Limited::new(response.into_body(), MAX_WHOLE).collect().await;
        let body = body
            .map_err(|error| anyhow!("{error}").context("the answer ended early; was the gateway stopped?"))
            .map_err(Failure::Failed)?
            .to_bytes();
        if let Ok(Line::Failed { error }) = serde_json::from_slice(&body) {
            return Err(Failure::Disk(anyhow!(error)));
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("{} gave an unknown answer; is it another version?", self.address))
            .map_err(Failure::Failed)
    }
}
