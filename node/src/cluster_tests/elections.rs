//! Who leads after a leader dies, whatever the survivors have of its log.

use std::collections::BTreeSet;
use std::io;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::env::{Listener, Network, Socket};

/// What becomes of the bytes between two nodes, known by their addresses.
#[derive(Debug, Clone, Default)]
struct Lines {
    /// What the first sends to the second waits.
    held: BTreeSet<(String, String)>,
    /// Nobody reaches this one, nor it anybody.
    cut: BTreeSet<String>,
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

/// Three nodes whose lines are in the test's hand.
async fn three_on(root: &Path, lines: &watch::Sender<Lines>) -> Vec<Running> {
    let mut nodes = Vec::new();
    for label in 1..=3 {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_survivor_with_the_shorter_log_does_not_keep_the_other_one_from_leading() {
    const PARTITIONS: u32 = 8;
    let root = tempfile::tempdir().expect("a directory");
    let lines = watch::Sender::new(Lines::default());
    let nodes = three_on(root.path(), &lines).await;
    create_topic(&nodes[0], "t", PARTITIONS, TopicConfig::default()).await;
    let me = nodes[0].member().me();
    for number in 0..PARTITIONS {
        append(&nodes, "t", number, "first").await;
        until("the first node to lead", async || {
            let leading = leader(&nodes, "t", number).await;
            let group = partition_of(leading, "t", number)?.group();
            leading.member().move_leader(group, me, soon(5)).await.ok()
        })
        .await;
    }

    // The second node misses the last entry of every partition, and then the leader dies. Of two
    // survivors each is the first to call the election in half of the groups.
    let (dead, behind) = (nodes[0].address.clone(), nodes[1].address.clone());
    lines.send_if_modified(|lines| lines.held.insert((dead.clone(), behind)));
    let appends = (0..PARTITIONS).map(|number| append(&nodes, "t", number, "last"));
    futures::future::join_all(appends).await;
    for number in 0..PARTITIONS {
        assert_eq!(partition_of(&nodes[1], "t", number).expect("hosted").view().high_watermark, 1);
    }
    lines.send_if_modified(|lines| lines.cut.insert(dead));

    for number in 0..PARTITIONS {
        let leading = leader(&nodes[1..], "t", number).await;
        assert_eq!(leading.address, nodes[2].address, "only it has what was acknowledged");
    }
    for number in 0..PARTITIONS {
        assert_eq!(read_all(&nodes[2], "t", number, 0).await, ["first", "last"]);
    }
}
