//! From events to operations: each call is put together with its ending and sorted by what it is
//! about.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::{
    Append, AppendOutcome, Attempt, BatchSurvey, Commit, CommittedFetch, Conflict, ConsumerStep,
    Course, Delivery, FailedRead, GroupObservations, LaggingRead, MemberCommit, Moment,
    Observations, PartitionObservations, Read, Survey,
};
use crate::history::{Answer, Call, Event, Failure, History, Level, ProducerStamp, What};

/// An operation from its beginning to its end.
struct Operation<'a> {
    op: u64,
    call: &'a Call,
    invoked: Moment,
    ending: Ending<'a>,
}

#[derive(Clone, Copy)]
enum Ending<'a> {
    Ok(&'a Answer, Moment),
    Fail(&'a Failure),
    Unknown,
}

/// Numbered batches that were sent already, and the place of their append.
type Sent = BTreeMap<(u32, ProducerStamp), usize>;

impl Observations {
    /// Sorts a history.
    pub fn of(history: &History) -> Self {
        let mut observations = Self::default();
        let mut sent = Sent::new();
        for operation in operations(&history.events) {
            observations.add(&operation, &mut sent);
        }
        let course = Arc::new(course(&history.events));
        for partition in observations.partitions.values_mut() {
            partition.course = course.clone();
        }
        observations
    }

    fn add(&mut self, operation: &Operation<'_>, sent: &mut Sent) {
        match operation.call {
            Call::Append { partition, values } => {
                self.partition(*partition).add_append(operation, values, None);
            }
            Call::AppendWith { partition, values, expect_end_offset, producer } => {
                let partition_number = *partition;
                let partition = self.partition(*partition);
                let Some(stamp) = producer else {
                    partition.add_append(operation, values, *expect_end_offset);
                    return;
                };
                partition.attempts.push(operation.attempt(*stamp));
                match sent.entry((partition_number, *stamp)) {
                    Entry::Vacant(new) => {
                        new.insert(partition.appends.len());
                        partition.add_append(operation, values, *expect_end_offset);
                    }
                    Entry::Occupied(first) => partition.add_retry(operation, *first.get()),
                }
            }
            Call::Read { partition, .. }
            | Call::ListOffsets { partition }
            | Call::ReadAt { partition, .. } => self.partition(*partition).add_read(operation),
            Call::Survey { partition, .. } | Call::SurveyBatches { partition, .. } => {
                self.partition(*partition).add_survey(operation);
            }
            Call::Seek { consumer, partition, offset } => {
                if let Ending::Ok(..) = operation.ending {
                    let step = ConsumerStep::Seek { op: operation.op, offset: *offset };
                    self.consumer(consumer, *partition).push(step);
                }
            }
            Call::Poll { consumer } => self.add_poll(operation, consumer),
            Call::GroupPoll { group, .. } => self.add_group_poll(operation, group),
            Call::MemberCommit { group, partition, member, generation, offset } => {
                let returned = match operation.ending {
                    Ending::Ok(Answer::Committed, returned) => Some(returned),
                    Ending::Ok(..) | Ending::Fail(_) | Ending::Unknown => None,
                };
                let commit = MemberCommit {
                    op: operation.op,
                    member: member.clone(),
                    generation: *generation,
                    offset: *offset,
                    invoked: operation.invoked,
                    returned,
                };
                let place = (group.clone(), *partition);
                self.member_commits.entry(place.clone()).or_default().push(commit);
                self.groups.entry(place).or_default().add(operation);
            }
            Call::Commit { group, partition, .. }
            | Call::CommitVersion { group, partition, .. }
            | Call::FetchCommitted { group, partition } => {
                self.groups.entry((group.clone(), *partition)).or_default().add(operation);
            }
            Call::CreateTopic { .. } | Call::DeleteTopic { .. } => {}
        }
    }

    fn partition(&mut self, number: u32) -> &mut PartitionObservations {
        self.partitions.entry(number).or_default()
    }

    fn consumer(&mut self, name: &str, partition: u32) -> &mut Vec<ConsumerStep> {
        self.consumers.entry((name.to_owned(), partition)).or_default()
    }

    fn add_poll(&mut self, operation: &Operation<'_>, consumer: &str) {
        let Ending::Ok(Answer::Polled { partition, base_offset, values }, returned) =
            operation.ending
        else {
            return;
        };
        let (op, base_offset, record_count) = (operation.op, *base_offset, length(values.len()));
        let step = ConsumerStep::Poll { op, base_offset, record_count };
        self.consumer(consumer, *partition).push(step);
        let read = given(operation, base_offset, values, returned);
        self.partition(*partition).lagging_reads.push(read);
    }

    fn add_group_poll(&mut self, operation: &Operation<'_>, group: &str) {
        let last = self.last_polls.entry(group.to_owned()).or_default();
        *last = operation.invoked.max(*last);
        let Ending::Ok(Answer::Polled { partition, base_offset, values }, returned) =
            operation.ending
        else {
            return;
        };
        let (op, base_offset, record_count) = (operation.op, *base_offset, length(values.len()));
        let given_out = self.deliveries.entry((group.to_owned(), *partition)).or_default();
        given_out.push(Delivery { op, base_offset, record_count });
        let read = given(operation, base_offset, values, returned);
        self.partition(*partition).lagging_reads.push(read);
    }
}

/// What a consumer was given, as a read.
fn given(
    operation: &Operation<'_>,
    base_offset: u64,
    values: &[u64],
    returned: Moment,
) -> LaggingRead {
    LaggingRead {
        op: operation.op,
        node: None,
        from: base_offset,
        values: values.to_vec(),
        end: base_offset.saturating_add(length(values.len())),
        staleness_ms: None,
        invoked: operation.invoked,
        returned,
    }
}

impl PartitionObservations {
    fn add_append(&mut self, operation: &Operation<'_>, values: &[u64], expects: Option<u64>) {
        let Operation { op, invoked, .. } = *operation;
        let outcome = operation.append_outcome();
        if let (Some(expected), Some((end, returned))) = (expects, operation.conflict()) {
            self.conflicts.push(Conflict { op, expected, end });
            let (values, node) = (Vec::new(), None);
            self.reads.push(Read { op, node, from: end, values, end, invoked, returned });
        }
        self.appends.push(Append { op, values: values.to_vec(), expects, invoked, outcome });
    }

    /// Another attempt at an append that is listed. It had its effect if any of them had.
    fn add_retry(&mut self, operation: &Operation<'_>, append: usize) {
        let Some(append) = self.appends.get_mut(append) else { return };
        let outcome = operation.append_outcome();
        let better = match (&append.outcome, &outcome) {
            (
                AppendOutcome::Acked { base_offset: None, .. },
                AppendOutcome::Acked { base_offset: Some(_), .. },
            ) => true,
            (AppendOutcome::Acked { .. }, _) => false,
            (_, AppendOutcome::Acked { .. }) => true,
            (AppendOutcome::Unknown, _) => false,
            (AppendOutcome::Refused(_), AppendOutcome::Unknown) => true,
            (AppendOutcome::Refused(_), AppendOutcome::Refused(_)) => false,
        };
        if better {
            append.op = operation.op;
            append.outcome = outcome;
        }
    }

    fn add_read(&mut self, operation: &Operation<'_>) {
        let Operation { op, invoked, .. } = *operation;
        let (answer, returned) = match operation.ending {
            Ending::Ok(answer, returned) => (answer, returned),
            Ending::Fail(error) => {
                self.failed_reads.push(FailedRead { op, error: error.clone() });
                return;
            }
            Ending::Unknown => return,
        };
        match (operation.call, answer) {
            (Call::Read { node, from, .. }, Answer::Records { values, end }) => {
                let (node, from, values) = (Some(*node), *from, values.clone());
                self.reads.push(Read { op, node, from, values, end: *end, invoked, returned });
            }
            (Call::ListOffsets { .. }, Answer::Offsets { end, .. }) => {
                let (node, from, values) = (None, *end, Vec::new());
                self.reads.push(Read { op, node, from, values, end: *end, invoked, returned });
            }
            (
                Call::ReadAt { node, from, level, .. },
                Answer::RecordsAsOf { values, end, staleness_ms },
            ) => {
                let allowed_ms = match level {
                    Level::Committed => None,
                    Level::Bounded { max_ms } => Some(*max_ms),
                };
                self.lagging_reads.push(LaggingRead {
                    op,
                    node: Some(*node),
                    from: *from,
                    values: values.clone(),
                    end: *end,
                    staleness_ms: allowed_ms.into_iter().chain(*staleness_ms).min(),
                    invoked,
                    returned,
                });
            }
            _ => {}
        }
    }

    fn add_survey(&mut self, operation: &Operation<'_>) {
        let Operation { op, call, invoked, ending } = *operation;
        match (call, ending) {
            (
                Call::Survey { node, .. },
                Ending::Ok(Answer::Log { start, values, chain_hash }, returned),
            ) => {
                let (values, chain_hash) = (values.clone(), chain_hash.clone());
                let (node, start) = (*node, *start);
                self.surveys.push(Survey {
                    op,
                    node,
                    start,
                    values,
                    chain_hash,
                    invoked,
                    returned,
                });
            }
            (Call::SurveyBatches { node, .. }, Ending::Ok(Answer::Batches { batches }, _)) => {
                let (node, batches) = (*node, batches.clone());
                self.batch_surveys.push(BatchSurvey { op, node, batches });
            }
            (_, Ending::Fail(error)) => {
                self.failed_reads.push(FailedRead { op, error: error.clone() });
            }
            (_, Ending::Ok(..) | Ending::Unknown) => {}
        }
    }
}

impl GroupObservations {
    fn add(&mut self, operation: &Operation<'_>) {
        let Operation { op, call, invoked, ending } = *operation;
        let (offset, version, reset) = match call {
            Call::Commit { offset, .. } | Call::MemberCommit { offset, .. } => {
                (*offset, None, false)
            }
            Call::CommitVersion { offset, version, reset, .. } => (*offset, Some(*version), *reset),
            _ => {
                let (offset, version, returned) = match ending {
                    Ending::Ok(Answer::GroupOffset { offset }, returned) => {
                        (*offset, None, returned)
                    }
                    Ending::Ok(Answer::GroupVersion { found }, returned) => {
                        (found.map(|it| it.offset), found.map(|it| it.version), returned)
                    }
                    Ending::Ok(..) | Ending::Fail(_) | Ending::Unknown => return,
                };
                let refusal = false;
                let fetch = CommittedFetch { op, offset, version, refusal, invoked, returned };
                self.fetches.push(fetch);
                return;
            }
        };
        let (returned, mut refused) = match ending {
            Ending::Ok(Answer::Regression { .. }, _) | Ending::Fail(_) => (None, true),
            Ending::Ok(_, returned) => (Some(returned), false),
            Ending::Unknown => (None, false),
        };
        if let Ending::Ok(Answer::Regression { committed }, returned) = ending {
            refused = true;
            let (offset, version, refusal) = (Some(*committed), None, true);
            self.fetches.push(CommittedFetch { op, offset, version, refusal, invoked, returned });
        }
        self.commits.push(Commit { op, offset, invoked, returned, refused, version, reset });
    }
}

impl Operation<'_> {
    fn append_outcome(&self) -> AppendOutcome {
        match self.ending {
            Ending::Ok(Answer::Appended { base_offset }, returned) => {
                AppendOutcome::Acked { base_offset: *base_offset, returned }
            }
            Ending::Ok(Answer::Conflict { end_offset }, _) => {
                let message = format!("the end was {end_offset}");
                AppendOutcome::Refused(Failure { code: "END_OFFSET_CONFLICT".to_owned(), message })
            }
            Ending::Fail(error) => AppendOutcome::Refused(error.clone()),
            Ending::Ok(..) | Ending::Unknown => AppendOutcome::Unknown,
        }
    }

    fn conflict(&self) -> Option<(u64, Moment)> {
        match self.ending {
            Ending::Ok(Answer::Conflict { end_offset }, returned) => Some((*end_offset, returned)),
            Ending::Ok(..) | Ending::Fail(_) | Ending::Unknown => None,
        }
    }

    fn attempt(&self, stamp: ProducerStamp) -> Attempt {
        let acked = match self.ending {
            Ending::Ok(Answer::Appended { base_offset }, returned) => {
                Some((returned, *base_offset))
            }
            Ending::Ok(..) | Ending::Fail(_) | Ending::Unknown => None,
        };
        let refused = match self.ending {
            Ending::Fail(error) => Some(error.clone()),
            Ending::Ok(..) | Ending::Unknown => None,
        };
        Attempt { op: self.op, stamp, invoked: self.invoked, acked, refused }
    }
}

