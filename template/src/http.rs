//! A client of HTTP/1.0, as far as an example needs one.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Fetches a page. The error of a server has its status line.
pub async fn get(server: &str, path: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let connected = TcpStream::connect(server).await;
    let mut stream = connected.map_err(|error| format!("{server}: {error}"))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, page) = answer
        .split_once("\r\n\r\n")
        .ok_or("the answer has no head")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("{server}{path}: {status}").into());
    }
    Ok(page.to_owned())
}
