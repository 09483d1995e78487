//! Asks a node over HTTP what it counts.
//!
//! By hand, since one request on one connection needs no HTTP library; the size of the answer is
//! bounded, and so is the wait for it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// One series of the node whose HTTP port is at `address`.
///
/// # Errors
/// If the node doesn't answer with it.
pub(super) async fn counter(address: &str, series: &str) -> anyhow::Result<f64> {
    let text = metrics(address).await?;
    value(&text, series).with_context(|| format!("{address} does not count {series}"))
}

fn value(text: &str, series: &str) -> Option<f64> {
    let (_, value) =
        text.lines().filter_map(|line| line.rsplit_once(' ')).find(|(name, _)| *name == series)?;
    value.parse().ok()
}

async fn metrics(address: &str) -> anyhow::Result<String> {
    let answer = timeout(WITHIN, async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: quipu\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    });
    let answer = answer.await.with_context(|| format!("{address}/metrics hangs"))??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("{address}/metrics doesn't answer with its metrics"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let text = "# HELP a b\na_total_more 9\na_total 3\nb_total{level=\"x\"} 4.5\n# EOF\n";
        assert_eq!(value(text, "a_total"), Some(3.0));
        assert_eq!(value(text, "b_total{level=\"x\"}"), Some(4.5));
        assert_eq!(value(text, "b_total"), None);
    }
}
