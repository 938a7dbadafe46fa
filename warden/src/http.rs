//! The metrics over HTTP at a loopback address, for a Prometheus that scrapes: `GET /metrics`, and nothing else.
//! Few callers at a time, each with little to say and little time.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::limits::{HTTP_CALLERS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_MS};
use crate::server::Api;

/// How OpenMetrics text is named.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, api: Api) {
    let callers = Arc::new(Semaphore::new(HTTP_CALLERS_MAX));
    loop {
        // Never closed.
        let Ok(permit) = callers.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Such as no descriptor left: it passes.
            tokio::time::sleep(Duration::from_millis(HTTP_MS)).await;
            continue;
        };
        let api = api.clone();
        tokio::spawn(async move {
            // A caller that is slow or gone is no matter of ours.
            let _ = tokio::time::timeout(Duration::from_millis(HTTP_MS), answer(stream, &api)).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, api: &Api) -> std::io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match head.as_deref().map(request_line) {
        Some(Some(("GET", "/metrics"))) => match api.metrics_text() {
            Ok(text) => ("200 OK", text),
            Err(_) => ("500 Internal Server Error", String::new()),
        },
        Some(Some((_, "/metrics"))) => ("405 Method Not Allowed", String::new()),
        Some(Some(_)) => ("404 Not Found", String::new()),
        Some(None) | None => ("400 Bad Request", String::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The request up to its empty line; none if it is too long or ends before.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut part).await?;
        if count == 0 || head.len() + count > HTTP_HEAD_BYTES_MAX {
            return Ok(None);
        }
        head.extend_from_slice(&part[..count]);
    }
    Ok(Some(head))
}

/// Method and path.
fn request_line(head: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let path = target.split('?').next()?;
    version.starts_with("HTTP/1.").then_some((method, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        assert_eq!(request_line(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some(("GET", "/metrics")));
        assert_eq!(request_line(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Some(("GET", "/metrics")));
        for bad in [&b""[..], b"GET\r\n", b"GET / SPDY\r\n", b"\xff / HTTP/1.1\r\n"] {
            assert_eq!(request_line(bad), None, "{bad:?}");
        }
    }
}
