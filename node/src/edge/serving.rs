//! The standard health service (grpc.health.v1): SERVING while the node belongs to a cluster and
//! does not stop. For load balancers and probes; what is wrong in detail `Admin.Health` tells.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use quipu_proto::v1::admin_server::AdminServer;
use quipu_proto::v1::groups_server::GroupsServer;
use quipu_proto::v1::log_server::LogServer;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Door;
use super::admin::AdminService;
use super::groups::GroupsService;
use super::log::LogService;

/// Whether the services are served.
pub(super) struct Serving(pub(super) Arc<Door>);

/// Services whose health may be asked for. All share one; the empty name is the node itself.
const SERVICES: [&str; 4] = [
    "",
    LogServer::<LogService>::NAME,
    GroupsServer::<GroupsService>::NAME,
    AdminServer::<AdminService>::NAME,
];

impl Serving {
    fn now(&self) -> ServingStatus {
        let serves = self.0.formation.member().is_some() && !self.0.ground.stop.is_cancelled();
        if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn known(request: &HealthCheckRequest) -> Result<(), Status> {
    if SERVICES.contains(&request.service.as_str()) {
        Ok(())
    } else {
        Err(Status::not_found("no such service"))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Serving {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        known(request.get_ref())?;
        Ok(Response::new(response(self.now())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        known(request.get_ref())?;
        let room = self.0.stream_room().map_err(super::Refusal::into_status)?;
        let serving = Self(self.0.clone());
        let member = self.0.formation.watch();
        let told: Option<ServingStatus> = None;
        // Ends with the node's stop, which is its last word.
        let watched = futures::stream::unfold((member, told), move |(mut member, told)| {
            let serving = Self(serving.0.clone());
            async move {
                let mut now = serving.now();
                while told == Some(now) {
                    if serving.0.ground.stop.is_cancelled() {
                        return None;
                    }
                    tokio::select! {
                        biased;
                        () = serving.0.ground.stop.cancelled() => {}
                        changed = member.changed() => changed.ok()?,
                    }
                    now = serving.now();
                }
                Some((Ok(response(now)), (member, Some(now))))
            }
        });
        let watched = watched.inspect(move |_| {
            let _kept = &room;
        });
        Ok(Response::new(watched.boxed()))
    }
}
