//! `bench disk`: what the disk can do without any node: the limit that the others stay below.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use tokio::time::Instant;

use super::figure;
use super::report::{Report, Run};
use crate::args::{DiskBenchArgs, GlobalArgs};
use crate::latency::Latencies;

/// What is written before each sync: a page, less than which no disk writes.
const BLOCK_BYTES: usize = 4 << 10;

/// Of one write in a sequence.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes and syncs.
pub(super) async fn run(global: &GlobalArgs, args: &DiskBenchArgs) -> anyhow::Result<()> {
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut runs = Vec::new();
    for _ in 0..args.repeat {
        let (folder, syncs, bytes) = (folder.clone(), args.syncs, args.bytes);
        let measured = tokio::task::spawn_blocking(move || measure(&folder, syncs, bytes));
        runs.push(measured.await.context("writing panicked")??);
    }
    let settings = json!({
        "folder": folder.display().to_string(),
        "syncs": args.syncs,
        "bytes": args.bytes,
    });
    Report { bench: "disk", settings, runs }.finish(global, args.svg.as_deref())
}

fn measure(folder: &Path, syncs: u32, bytes: u32) -> anyhow::Result<Run> {
    // Without a name, so that it is gone with the process however that ends.
    let mut file = tempfile::tempfile_in(folder)
        .with_context(|| format!("can't make a file in {}", folder.display()))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut chunk);
    let written = |error| anyhow::Error::new(error).context("can't write to the disk");
    let (appended, seconds) = synced(&mut file, &chunk, syncs).map_err(written)?;
    file.rewind().map_err(written)?;
    let (overwritten, _) = synced(&mut file, &chunk, syncs).map_err(written)?;
    let bytes_per_s = sequence(&mut file, &chunk, bytes).map_err(written)?;
    let mut run = Run::default();
    run.set_latencies(&appended);
    run.set(figure::SYNCS_PER_S, f64::from(syncs) / seconds);
    run.set(figure::OVERWRITE_P50_MS, overwritten.percentile_ms(0.5));
    run.set(figure::OVERWRITE_P99_MS, overwritten.percentile_ms(0.99));
    run.set(figure::WRITE_BYTES_PER_S, bytes_per_s);
    Ok(run)
}

/// Writes blocks, each synced before the next, and tells how long each took and all together.
fn synced(file: &mut File, chunk: &[u8], syncs: u32) -> std::io::Result<(Latencies, f64)> {
    let mut latencies = Latencies::new();
    let begun = Instant::now();
    for block in chunk.chunks_exact(BLOCK_BYTES).cycle().take(syncs.try_into().unwrap_or(0)) {
        let at = Instant::now();
        file.write_all(block)?;
        file.sync_data()?;
        latencies.record(at.elapsed());
    }
    Ok((latencies, begun.elapsed().as_secs_f64().max(1e-6)))
}

/// Writes in sequence and syncs once at the end, which counts.
fn sequence(file: &mut File, chunk: &[u8], bytes: u32) -> std::io::Result<f64> {
    let begun = Instant::now();
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let length = left.min(chunk.len());
        file.write_all(&chunk[..length])?;
        left -= length;
    }
    file.sync_data()?;
    Ok(f64::from(bytes) / begun.elapsed().as_secs_f64().max(1e-6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_nothing_is_left_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = measure(folder.path(), 10, 3_000_000).unwrap();
        for figure in [figure::P50_MS, figure::SYNCS_PER_S, figure::WRITE_BYTES_PER_S] {
            assert!(run.get(figure).unwrap() > 0.0, "{figure:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = measure(Path::new("/nowhere/at/all"), 10, 1).unwrap_err().to_string();
        assert_eq!(error, "can't make a file in /nowhere/at/all");
    }
}
