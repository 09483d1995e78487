//! Reads one partition ahead: one fetch after the other, from node to node as leadership moves.
//!
//! A fetch waits at the node for records to come, longer and longer while none do: an idle
//! partition costs a call in five seconds, and a leader that hangs while records flow is found out
//! soon. Retries inside one fetch are the client's; here is decided what the end of them means for
//! the partition.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::calls::Patience;
use crate::client::Client;
use crate::consumer::config::ConsumerConfig;
use crate::consumer::position::{OutOfRangeStep, Wanted, out_of_range};
use crate::consumer::slot::{Share, Slot};
use crate::error::ReadError;
use crate::read::{FetchOptions, Position};

/// Longest wait at an idle partition, unless the configured one is longer. A call in so many
/// seconds is what it costs. Of a connection that hangs its keep-alive tells.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The fetcher of one slot.
pub(crate) struct Fetcher {
    pub(crate) client: Client,
    pub(crate) config: ConsumerConfig,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) slot: Arc<Slot>,
    pub(crate) share: Arc<Share>,
}

impl Fetcher {
    /// Runs until it is aborted.
    pub(crate) async fn run(self) {
        let mut max_wait = self.config.max_wait;
        loop {
            let wanted = self.slot.wanted().await;
            max_wait = tokio::select! {
                biased;
                () = self.slot.jumped() => self.config.max_wait,
                is_idle = self.fetch(wanted, max_wait) => match is_idle {
                    true => max_wait.max((max_wait * 2).min(IDLE_WAIT_MAX)),
                    false => self.config.max_wait,
                }
            }
        }
    }

    /// Answers whether there is nothing to read for now.
    async fn fetch(&self, wanted: Wanted, max_wait: Duration) -> bool {
        let begun_at = Instant::now();
        let patience = Patience {
            repeatable: true,
            request_timeout: self.client.shared.config.request_timeout,
            deadline: begun_at + self.config.report_after,
            may_wait: Duration::ZERO,
            once: false,
        };
        let options = FetchOptions {
            level: self.config.level,
            max_bytes: self.share.fetch_bytes(),
            min_bytes: 1,
            max_wait,
            node: self.config.node,
        };
        let place = (self.topic.as_str(), self.partition);
        let fetched = self.client.fetch_patiently(place, wanted.offset, &options, patience).await;
        match fetched {
            Ok(fetched) => {
                let is_empty = fetched.records.is_empty();
                self.slot.put(wanted, fetched);
                if is_empty && begun_at.elapsed() < max_wait / 2 {
                    // A node that does not wait would be asked without end.
                    self.pause().await;
                    return false;
                }
                return is_empty;
            }
            Err(ReadError::OffsetOutOfRange { offset, log_start_offset, .. }) => {
                self.find_place(wanted, offset, log_start_offset).await;
            }
            Err(error) => {
                let stop = !error.retriable();
                self.slot.put_error(wanted, error, stop);
                self.pause().await;
            }
        }
        false
    }

    /// The asked replica does not hold `offset`: find out whether the partition does.
    async fn find_place(&self, wanted: Wanted, offset: u64, replica_start: u64) {
        let asked = self.client.list_offsets(&self.topic, self.partition, Position::Latest).await;
        let ends = match asked {
            Ok(ends) => ends,
            Err(error) => {
                let stop = !error.retriable();
                self.slot.put_error(wanted, error, stop);
                return self.pause().await;
            }
        };
        let start = ends.log_start_offset.max(replica_start);
        match out_of_range(self.config.out_of_range, offset, start, ends.high_watermark) {
            OutOfRangeStep::AskAgain => self.pause().await,
            OutOfRangeStep::GoTo(to) => {
                let (topic, partition) = (&self.topic, self.partition);
                tracing::warn!(topic, partition, offset, to, "offset out of range; going on");
                self.slot.reset(wanted, to);
            }
            OutOfRangeStep::Stop => {
                let error = ReadError::OffsetOutOfRange {
                    offset,
                    log_start_offset: start,
                    high_watermark: ends.high_watermark,
                };
                self.slot.put_error(wanted, error, true);
            }
        }
    }

    async fn pause(&self) {
        sleep(self.client.shared.backoff().max).await;
    }
}
