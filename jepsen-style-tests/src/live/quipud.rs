//! Which `quipud` is tested: the one that is named, else `$QUIPUD`, else the one beside this
//! binary, else the newest build below `target/`.
//!
//! What runs is printed with every check, because a verdict about another build is worth nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::bail;

const NAME: &str = "quipud";

/// Where a build from the root of the repository leaves it.
const BUILDS: [&str; 2] = ["target/release/quipud", "target/debug/quipud"];

/// Finds the binary.
///
/// # Errors
/// If a file that was named is not there, or nothing was named and nothing is found.
pub(super) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let variable = env::var_os("QUIPUD").map(PathBuf::from);
    if let Some(named) = named.map(Path::to_owned).or(variable) {
        if named.is_file() {
            return Ok(named);
        }
        bail!("there is no file {}", named.display());
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let builds = BUILDS.into_iter().map(PathBuf::from);
    let found = beside.into_iter().chain(builds).find(|file| file.is_file());
    found.map_or_else(
        || bail!("no {NAME} is found; build it with `cargo build -p node`, or name it: --quipud"),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_must_be_there() {
        let error = find(Some(Path::new("/nowhere/quipud"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/quipud"), "{error}");
    }
}
