//! One test for each bug that the simulator found, named by what was wrong.
//!
//! A change of the code maps its seed to another run, so a seed alone is a weak guard: whoever
//! fixes a bug also writes a direct test beside the code, and names it here.

use std::process::Command;

/// Runs one seed as it was when it found something; it must be clean.
#[allow(dead_code, reason = "no seed of a clean history is worth pinning; see the header")]
fn is_clean(seed: u64, until: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_quipu-sim"))
        .args(["run", "--seed", &seed.to_string(), "--until", until])
        .args(["--out", env!("CARGO_TARGET_TMPDIR")])
        .output()
        .expect("the binary of this package can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "\n{text}");
}