/// All operations, by their numbers, which is the order of invocation.
fn operations(events: &[Event]) -> Vec<Operation<'_>> {
    let invocations = events.iter().enumerate().filter_map(|(invoked, event)| match &event.what {
        // What has not ended when the run does may have its effect.
        What::Invoke { op, call } => {
            Some(Operation { op: *op, call, invoked, ending: Ending::Unknown })
        }
        _ => None,
    });
    let mut operations: Vec<Operation<'_>> = invocations.collect();
    operations.sort_by_key(|operation| operation.op);
    operations.dedup_by_key(|operation| operation.op);
    for (moment, event) in events.iter().enumerate() {
        let (op, ending) = match &event.what {
            What::Ok { op, answer } => (*op, Ending::Ok(answer, moment)),
            What::Fail { op, error } => (*op, Ending::Fail(error)),
            What::Unknown { .. }
            | What::Invoke { .. }
            | What::Fault { .. }
            | What::Started { .. } => {
                continue;
            }
        };
        if let Some(place) = place_of(&operations, op)
            && let Some(operation) = operations.get_mut(place)
        {
            operation.ending = ending;
        }
    }
    operations
}

/// Numbers are mostly dense, so that the place of one follows from the first.
fn place_of(operations: &[Operation<'_>], op: u64) -> Option<usize> {
    let guess = usize::try_from(op.checked_sub(operations.first()?.op)?).ok()?;
    if operations.get(guess).is_some_and(|operation| operation.op == op) {
        return Some(guess);
    }
    operations.binary_search_by_key(&op, |operation| operation.op).ok()
}

fn course(events: &[Event]) -> Course {
    let mut course = Course::default();
    course.times_us.extend(events.iter().map(|event| event.at_us));
    for (moment, event) in events.iter().enumerate() {
        if let What::Started { node } = event.what {
            course.starts.entry(node).or_default().push(moment);
        }
    }
    course
}

fn length(count: usize) -> u64 {
    u64::try_from(count).expect("a usize fits")
}
