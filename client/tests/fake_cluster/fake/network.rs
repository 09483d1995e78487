//! Pipes in place of sockets, which can be cut, frozen and refused.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::Uri;
use quipu_client::Connector;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

const PIPE_BYTES: usize = 64 << 10;

/// The network between a client and the nodes.
#[derive(Clone, Default)]
pub(crate) struct Network {
    hosts: Arc<Mutex<BTreeMap<String, Host>>>,
}

struct Host {
    incoming: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    reachable: Reachable,
    links: Vec<Arc<Link>>,
    connections: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reachable {
    Yes,
    /// Connections are refused.
    Down,
    /// Nothing arrives, nothing is refused.
    Silent,
}

#[derive(Default)]
struct Link(Mutex<LinkState>);

#[derive(Default)]
struct LinkState {
    cut: bool,
    frozen: bool,
    wakers: Vec<Waker>,
}

impl Network {
    /// The connections that a node accepts.
    pub(crate) fn listen(
        &self,
        address: &str,
    ) -> mpsc::UnboundedReceiver<io::Result<DuplexStream>> {
        let (incoming, accepted) = mpsc::unbounded_channel();
        let host = Host { incoming, reachable: Reachable::Yes, links: Vec::new(), connections: 0 };
        self.hosts.lock().unwrap().insert(address.to_owned(), host);
        accepted
    }

    pub(crate) fn connector(&self) -> Connector {
        let network = self.clone();
        Connector::new(move |uri: Uri| {
            let network = network.clone();
            async move { network.connect(uri.authority().expect("host:port").as_str()).await }
        })
    }

    async fn connect(&self, address: &str) -> io::Result<Pipe> {
        let silent = {
            let mut hosts = self.hosts.lock().unwrap();
            let host = hosts.get_mut(address).ok_or(io::ErrorKind::NotFound)?;
            match host.reachable {
                Reachable::Down => return Err(io::ErrorKind::ConnectionRefused.into()),
                Reachable::Silent => true,
                Reachable::Yes => false,
            }
        };
        if silent {
            return std::future::pending().await;
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let link = Arc::new(Link::default());
        let mut hosts = self.hosts.lock().unwrap();
        let host = hosts.get_mut(address).expect("looked up above");
        host.links.push(Arc::clone(&link));
        host.connections += 1;
        host.incoming.send(Ok(theirs)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Pipe { inner: ours, link })
    }

    /// The process of a node dies: connections break, new ones are refused.
    pub(crate) fn kill(&self, address: &str) {
        self.set(address, Reachable::Down);
        self.cut(address);
    }

    /// A node that was killed or silent is there again.
    pub(crate) fn revive(&self, address: &str) {
        self.set(address, Reachable::Yes);
        self.each_link(address, |link| link.frozen = false);
    }

    /// Packets to and from a node vanish.
    pub(crate) fn silence(&self, address: &str) {
        self.set(address, Reachable::Silent);
        self.each_link(address, |link| link.frozen = true);
    }

    /// Connections to a node break; new ones are accepted.
    pub(crate) fn cut(&self, address: &str) {
        self.each_link(address, |link| link.cut = true);
    }

    /// Connections made to a node so far.
    pub(crate) fn connections(&self, address: &str) -> usize {
        self.hosts.lock().unwrap()[address].connections
    }

    fn set(&self, address: &str, reachable: Reachable) {
        self.hosts.lock().unwrap().get_mut(address).expect("a node").reachable = reachable;
    }

    fn each_link(&self, address: &str, change: impl Fn(&mut LinkState)) {
        let hosts = self.hosts.lock().unwrap();
        for link in &hosts[address].links {
            let mut state = link.0.lock().unwrap();
            change(&mut state);
            for waker in state.wakers.drain(..) {
                waker.wake();
            }
        }
    }
}

/// The client's end of a connection.
struct Pipe {
    inner: DuplexStream,
    link: Arc<Link>,
}

impl Pipe {
    /// `None`: bytes may pass.
    fn trouble<T>(&self, cx: &Context<'_>) -> Option<Poll<io::Result<T>>> {
        let mut state = self.link.0.lock().unwrap();
        if state.cut {
            return Some(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())));
        }
        state.wakers.push(cx.waker().clone());
        state.frozen.then_some(Poll::Pending)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(trouble) = self.trouble(cx) {
            return trouble;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(trouble) = self.trouble(cx) {
            return trouble;
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(trouble) = self.trouble(cx) {
            return trouble;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
