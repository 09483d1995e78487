//! What a binary of the node is: its version and feature levels, asked of the binary itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// A binary that takes longer to say what it is, is none of ours.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A binary and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    /// Version of the build.
    pub(crate) version: String,
    /// The lowest feature level it speaks.
    pub(crate) level_min: u32,
    /// The highest.
    pub(crate) level_max: u32,
}

/// What `quipud --print-versions` prints, as far as it matters here.
#[derive(Deserialize)]
struct Printed {
    version: String,
    level_min: u32,
    level_max: u32,
}

impl Binary {
    /// Asks the binary. One that knows no `--print-versions` is quipu 0.1: feature level 1.
    pub(crate) async fn ask(path: &Path) -> anyhow::Result<Binary> {
        let path = path.canonicalize().with_context(|| format!("no file {}", path.display()))?;
        if let Ok(text) = output_of(&path, "--print-versions").await {
            return Binary::parse(path, &text);
        }
        let text = output_of(&path, "--version").await?;
        let Some(version) = text.trim().strip_prefix("quipud ") else {
            bail!("{} is no quipud: it says {:?}", path.display(), text.trim());
        };
        Ok(Binary { version: version.to_owned(), level_min: 1, level_max: 1, path })
    }

    fn parse(path: PathBuf, text: &str) -> anyhow::Result<Binary> {
        let Printed { version, level_min, level_max } = serde_json::from_str(text)
            .with_context(|| format!("{} says what can't be read: {text:?}", path.display()))?;
        Ok(Binary { path, version, level_min, level_max })
    }

    /// Whether it can work in a cluster of that feature level.
    pub(crate) fn speaks(&self, level: u32) -> bool {
        (self.level_min..=self.level_max).contains(&level)
    }
}

async fn output_of(path: &Path, flag: &str) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::new(path);
    command.arg(flag).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_WITHIN, command.output()).await;
    let output = output.with_context(|| format!("{} does not end", path.display()))?;
    let output = output.with_context(|| format!("can't start {}", path.display()))?;
    if !output.status.success() {
        bail!("{} {flag} ends with {}", path.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("quipud");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_binary_says_its_version_and_its_levels() {
        let folder = tempfile::tempdir().unwrap();
        let said = r#"echo '{"version":"0.3.0","level_min":2,"level_max":3,"levels":[]}'"#;
        let binary = Binary::ask(&script(folder.path(), said)).await.unwrap();
        assert_eq!(binary.version, "0.3.0");
        assert!(!binary.speaks(1) && binary.speaks(2) && binary.speaks(3) && !binary.speaks(4));
    }

    #[tokio::test]
    async fn a_binary_of_before_levels_speaks_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let said = r#"[ "$1" = --version ] && echo quipud 0.1.0"#;
        let binary = Binary::ask(&script(folder.path(), said)).await.unwrap();
        assert_eq!((binary.version.as_str(), binary.level_min, binary.level_max), ("0.1.0", 1, 1));
    }

    #[tokio::test]
    async fn what_is_no_node_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Binary::ask(&script(folder.path(), "exit 1")).await.is_err());
        assert!(Binary::ask(&script(folder.path(), "echo hello")).await.is_err());
        assert!(Binary::ask(&folder.path().join("missing")).await.is_err());
    }
}
