//! Deliveries that are waited for together.
//!
//! Waiting for each of a million records a second by a future of its own costs a good part of what
//! the producer costs. A chunk is one future: it is woken once for a batch, and then looks at each
//! record it still waits for. Those of one partition end in their order, so that the first one that
//! waits speaks for all behind it; those of several end in whatever order they do.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use quipu_client::{Delivery, ProduceError};
use tokio::time::Instant;

/// Records of one chunk at most.
pub(super) const RECORDS: usize = 16;

/// A record on its way.
#[derive(Debug)]
pub(super) struct Sent {
    /// When it should have been sent; latency counts from here.
    pub(super) due: Instant,
    /// Of its value.
    pub(super) bytes: u32,
    pub(super) delivery: Delivery,
}

/// How a record ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) due: Instant,
    /// When it was acknowledged, or failed.
    pub(super) at: Instant,
    pub(super) bytes: u32,
    pub(super) result: Result<(), ProduceError>,
}

/// Resolves when all its records have ended.
#[derive(Debug)]
pub(super) struct Chunk {
    /// All records are of one partition and one producer.
    is_ordered: bool,
    waiting: VecDeque<Sent>,
    ended: Vec<Ended>,
}

impl Chunk {
    pub(super) fn new(is_ordered: bool) -> Chunk {
        let waiting = VecDeque::with_capacity(RECORDS);
        Chunk { is_ordered, waiting, ended: Vec::new() }
    }

    /// Takes what was pushed, and leaves an empty chunk of the same kind.
    pub(super) fn take(&mut self) -> Chunk {
        std::mem::replace(self, Chunk::new(self.is_ordered))
    }

    pub(super) fn push(&mut self, sent: Sent) {
        self.waiting.push_back(sent);
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= RECORDS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Future for Chunk {
    type Output = Vec<Ended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Ended>> {
        let chunk = &mut *self;
        let at = Instant::now();
        // Each that is left goes to the end, so that a full turn keeps the order.
        for _ in 0..chunk.waiting.len() {
            let Some(mut sent) = chunk.waiting.pop_front() else { break };
            match Pin::new(&mut sent.delivery).poll(context) {
                Poll::Ready(result) => {
                    let result = result.map(|_| ());
                    chunk.ended.push(Ended { due: sent.due, at, bytes: sent.bytes, result });
                }
                Poll::Pending if chunk.is_ordered => {
                    chunk.waiting.push_front(sent);
                    break;
                }
                Poll::Pending => chunk.waiting.push_back(sent),
            }
        }
        if chunk.waiting.is_empty() {
            return Poll::Ready(std::mem::take(&mut chunk.ended));
        }
        Poll::Pending
    }
}
