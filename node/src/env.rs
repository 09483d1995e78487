//! The doors through which a node touches the world: sockets, clock, randomness, disk.
//!
//! Nothing else in this crate opens a socket, reads a clock or draws a random number, so a
//! simulation that provides an [`Env`] of its own decides everything that happens. Monotonic time
//! is `tokio::time`, which a simulation pauses and drives. Tasks are spawned on the current tokio
//! runtime, which in a simulation is the simulated host's.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::storage::memory::MemoryEngine;

/// The doors of one node.
#[derive(Clone)]
pub struct Env {
    /// Where sockets come from.
    pub network: Arc<dyn Network>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where bytes are kept.
    pub disk: Disk,
}

/// Where a node keeps its bytes.
#[derive(Clone)]
pub enum Disk {
    /// RocksDB in the data directory, with a writer thread.
    Directory(PathBuf),
    /// A simulated disk that loses un-synced writes when its host crashes. A sync takes `sync`.
    Simulated {
        /// Outlives the simulated host.
        engine: Arc<MemoryEngine>,
        /// Simulated time of one sync.
        sync: Duration,
    },
}

/// Wall-clock time. May jump; never used to order anything by itself.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// Listening and connecting.
pub trait Network: Send + Sync {
    /// Listens on "host:port".
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>>;
    /// Connects to "host:port".
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Socket>>;
}

/// A bound port and the connections that arrive at it.
pub struct Listener {
    /// The bound address; tells the port where 0 was asked for.
    pub address: String,
    /// Accepted connections.
    pub incoming: BoxStream<'static, io::Result<Socket>>,
}

impl Env {
    /// The real doors.
    pub fn real(data_dir: PathBuf) -> Self {
        Self {
            network: Arc::new(Tcp),
            clock: Arc::new(SystemClock),
            disk: Disk::Directory(data_dir),
        }
    }
}

struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the door that all others go through")]
    fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

struct Tcp;

impl Network for Tcp {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(&address).await?;
            let address = listener.local_addr()?.to_string();
            let incoming = futures::stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await.and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    Ok(Socket::new(stream))
                });
                if accepted.is_err() {
                    // Out of file descriptors: accepting at once again would only burn a core.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Some((accepted, listener))
            });
            Ok(Listener { address, incoming: Box::pin(incoming) })
        })
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Socket>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::new(stream))
        })
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection, real or simulated.
pub struct Socket {
    stream: Box<dyn ByteStream>,
    /// The peer seems to have hung up when this resolves.
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Socket {
    /// Wraps a stream of bytes.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { stream: Box::new(stream), ended: None }
    }

    /// Ends the connection when `stop` is cancelled. A stopped server's open streams would else
    /// live for as long as their clients like.
    pub(crate) fn until(self, stop: &CancellationToken) -> Self {
        Self { ended: Some(Box::pin(stop.clone().cancelled_owned())), ..self }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
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
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl tonic::transport::server::Connected for Socket {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

thread_local! {
    static SIMULATION_SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes all randomness of this thread follow from `seed`. Called by a simulation, which runs all
/// its hosts on one thread; `quipud` never calls it.
pub fn seed_this_thread(seed: u64) {
    SIMULATION_SEED.set(Some(seed));
}

/// A random number: from the simulation's seed on a simulation's thread, else from the system.
pub fn random_u64() -> u64 {
    let Some(seed) = SIMULATION_SEED.get() else {
        return rand::random();
    };
    // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    let next = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    SIMULATION_SEED.set(Some(next));
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A random UUID (version 4) from [`random_u64`].
pub fn random_uuid() -> uuid::Uuid {
    let bytes = (u128::from(random_u64()) << 64) | u128::from(random_u64());
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
}

/// Spawns a task that belongs to nobody and ends by itself.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}
