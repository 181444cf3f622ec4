//! As much HTTP as it takes to answer a client of the nym-api.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    run::Run,
    tap::{WatchedStream, Wire},
};

/// Longest request line and headers, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS: usize = 256;

/// Answers requests for `pages` on `listener` until `run` ends.
pub(crate) fn serve(
    listener: TcpListener,
    run: &Run,
    wire: Arc<Wire>,
    pages: HashMap<&'static str, String>,
) {
    let pages = Arc::new(pages);
    run.accept(listener, CONNECTIONS, move |stream| {
        let stream = wire.watch(stream, "api".into(), Arc::default());
        let pages = pages.clone();
        async move {
            // Who is too slow or goes away gets no answer.
            let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, &pages)).await;
        }
    });
}

/// One request and its answer; there is no second one on a connection.
async fn answer(
    mut stream: WatchedStream,
    pages: &HashMap<&'static str, String>,
) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match path(&head).map(|path| pages.get(path)) {
        Some(Some(page)) => ("200 OK", page.as_str()),
        Some(None) => ("404 Not Found", "{}"),
        None => ("400 Bad Request", "{}"),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

async fn read_head(stream: &mut WatchedStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let len = stream.read(&mut chunk).await?;
        if len == 0 || head.len() + len > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(chunk.get(..len).unwrap_or_default());
    }
    Ok(head)
}

/// The path that a GET asks for, without its query.
fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if method != "GET" {
        return None;
    }
    target.split('?').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_has_a_path() {
        assert_eq!(path(b"GET /v1/a?page=0 HTTP/1.1\r\n\r\n"), Some("/v1/a"));
    }

    #[test]
    fn anything_else_has_none() {
        for head in [
            &b"POST /v1/a HTTP/1.1\r\n\r\n"[..],
            b"GET\r\n\r\n",
            b"\xff\xfe\r\n\r\n",
            b"",
        ] {
            assert_eq!(path(head), None);
        }
    }
}
