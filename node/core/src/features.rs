//! Feature levels: what a cluster whose nodes run different builds may replicate and store.
//!
//! A level is a number that only grows. Each build speaks a range of them; the cluster has one,
//! finalized in the metadata, and never goes back. What a level adds is replicated, sent and stored
//! only once it is finalized; below it every encoder writes the older bytes. So the builds can be
//! exchanged node by node, and back, until somebody finalizes. docs/compatibility.md is the same
//! for people.
//!
//! A node says which levels it speaks at the end of its version text, as in `0.2.0+levels.1-2`.
//! The bytes of the command that carries it are those of level 1, and a build that knows nothing
//! of levels keeps the text as it is. Where nothing is said, it is level 1 alone.

use std::fmt;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{InvalidName, NodeVersion};

/// What this build reads and writes.
pub const SUPPORTED: FeatureRange = FeatureRange { min: FeatureLevel(1), max: FeatureLevel(2) };

/// Every level this build knows, from the first.
pub const LEVELS: &[LevelNotes] = &[
    LevelNotes { level: FeatureLevel(1), release: "0.1", adds: "all that quipu 0.1 has" },
    LevelNotes {
        level: FeatureLevel(2),
        release: "0.2",
        adds: "the finalized level itself, draining and removing nodes",
    },
];

/// Between the version of the build and its levels, in the text that a node announces.
const MARK: &str = "+levels.";

/// A level; 1 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u16);

/// The levels that a build speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureRange {
    /// The lowest.
    pub min: FeatureLevel,
    /// The highest.
    pub max: FeatureLevel,
}

/// What a level is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelNotes {
    /// Which.
    pub level: FeatureLevel,
    /// The first release that speaks it.
    pub release: &'static str,
    /// What it adds to the one before.
    pub adds: &'static str,
}

impl FeatureLevel {
    /// That of quipu 0.1, which knew no levels.
    pub const FIRST: FeatureLevel = FeatureLevel(1);
    /// The finalized level is replicated; nodes are drained and removed.
    pub const MEMBERSHIP: FeatureLevel = FeatureLevel(2);

    /// Appends two bytes.
    pub fn write(self, writer: &mut Writer) {
        writer.u16(self.0);
    }

    /// Reads what `write` wrote.
    pub fn read(reader: &mut Reader) -> Result<FeatureLevel, DecodeError> {
        match reader.u16()? {
            0 => Err(reader.invalid("feature levels begin at 1")),
            level => Ok(FeatureLevel(level)),
        }
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FeatureRange {
    /// Of a build that says nothing about levels.
    pub const FIRST: FeatureRange =
        FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::FIRST };

    /// Whether a build of this range can work in a cluster of that level.
    #[must_use]
    pub fn contains(self, level: FeatureLevel) -> bool {
        (self.min..=self.max).contains(&level)
    }

    /// The highest level that all of them speak; `None` where there is no such level.
    #[must_use]
    pub fn highest_common(ranges: impl Iterator<Item = FeatureRange>) -> Option<FeatureLevel> {
        let both = |all: FeatureRange, one: FeatureRange| FeatureRange {
            min: all.min.max(one.min),
            max: all.max.min(one.max),
        };
        let all = ranges.reduce(both)?;
        (all.min <= all.max).then_some(all.max)
    }
}

impl fmt::Display for FeatureRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

impl NodeVersion {
    /// What a node of this build announces. A build of level 1 alone says nothing of levels, as
    /// quipu 0.1 did.
    ///
    /// # Errors
    /// If the whole is no version text.
    pub fn announced(build: &str, levels: FeatureRange) -> Result<NodeVersion, InvalidName> {
        if levels == FeatureRange::FIRST {
            return NodeVersion::new(build);
        }
        NodeVersion::new(format!("{build}{MARK}{}-{}", levels.min, levels.max))
    }

    /// The build, without its levels.
    #[must_use]
    pub fn build(&self) -> &str {
        self.as_str().split_once(MARK).map_or(self.as_str(), |(build, _)| build)
    }

    /// The levels that the node speaks. What can't be read counts as nothing said.
    #[must_use]
    pub fn levels(&self) -> FeatureRange {
        let parse = |(_, levels): (&str, &str)| {
            let (min, max) = levels.split_once('-')?;
            let range = FeatureRange {
                min: FeatureLevel(min.parse().ok()?),
                max: FeatureLevel(max.parse().ok()?),
            };
            (FeatureLevel::FIRST <= range.min && range.min <= range.max).then_some(range)
        };
        self.as_str().split_once(MARK).and_then(parse).unwrap_or(FeatureRange::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: u16, max: u16) -> FeatureRange {
        FeatureRange { min: FeatureLevel(min), max: FeatureLevel(max) }
    }

    #[test]
    fn the_table_names_each_supported_level_once_and_in_order() {
        let named: Vec<u16> = LEVELS.iter().map(|notes| notes.level.0).collect();
        assert_eq!(named, (1..=SUPPORTED.max.0).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_announced_is_read_again() {
        for levels in [range(1, 1), range(1, 2), range(3, 40_000)] {
            let version = NodeVersion::announced("0.2.0-bug-zoo", levels).unwrap();
            assert_eq!((version.build(), version.levels()), ("0.2.0-bug-zoo", levels));
        }
    }

    #[test]
    fn a_version_that_says_nothing_or_nonsense_speaks_the_first_level_only() {
        for text in ["0.1.0", "0.2.0+levels.", "0.2.0+levels.2", "x+levels.3-1", "x+levels.0-9"] {
            assert_eq!(NodeVersion::new(text).unwrap().levels(), FeatureRange::FIRST, "{text}");
        }
    }

    #[test]
    fn the_highest_common_level_is_one_that_all_speak() {
        let common = |ranges: &[FeatureRange]| FeatureRange::highest_common(ranges.iter().copied());
        assert_eq!(common(&[range(1, 2), range(1, 1)]), Some(FeatureLevel(1)));
        assert_eq!(common(&[range(1, 3), range(2, 4)]), Some(FeatureLevel(3)));
        assert_eq!(common(&[range(1, 1), range(2, 3)]), None);
        assert_eq!(common(&[]), None);
    }
}
