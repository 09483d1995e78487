//! Sockets between nodes that a test holds back and cuts.

use std::collections::BTreeSet;
use std::io;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::env::{Listener, Network, Socket};

/// What becomes of the bytes between two nodes, known by their addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    /// What the first sends to the second waits.
    pub(super) held: BTreeSet<(String, String)>,
    /// Nobody reaches this one, nor it anybody.
    pub(super) cut: BTreeSet<String>,
}

impl Lines {
    fn is_held(&self, from: &str, to: &str) -> bool {
        self.held.contains(&(from.to_owned(), to.to_owned()))
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cut.contains(from) || self.cut.contains(to)
    }
}

/// The loopback sockets of the node at `own`, of which the test holds back and cuts what it likes.
struct Wires {
    own: String,
    lines: watch::Sender<Lines>,
    tcp: Arc<dyn Network>,
}

impl Network for Wires {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        self.tcp.listen(address)
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Socket>> {
        let (own, lines) = (self.own.clone(), self.lines.subscribe());
        let connecting = self.tcp.connect(address.clone());
        Box::pin(async move {
            if lines.borrow().is_cut(&own, &address) {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            let (mut read, mut write) = tokio::io::split(connecting.await?);
            let (near, far) = tokio::io::duplex(1 << 16);
            let (mut far_read, mut far_write) = tokio::io::split(far);
            let line = Line { from: own, to: address, lines };
            tokio::spawn(async move {
                tokio::select! {
                    () = line.clone().until_cut() => {}
                    () = carry(&mut far_read, &mut write, Some(line.clone())) => {}
                    () = carry(&mut read, &mut far_write, None) => {}
                }
            });
            Ok(Socket::new(near))
        })
    }
}

/// What goes from one node to another.
#[derive(Clone)]
struct Line {
    from: String,
    to: String,
    lines: watch::Receiver<Lines>,
}

impl Line {
    async fn until_cut(mut self) {
        let (from, to) = (self.from, self.to);
        drop(self.lines.wait_for(|lines| lines.is_cut(&from, &to)).await);
    }

    async fn until_open(&mut self) {
        let (from, to) = (&self.from, &self.to);
        drop(self.lines.wait_for(|lines| !lines.is_held(from, to)).await);
    }
}

/// Moves bytes until either side ends, each piece when its line is open.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut line: Option<Line>,
) {
    let mut piece = vec![0; 1 << 14];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        if let Some(line) = &mut line {
            line.until_open().await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// A cluster of nodes whose lines are in the test's hand.
pub(super) async fn on_wires(
    root: &Path,
    lines: &watch::Sender<Lines>,
    count: u64,
) -> Vec<Running> {
    let mut nodes = Vec::new();
    for label in 1..=count {
        let port = free_port();
        let disk = Disk::Directory(root.join(label.to_string()));
        let tcp = Env::real(PathBuf::new()).network;
        let own = format!("127.0.0.1:{port}");
        let wires = Wires { own, lines: lines.clone(), tcp };
        let env = Env { disk, network: Arc::new(wires), ..Env::real(PathBuf::new()) };
        nodes.push(start_in(label, port, env, &[]).await);
    }
    form(&nodes).await;
    nodes
}
