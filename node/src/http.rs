//! Metrics and health over HTTP/1.1, for monitoring and for whoever restarts the process.
//!
//! `/metrics`: OpenMetrics text. `/healthz`: 200 as long as the process answers. `/readyz`: 200
//! when the node serves, else 503 with the reason. Nothing else, and nothing that changes
//! anything: it can stay without authentication where only monitoring reaches it.
//!
//! On its own port and not beside gRPC, so that a node that is busy with clients still says so.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::limits;
use crate::metrics::Exposition;

/// Whether the node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It is part of a cluster, knows its metadata, and has opened the groups it hosts.
    Ready,
    /// Not yet, or no longer. The reason is for people and says what is waited for.
    NotReady(Cow<'static, str>),
}

/// What the paths answer from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// For `/metrics`.
    pub exposition: Arc<Exposition>,
    /// For `/readyz`. The node sends each change.
    pub readiness: watch::Receiver<Readiness>,
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// After a failed accept: usually all file descriptors are in use, and at once they still are.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Serves until `stop` completes. Requests under way are then cut off.
pub async fn serve(listener: TcpListener, sources: Sources, stop: impl Future<Output = ()>) {
    let routes = routes(sources);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                // Closed at once: a scraper that opens connections without end gets no more.
                Ok(_) if connections.len() >= limits::HTTP_CONNECTIONS_MAX => {}
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, routes.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }
}

fn routes(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .fallback(async || (StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz\n"))
        .with_state(sources)
}

async fn serve_connection(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = connection.await {
        // The other side's doing: torn connections and what is no HTTP.
        tracing::debug!(%error, "HTTP connection ended");
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let exposition = sources.exposition;
    match tokio::task::spawn_blocking(move || exposition.text()).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        // The runtime is shutting down.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn readyz(State(sources): State<Sources>) -> (StatusCode, String) {
    match &*sources.readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::Metrics;

    struct Served {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        _tasks: JoinSet<()>,
        _data_dir: tempfile::TempDir,
    }

    async fn served() -> Served {
        let data_dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let exposition = Exposition::new(Metrics::new(), data_dir.path().to_owned());
        let waiting = Readiness::NotReady("waits for a cluster".into());
        let (readiness, watched) = watch::channel(waiting);
        let sources = Sources { exposition: Arc::new(exposition), readiness: watched };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, sources, std::future::pending()));
        Served { address, readiness, _tasks: tasks, _data_dir: data_dir }
    }

    async fn answer_to(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get_of(address: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        answer_to(address, request.as_bytes()).await
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let served = served().await;
        let answer = get_of(served.address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(answer.contains("\nquipu_append_batches_total 0\n"));
        assert!(answer.contains("\n# EOF\n"));
    }

    #[tokio::test]
    async fn a_node_that_waits_is_alive_but_not_ready_and_says_for_what() {
        let served = served().await;
        assert!(get_of(served.address, "/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let answer = get_of(served.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.ends_with("not ready: waits for a cluster\n"), "{answer}");

        served.readiness.send(Readiness::Ready).unwrap();
        assert!(get_of(served.address, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }

    #[tokio::test]
    async fn an_unknown_path_is_told_the_known_ones() {
        let served = served().await;
        let answer = get_of(served.address, "/").await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert!(answer.contains("/metrics"));
    }

    #[tokio::test]
    async fn a_malformed_request_is_refused_and_the_next_one_served() {
        let served = served().await;
        let answer = answer_to(served.address, b"\x00\xff\x16\x03\x01 nonsense\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(get_of(served.address, "/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed() {
        let served = served().await;
        let mut held = Vec::new();
        for _ in 0..limits::HTTP_CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut first = [0; 8];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1");
            held.push(stream);
        }
        let mut further = TcpStream::connect(served.address).await.unwrap();
        let mut nothing = Vec::new();
        // Closed without an answer: an end or a reset, as the system likes.
        let read = further.read_to_end(&mut nothing).await.unwrap_or_default();
        assert_eq!(read, 0);
    }
}
