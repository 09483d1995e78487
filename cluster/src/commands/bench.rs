//! `quipu bench …`: handed on to the folder of the benches.

use crate::args::{BenchCommand, GlobalArgs};
use crate::bench;

pub(super) async fn run(global: &GlobalArgs, command: BenchCommand) -> anyhow::Result<()> {
    bench::run(global, command).await
}
