//! Why a configuration is refused. Each message names the key, where it was written, and what
//! would be accepted.

use std::fmt;
use std::path::PathBuf;

use crate::config::node_config::InvalidConfig;
use crate::config::settings::SETTINGS;

/// Where a value came from. Later ones win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nothing set it.
    Default,
    /// Nothing set it, and it follows another setting.
    Follows(&'static str),
    /// The file.
    File {
        /// As it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// This flag.
    CommandLine(String),
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line can't be read, or asks for `--help` or `--version`.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The file can't be opened or read.
    #[error("config: cannot read {}: {error}", path.display())]
    FileUnreadable {
        /// As it was named.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is no TOML.
    #[error("config: {} is not valid TOML: {reason}", path.display())]
    FileNotToml {
        /// As it was named.
        path: PathBuf,
        /// Where, and what was expected.
        reason: String,
    },
    /// Nothing is called so.
    #[error("unknown key `{key}` ({origin}); known keys: {}", known_keys())]
    UnknownKey {
        /// As it was written.
        key: String,
        /// Where.
        origin: Origin,
    },
    /// The key is known, the value is not one of its kind.
    #[error("{key}: {value} ({origin}) is not possible: {reason}")]
    BadValue {
        /// The setting.
        key: String,
        /// As it was written.
        value: String,
        /// Where.
        origin: Origin,
        /// What is accepted.
        reason: String,
    },
    /// A setting without a default was not set.
    #[error("{key} is not set; give --{key}, {variable}, or `{key} = …` in the config file")]
    Missing {
        /// The setting.
        key: &'static str,
        /// Its environment variable.
        variable: String,
    },
    /// Each value is possible, but not together.
    #[error("{invalid} ({origin})")]
    Invalid {
        /// Which rule.
        invalid: InvalidConfig,
        /// Where the value of the named key came from.
        origin: Origin,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Follows(key) => write!(f, "default: the value of {key}"),
            Origin::File { path, line } => write!(f, "file {}, line {line}", path.display()),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::CommandLine(flag) => write!(f, "command line, {flag}"),
        }
    }
}

fn known_keys() -> String {
    let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    keys.join(", ")
}
