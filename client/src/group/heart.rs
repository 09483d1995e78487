//! A member's heartbeats: a task of its own, so that a slow application loses nothing.
//!
//! One heartbeat is always at the coordinator, which holds its answer back until something changes.
//! When the application has given something up, the one that waits is dropped and another is sent;
//! the answer of a dropped one is never looked at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quipu_proto::v1;
use quipu_proto::v1::groups_client::GroupsClient;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::membership::{Membership, News};
use crate::calls::{Patience, Target};
use crate::client::{Client, Shared};
use crate::error::{CallError, Code};

/// What the application's side and the heartbeats share.
#[derive(Debug)]
pub(super) struct Heart {
    membership: Mutex<Membership>,
    /// For the application: there is news.
    pub(super) news: Notify,
    /// For the heartbeats: something was given up.
    pub(super) report: Notify,
    /// Why there will be no more heartbeats.
    ended: Mutex<Option<CallError>>,
    target: Target,
}

impl Heart {
    pub(super) fn new(group: &str, membership: Membership) -> Heart {
        Heart {
            membership: Mutex::new(membership),
            news: Notify::new(),
            report: Notify::new(),
            ended: Mutex::new(None),
            target: Target::Coordinator(group.to_owned()),
        }
    }

    pub(super) fn membership(&self) -> MutexGuard<'_, Membership> {
        // Each change leaves it whole.
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the member is out for good, if it is.
    pub(super) fn ended(&self) -> Option<CallError> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Beats until the member is out for good, or the task is aborted.
    pub(super) async fn beat(self: Arc<Self>, client: Client) {
        let mut rng = client.shared.fork_rng();
        loop {
            let said = self.membership().heartbeat();
            let answer = tokio::select! {
                biased;
                answer = self.send(&client.shared, said) => answer,
                () = self.report.notified() => continue,
            };
            let pause = match answer {
                Ok(answer) => {
                    let pause = Duration::from_millis(answer.heartbeat_interval_ms.into());
                    if self.membership().on_answer(answer) != News::None {
                        self.news.notify_one();
                    }
                    pause
                }
                // Nobody leads, or nobody is reached: the session goes on for a while.
                Err(error) if error.retriable() || is_transport(&error) => {
                    client.shared.backoff().max
                }
                Err(error) => {
                    let id = format!("{:032x}", rng.u128(..));
                    let code = match error.code() {
                        Code::Server(code) => Some(code),
                        _ => None,
                    };
                    let news = self.membership().on_refused(code, id);
                    if news == News::Ended {
                        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                    self.news.notify_one();
                    if news == News::Ended {
                        return;
                    }
                    Duration::ZERO
                }
            };
            tokio::select! {
                biased;
                () = self.report.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// One heartbeat, at whichever node leads the coordinator.
    pub(super) async fn send(
        &self,
        shared: &Shared,
        said: v1::GroupHeartbeatRequest,
    ) -> Result<v1::GroupHeartbeatResponse, CallError> {
        let may_wait = Duration::from_millis(said.max_wait_ms.into());
        let patience = shared.patience(true);
        let patience = Patience { may_wait, deadline: patience.deadline + may_wait, ..patience };
        shared
            .call(&self.target, patience, |channel| {
                let said = said.clone();
                async move { GroupsClient::new(channel).group_heartbeat(said).await }
            })
            .await
    }
}

/// The failure was made on the way, not by a node.
fn is_transport(error: &CallError) -> bool {
    !matches!(error.code(), Code::Server(_) | Code::InvalidInput)
}
