//! Appending: one batch, or many on one stream; producer ids. Reading is in `read`.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use quipu_proto::v1;
use quipu_proto::v1::log_server::Log;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::append_stream::{self, Answer, Answering, Taker, Taking};
use super::status::{Refusal, answer};
use super::{Door, convert, read, route};
use crate::limits;
use crate::member::Member;
use crate::metrics::Metrics;
use crate::partition::{AppendFailure, NewAppend};

/// quipu.v1.Log.
pub(super) struct LogService(pub(super) Arc<Door>);

/// Appends of one connection or stream.
#[derive(Clone)]
struct Appends(Arc<Door>);

#[tonic::async_trait]
impl Log for LogService {
    type AppendStreamStream = BoxStream<'static, Result<v1::AppendStreamResponse, Status>>;
    type FollowStream = read::Following;

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let appends = Appends(self.0.clone());
        let appended = async {
            let answering = appends.take_in(request.into_inner()).await?;
            answering.await
        };
        answer(appended.await)
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let begun = || {
            self.0.member()?;
            self.0.stream_room()
        };
        let room = begun().map_err(Refusal::into_status)?;
        let (appends, stop) = (Appends(self.0.clone()), self.0.ground.stop.clone());
        let answers = append_stream::answers(request.into_inner(), appends, stop);
        let answers = answers.inspect(move |_| {
            let _kept = &room;
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        answer(read::fetch(&self.0, request.get_ref()).await)
    }

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        answer(read::follow(&self.0, request.get_ref()).await)
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        answer(read::list_offsets(&self.0, request.get_ref()).await)
    }

    async fn new_producer(
        &self,
        _: Request<v1::NewProducerRequest>,
    ) -> Result<Response<v1::NewProducerResponse>, Status> {
        answer(new_producer(&self.0).await)
    }
}

impl Taker for Appends {
    fn take(&mut self, request: v1::AppendRequest) -> Taking {
        let appends = self.clone();
        async move { appends.take_in(request).await }.boxed()
    }
}

impl Appends {
    /// Checks an append and gives it a place in its partition's line. What it waits for then is
    /// the answer.
    async fn take_in(&self, request: v1::AppendRequest) -> Result<Answering, Refusal> {
        let arrived = Instant::now();
        let metrics = &self.0.ground.metrics;
        let taken = async {
            let member = self.0.member()?;
            take_in(member, request, arrived).await
        };
        let taken = taken.await;
        if let Err(refusal) = &taken {
            metrics.append.errors.at(refusal.code()).inc();
        }
        taken
    }
}

async fn take_in(
    member: Arc<Member>,
    request: v1::AppendRequest,
    arrived: Instant,
) -> Result<Answering, Refusal> {
    let wish = convert::append(request)?;
    let deadline = arrived + wish.within;
    let (name, bytes) = (wish.partition, wish.batch.len());
    let in_flight = member.metrics().append.in_flight_bytes.hold(bytes);
    let routed_by = deadline.min(arrived + limits::CALL_WITHIN);
    let partition = route::led_partition(&member, &name, routed_by).await?;
    let header = convert::batch(&wish.batch, partition.config().max_batch_bytes)?;
    let refused = {
        let (member, group) = (member.clone(), partition.group());
        move |failure: AppendFailure| {
            let leader = match &failure {
                AppendFailure::NotLeader { leader } => {
                    route::leader_address(&member, group, *leader)
                }
                _ => None,
            };
            Refusal::of_append(failure, &name.to_string(), leader)
        }
    };
    let append =
        NewAppend { batch: wish.batch, expect_end_offset: wish.expect_end_offset, deadline };
    let ticket = partition.enqueue(append).await.map_err(&refused)?;
    Ok(async move {
        let _until_answered = in_flight;
        let appended = ticket.answer().await.map_err(refused);
        let answer = appended.map(|appended| convert::appended(partition.place_of(appended)));
        count(member.metrics(), &answer, (header.record_count, bytes), arrived);
        answer
    }
    .boxed())
}

fn count(metrics: &Metrics, answer: &Answer, (records, bytes): (u32, usize), arrived: Instant) {
    let metrics = &metrics.append;
    match answer {
        Ok(appended) if appended.duplicate => {
            metrics.duplicates.inc();
            metrics.duration.observe(arrived.elapsed());
        }
        Ok(_) => {
            metrics.batches.inc();
            metrics.records.inc_by(records.into());
            metrics.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
            metrics.duration.observe(arrived.elapsed());
        }
        Err(refusal) => {
            metrics.errors.at(refusal.code()).inc();
        }
    }
}

async fn new_producer(door: &Door) -> Result<v1::NewProducerResponse, Refusal> {
    let member = door.member()?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let given = tokio::time::timeout_at(deadline, member.new_producer(deadline).boxed()).await;
    match given {
        Ok(Ok(producer_id)) => Ok(v1::NewProducerResponse { producer_id, producer_epoch: 0 }),
        Ok(Err(failure)) => Err(Refusal::of_proposal(
            failure,
            "giving out a producer id",
            Instant::now() < deadline,
        )),
        // Ids that nobody was told of do no harm.
        Err(_) => Err(Refusal::too_late("giving out a producer id")),
    }
}
