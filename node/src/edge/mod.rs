//! The public gRPC services (quipu.v1), with health and reflection, so that generic tools work.
//!
//! A request is checked, becomes our own types, is handed on, and what comes back becomes an
//! answer or a typed error. Nothing is decided here about the log itself.
//!
//! - here: the door through which all calls come, and what is served with which limits;
//! - `admission`: how many calls there may be; `serving`: the health service;
//! - `log`, `append_stream`, `read`: appending and reading; `route`: which replica is asked;
//! - `groups`, `group_members`, `group_lag`: group offsets; heartbeats and assignments; how far
//!   groups are behind;
//! - `admin`: topics, cluster, replicas;
//! - `convert`: generated types to ours and back; `status`: failures to public errors.
//!
//! Every call ends by a deadline: its own, or [`limits::CALL_WITHIN`]. Streams end when the client
//! goes or the node stops.

mod admin;
mod admission;
mod append_stream;
mod convert;
mod group_lag;
mod group_members;
mod groups;
mod log;
mod read;
mod route;
mod serve;
mod serving;
mod status;

use std::sync::Arc;

use quipu_proto::v1::admin_server::AdminServer;
use quipu_proto::v1::groups_server::GroupsServer;
use quipu_proto::v1::log_server::LogServer;
use quipu_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use self::admin::AdminService;
use self::admission::Admission;
use self::groups::GroupsService;
use self::log::LogService;
pub(crate) use self::serve::serve;
use self::serving::Serving;
use self::status::Refusal;
use crate::env::Clock;
use crate::formation::Formation;
use crate::limits;
use crate::member::{Ground, Member};

/// What all calls of clients come through.
pub(crate) struct Door {
    ground: Ground,
    formation: Arc<Formation>,
    /// One permit for each open stream.
    streams: Arc<Semaphore>,
}

impl Door {
    pub(crate) fn new(ground: Ground, formation: Arc<Formation>) -> Self {
        Self { ground, formation, streams: Arc::new(Semaphore::new(limits::STREAMS_OPEN_MAX)) }
    }

    /// The node's wall clock.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.ground.clock.clone()
    }

    /// The member that answers; none on a fresh node, or on one that stops.
    fn member(&self) -> Result<Arc<Member>, Refusal> {
        if self.ground.stop.is_cancelled() {
            return Err(Refusal::stopping());
        }
        self.formation.member().ok_or_else(|| {
            if self.formation.resumes() { Refusal::starting() } else { Refusal::not_initialized() }
        })
    }

    /// The answer of `call`, unless the node stops first.
    async fn unless_stopped<T>(
        &self,
        call: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.ground.stop.cancelled() => Err(Refusal::stopping()),
        }
    }

    /// Room for one more stream; to be kept as long as it is open.
    fn stream_room(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Refusal::overloaded("too many streams are open on this node; ask another one")
        })
    }
}

/// Everything that clients may call.
pub(super) fn services(door: Door) -> Routes {
    let door = Arc::new(door);
    let admission = Admission::new(limits::CALLS_AT_ONCE_MAX);
    let log = LogServer::new(LogService(door.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let groups = GroupsServer::new(GroupsService(door.clone()))
        .max_decoding_message_size(limits::GROUPS_REQUEST_BYTES_MAX);
    let admin = AdminServer::new(AdminService(door.clone()))
        .max_decoding_message_size(limits::ADMIN_REQUEST_BYTES_MAX);
    let routes = Routes::new(admission.over(log))
        .add_service(admission.over(groups))
        .add_service(admission.over(admin))
        .add_service(HealthServer::new(Serving(door)));
    with_reflection(routes)
}

/// Adds reflection in both versions of its protocol: grpcurl and others ask for the newer one
/// first, older tools know only the other.
fn with_reflection(routes: Routes) -> Routes {
    const CANNOT_FAIL: &str = "the descriptors are those of this build";
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // What nodes call of each other is nobody else's business.
            .with_service_name(LogServer::<LogService>::NAME)
            .with_service_name(GroupsServer::<GroupsService>::NAME)
            .with_service_name(AdminServer::<AdminService>::NAME)
            .with_service_name(HealthServer::<Serving>::NAME)
    };
    routes
        .add_service(builder().build_v1().expect(CANNOT_FAIL))
        .add_service(builder().build_v1alpha().expect(CANNOT_FAIL))
}
