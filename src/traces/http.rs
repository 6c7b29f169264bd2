//! The exporter's HTTP client. A collector runs beside the gateway; what leaves the site goes from there.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::header::HOST;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

use crate::http;

/// How long one batch may take altogether.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an answer; a collector says hardly anything.
const MAX_ANSWER: usize = 64 << 10;
const HTTP: u16 = 80;

#[derive(Debug)]
pub(super) struct Client;

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        tokio::time::timeout(DEADLINE, exchange(request)).await?
    }
}

async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the collector's address has no host")?.clone();
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(HTTP));
    head.headers.insert(HOST, authority.as_str().parse()?);
    head.uri = head.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let mut answer = http::send(&address, Request::from_parts(head, Full::new(body))).await?;
    let body = answer.whole(MAX_ANSWER).await?;
    Ok(Response::from_parts(answer.head, body))
}
