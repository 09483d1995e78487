//! Ctrl-C and its like, for commands that clean up behind themselves.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// The signals that end a command from outside and still leave it time to clean up.
pub(crate) struct Interrupts([tokio::signal::unix::Signal; 3]);

impl Interrupts {
    /// From now on, for the whole process.
    pub(crate) fn listen() -> anyhow::Result<Interrupts> {
        let listen = |kind| signal(kind).context("can't listen for signals");
        Ok(Interrupts([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
