//! The checks on real processes one after the other, as long as the time lasts: `live --for 2m`.

#![allow(clippy::print_stdout, reason = "a command prints")]

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use comfy_table::{Table, presets};
use tokio::time::Instant;

/// What is done in turn: short, so that each has its turn in half a minute.
const CHECKS: [&[&str]; 4] = [
    &["kill-all", "--rounds", "2", "--rate", "500"],
    &["linearizable", "--rounds", "200", "--moves", "10"],
    &["kill-turns", "--seconds", "8", "--rate", "500"],
    &["linearizable", "--pause", "1"],
];

/// Runs checks of `quipu-live` until the time is over, each of them at least begun in its turn;
/// `more` are further arguments of each. Prints a table. Answers whether all promises were kept.
///
/// # Errors
/// If a check could not be carried out.
pub fn run(quipu_live: &Path, lasts: Duration, more: &[OsString]) -> anyhow::Result<bool> {
    let started = Instant::now();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["check", "seconds", "verdict"]);
    let mut kept = true;
    for check in CHECKS.iter().cycle() {
        if started.elapsed() >= lasts {
            break;
        }
        let name = check.join(" ");
        println!("==> {name}");
        let begun = Instant::now();
        let status = Command::new(quipu_live).args(*check).args(more).status();
        let status = status.with_context(|| format!("can't start {}", quipu_live.display()))?;
        let verdict = match status.code() {
            Some(0) => "kept",
            Some(1) => "BROKEN",
            _ => bail!("{name} ended with {status}"),
        };
        kept &= status.success();
        table.add_row([&name, &format!("{:.0}", begun.elapsed().as_secs_f64()), verdict]);
    }
    println!("\n{table}");
    println!("verdict: {}", if kept { "every promise was kept" } else { "BROKEN" });
    Ok(kept)
}
