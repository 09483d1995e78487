//! Asks a node over HTTP: whether it is ready, and what it counts.
//!
//! By hand, since one request on one connection needs no HTTP library; the size of the answer is
//! bounded, and so is the wait for it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What a node counts at one moment, by name with labels, as it stands in the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(pairs.collect())
    }

    /// One series, such as `quipu_groups_led` or `quipu_fetch_bytes_total{level="bounded"}`.
    ///
    /// # Errors
    /// If the node doesn't have it: a check that looks at nothing would always be content.
    pub(super) fn get(&self, series: &str) -> anyhow::Result<f64> {
        self.0.get(series).copied().with_context(|| format!("no node counts {series}"))
    }
}

/// The metrics of the node whose HTTP port is at `address`.
///
/// # Errors
/// If it doesn't answer with them.
pub(super) async fn metrics(address: &str) -> anyhow::Result<Metrics> {
    match get(address, "/metrics").await? {
        (200, body) => Ok(Metrics::parse(&body)),
        (status, body) => bail!("{address}/metrics answers {status}: {body}"),
    }
}

/// Status and body of one GET.
///
/// # Errors
/// If there is no answer in time, or it is no HTTP.
pub(super) async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = timeout(WITHIN, async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: quipu\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    });
    let answer = answer.await.with_context(|| format!("{address}{path} hangs"))??;
    parse(&answer).with_context(|| format!("{address}{path} doesn't answer in HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_name_and_labels() {
        let text = "# HELP a b\na_total 3\nb_bytes_total{level=\"bounded\"} 4.5\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.get("a_total").unwrap(), 3.0);
        assert_eq!(metrics.get("b_bytes_total{level=\"bounded\"}").unwrap(), 4.5);
        assert!(metrics.get("b_bytes_total").is_err());
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\nnot ready: starting\n";
        assert_eq!(parse(answer), Some((503, "not ready: starting\n".to_owned())));
        assert_eq!(parse("SSH-2.0-x\r\n"), None);
    }
}
