//! The node's one port: calls of clients and of other nodes.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Door, services};
use crate::env::Listener;
use crate::formation::Formation;
use crate::limits;
use crate::peer::PeerServer;

/// Serves every call of clients and nodes until the node stops. Calls under way then have
/// [`limits::CALLS_END_WITHIN`] to be answered; what is still open is cut off.
pub(crate) fn serve(
    listener: Listener,
    door: Door,
    formation: &Arc<Formation>,
    stop: CancellationToken,
) {
    let (peer, raft) = PeerServer::services(formation);
    let clock = door.clock();
    let routes = services(door).add_service(peer).add_service(raft);
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(limits::KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_ANSWER_MAX))
        .layer(crate::date_header::layer(clock))
        .add_routes(routes);
    let cut = CancellationToken::new();
    let cut_off = cut.clone();
    let incoming = listener.incoming.filter_map(move |socket| {
        let cut_off = cut_off.clone();
        async move {
            match socket {
                Ok(socket) => Some(Ok::<_, io::Error>(socket.until(&cut_off))),
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    None
                }
            }
        }
    });
    crate::env::spawn(async move {
        let incoming = Box::pin(incoming);
        let stopped = stop.clone();
        let serving =
            server.serve_with_incoming_shutdown(incoming, async move { stopped.cancelled().await });
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(limits::CALLS_END_WITHIN).await;
        };
        tokio::select! {
            biased;
            served = serving => {
                if let Err(error) = served {
                    tracing::error!(%error, "the port is not served any more");
                }
            }
            () = late => {}
        }
        // Streams of clients may never end by themselves.
        cut.cancel();
    });
}
