//! One request over one plain HTTP/1.1 connection: what the commands ask of a running gateway, and how traces leave for
//! their collector.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// How long a connection may take. An answer has no bound of its own: callers know how long theirs takes.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no answer, or not the whole of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The address cannot be reached.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The address does not answer within five seconds.
    #[error("no connection within {CONNECT:?}")]
    Timeout,
    /// The address is not one that a `Host` header can name.
    #[error("{0} is not a host and a port")]
    Address(String),
    /// The peer does not speak HTTP, or has gone.
    #[error("no HTTP answer")]
    Exchange(#[from] hyper::Error),
    /// The body ended early, or is larger than the caller takes.
    #[error("the body cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// An answer whose body is still to be read. The connection ends with it.
pub(crate) struct Answer {
    /// Status and headers.
    pub(crate) head: Parts,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

/// Sends a request to `HOST:PORT`; the request's URI is a path.
///
/// # Errors
/// When no answer begins.
pub(crate) async fn send(address: &str, mut request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
    let host = HeaderValue::from_str(address).map_err(|_| HttpError::Address(address.to_owned()))?;
    request.headers_mut().entry(HOST).or_insert(host);
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connect.map_err(|_| HttpError::Timeout)?.map_err(HttpError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors are those of the request and of the body.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        connection.await.ok();
    }));
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer {
        head,
        body,
        _connection: connection,
    })
}

impl Answer {
    /// The whole body, at most `max` bytes of it.
    ///
    /// # Errors
    /// When it ends early or is larger.
    pub(crate) async fn whole(&mut self, max: usize) -> Result<Bytes, HttpError> {
        let body = Limited::new(&mut self.body, max).collect().await.map_err(HttpError::Body)?;
        Ok(body.to_bytes())
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// When it ends early.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(|error| HttpError::Body(error.into()))?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes, and gives what it was sent.
    async fn server(answer: &'static [u8]) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        (address, served)
    }

    fn get(path: &str) -> Request<Full<Bytes>> {
        Request::get(path).body(Full::default()).unwrap()
    }

    #[tokio::test]
    async fn a_request_names_its_host_and_the_body_comes_back_whole() {
        let (address, served) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        let mut answer = send(&address, get("/status")).await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.whole(5).await.unwrap(), "hello");
        let head = served.await.unwrap().to_lowercase();
        assert!(
            head.starts_with("get /status http/1.1") && head.contains(&format!("host: {address}\r\n")),
            "{head}"
        );
    }

    #[tokio::test]
    async fn a_body_that_is_cut_or_too_large_is_an_error() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
        ] {
            let (address, _served) = server(answer).await;
            let mut answer = send(&address, get("/")).await.unwrap();
            assert!(matches!(answer.whole(5).await, Err(HttpError::Body(_))));
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_told_apart_from_a_bad_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(matches!(send(&address, get("/")).await, Err(HttpError::Connect(_))));
        let (address, _served) = server(b"SSH-2.0-OpenSSH\r\n").await;
        assert!(matches!(send(&address, get("/")).await, Err(HttpError::Exchange(_))));
    }
}
