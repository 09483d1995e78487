//! The cluster's feature level: telling it, and finalizing a higher one.

use futures::FutureExt as _;
use node_core::features::FeatureLevel;
use quipu_proto::v1;
use tokio::time::Instant;

use super::super::route;
use super::super::status::Refusal;
use super::Door;
use crate::{levels, limits};

pub(super) async fn describe(door: &Door) -> Result<v1::DescribeFeaturesResponse, Refusal> {
    let member = door.member()?;
    let metadata = route::fresh_metadata(&member, Instant::now() + limits::CALL_WITHIN).await?;
    let nodes = metadata.members().map(|(_, record)| {
        let spoken = record.version.levels();
        v1::NodeLevels {
            node_id: record.label.0,
            version: record.version.build().to_owned(),
            level_min: spoken.min.0.into(),
            level_max: spoken.max.0.into(),
        }
    });
    Ok(v1::DescribeFeaturesResponse {
        level: metadata.level().0.into(),
        level_common: levels::highest(&metadata).map_or(0, |level| level.0.into()),
        nodes: nodes.collect(),
    })
}

pub(super) async fn finalize(
    door: &Door,
    request: &v1::FinalizeLevelRequest,
) -> Result<v1::FinalizeLevelResponse, Refusal> {
    let member = door.member()?;
    let level = match u16::try_from(request.level) {
        Ok(0) => None,
        Ok(level) => Some(FeatureLevel(level)),
        Err(_) => return Err(Refusal::invalid("level: there is no such feature level")),
    };
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let finalized = door.unless_stopped(async {
        let finalized = levels::finalize(&member, level, deadline).boxed().await;
        finalized.map_err(|failure| Refusal::of_level(failure, Instant::now() < deadline))
    });
    Ok(v1::FinalizeLevelResponse { level: finalized.await?.0.into() })
}
