//! The public gRPC services. (Begun: nothing is served yet.)

use std::sync::Arc;

use crate::formation::Formation;
use crate::member::Ground;

pub(crate) struct Door;

impl Door {
    pub(crate) fn new(_ground: Ground, _formation: Arc<Formation>) -> Self {
        Self
    }
}

pub(crate) fn services(_door: Door) -> tonic::service::Routes {
    tonic::service::Routes::default()
}
