//! Sockets between simulated hosts, handed to the real gRPC stack of nodes and clients.
//!
//! turmoil's TCP delivers late and drops, but never sends again: a connection whose SYN was lost
//! would wait for ever, hence the time-out. Everything that arrives at a socket goes into the
//! trace.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use node::env::{Listener, Network, Socket};
use quipu_client::Connector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};
use xxhash_rust::xxh3::xxh3_64;

use crate::trace::Trace;

/// Longest wait for a connection; callers have shorter ones of their own.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The network as a simulated node sees it.
pub(super) struct SimulatedNetwork {
    trace: Trace,
}

impl SimulatedNetwork {
    /// What arrives goes into `trace`.
    pub(super) fn new(trace: Trace) -> Self {
        Self { trace }
    }
}

impl Network for SimulatedNetwork {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        let trace = self.trace.clone();
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?.to_string();
            let incoming = futures::stream::unfold((listener, trace), |(listener, trace)| async {
                let accepted = listener.accept().await;
                let socket = accepted.and_then(|(stream, _)| TracedStream::new(stream, &trace));
                Some((socket.map(Socket::new), (listener, trace)))
            });
            Ok(Listener { address, incoming: Box::pin(incoming) })
        })
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Socket>> {
        let trace = self.trace.clone();
        Box::pin(async move { Ok(Socket::new(connect(address, &trace).await?)) })
    }
}

/// The network as a simulated client sees it.
pub(super) fn connector(trace: &Trace) -> Connector {
    let trace = trace.clone();
    Connector::new(move |uri| {
        let trace = trace.clone();
        async move {
            let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
            connect(authority.to_string(), &trace).await
        }
    })
}

async fn connect(address: String, trace: &Trace) -> io::Result<TracedStream> {
    match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
        Ok(stream) => TracedStream::new(stream?, trace),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A connection whose arriving bytes are traced.
struct TracedStream {
    stream: TcpStream,
    trace: Trace,
    local: SocketAddr,
    peer: SocketAddr,
}

impl TracedStream {
    fn new(stream: TcpStream, trace: &Trace) -> io::Result<Self> {
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        trace.record("connected", format_args!("{local} {peer}"));
        Ok(Self { stream, trace: trace.clone(), local, peer })
    }
}

impl AsyncRead for TracedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(read) = &read {
            let (local, peer) = (self.local, self.peer);
            let arrived = &buffer.filled()[filled..];
            match read {
                Ok(()) => {
                    let (bytes, hash) = (arrived.len(), xxh3_64(arrived));
                    let what = format_args!("{peer} to {local}: {bytes} bytes {hash:016x}");
                    self.trace.record("arrived", what);
                }
                Err(error) => {
                    let kind = error.kind();
                    self.trace.record("broken", format_args!("{peer} to {local}: {kind}"));
                }
            }
        }
        read
    }
}

impl AsyncWrite for TracedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
