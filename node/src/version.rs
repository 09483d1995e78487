//! What this build is: its version, and the feature levels it speaks.

use node_core::features::{FeatureLevel, FeatureRange, LEVELS, SUPPORTED};
use node_core::ids::{InvalidName, NodeVersion};

/// Version of the crate, and whether bugs were built in on purpose. A node of the bug zoo loses
/// data, so whoever looks at it must see what it is.
pub const VERSION: &str = if BUG_ZOO {
    concat!(env!("CARGO_PKG_VERSION"), "-bug-zoo")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Whether this build has the planted bugs that the simulator must catch.
pub const BUG_ZOO: bool = cfg!(quipu_zoo);

/// For tests of upgrades: the release that `quipud` shall act as, such as `0.1`. Not a setting,
/// and in no help: nobody should run a node so.
pub const ACT_AS_VARIABLE: &str = "QUIPU_ACT_AS";

/// What a node says it is, and keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version of the build, as people know it.
    pub build: String,
    /// The feature levels it speaks.
    pub levels: FeatureRange,
}

/// There is no such release in [`LEVELS`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ACT_AS_VARIABLE}: no release {0:?} is known to this build")]
pub struct UnknownRelease(String);

impl Default for Release {
    /// This build.
    fn default() -> Self {
        Self { build: VERSION.to_owned(), levels: SUPPORTED }
    }
}

impl Release {
    /// An earlier release, as far as a cluster can tell: it announces that version, and refuses
    /// what is of a later level.
    ///
    /// # Errors
    /// If this build knows no such release.
    pub fn acting_as(release: &str) -> Result<Self, UnknownRelease> {
        let notes = LEVELS.iter().rfind(|notes| notes.release == release);
        let notes = notes.ok_or_else(|| UnknownRelease(release.to_owned()))?;
        let levels = FeatureRange { min: FeatureLevel::FIRST, max: notes.level };
        Ok(Self { build: format!("{release}.0"), levels })
    }

    /// How it stands in the metadata.
    ///
    /// # Errors
    /// If the build's version is none that a cluster takes.
    pub fn announced(&self) -> Result<NodeVersion, InvalidName> {
        NodeVersion::announced(&self.build, self.levels)
    }

    /// For `--print-versions`: one JSON object in one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let FeatureRange { min, max } = self.levels;
        let known = LEVELS.iter().filter(|notes| notes.level <= max);
        let known: Vec<String> = known
            .map(|notes| {
                format!(
                    r#"{{"level":{},"release":"{}","adds":"{}"}}"#,
                    notes.level, notes.release, notes.adds
                )
            })
            .collect();
        format!(
            r#"{{"version":"{}","level_min":{min},"level_max":{max},"levels":[{}]}}"#,
            self.build,
            known.join(",")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_one_that_a_cluster_takes() {
        for build in [VERSION, concat!(env!("CARGO_PKG_VERSION"), "-bug-zoo")] {
            let release = Release { build: build.to_owned(), ..Release::default() };
            let announced = release.announced().expect("a version");
            assert_eq!((announced.build(), announced.levels()), (build, SUPPORTED));
        }
    }

    #[test]
    fn the_first_release_announces_nothing_but_its_version() {
        let first = Release::acting_as("0.1").expect("known");
        assert_eq!(first.announced().expect("a version").as_str(), "0.1.0");
        assert!(Release::acting_as("0.0").is_err());
    }

    #[test]
    fn versions_are_printed_as_one_object() {
        let printed = Release::acting_as("0.1").expect("known").to_json();
        let known = r#"{"level":1,"release":"0.1","adds":"all that quipu 0.1 has"}"#;
        let expected =
            format!(r#"{{"version":"0.1.0","level_min":1,"level_max":1,"levels":[{known}]}}"#);
        assert_eq!(printed, expected);
    }
}
