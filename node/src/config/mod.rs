//! Reads what `quipud` is told: command line, environment and file become one [`NodeConfig`].
//!
//! - `node_config`: the result, its defaults and its rules; `address`: "host:port";
//! - `settings`: the table from which all the rest is made;
//! - `args`, `written`, `file`: the three sources; `error`: every refusal.
//!
//! A value on the command line wins over the environment, the environment over the file, the file
//! over the default. Nothing is merged: a `join` on the command line replaces the file's. Every
//! value that was written is checked, also one that another source overrides.

mod address;
mod args;
mod error;
mod file;
mod node_config;
mod settings;
mod written;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

pub use address::{Address, NotAnAddress};
pub use args::command;
pub use error::{ConfigError, Origin};
pub use node_config::{InvalidConfig, LogConfig, LogFormat, NodeConfig, StorageConfig};
pub use settings::{ENVIRONMENT_PREFIX, SETTINGS, Setting};

use crate::version;
use settings::setting;
use written::Written;

/// A valid configuration that knows where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// What the node is to do.
    pub config: NodeConfig,
    /// `--print-config`: show [`Loaded::to_toml`] instead of running.
    pub print_config: bool,
    /// `--print-versions`: show what this build is instead of running; nothing else was read.
    pub print_versions: bool,
    origins: BTreeMap<&'static str, Origin>,
}

/// Reads a command line (the program's name first), an environment and the file they may name.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let typed = args::parse(arguments)?;
    let mut loaded = Loaded {
        config: NodeConfig::default(),
        print_config: typed.print_config,
        print_versions: typed.print_versions,
        origins: BTreeMap::new(),
    };
    if typed.print_versions {
        return Ok(loaded);
    }
    let environment = written::from_environment(environment)?;
    let file = match typed.config.or(environment.config) {
        Some(path) => file::read(Path::new(&path))?,
        None => Vec::new(),
    };
    // Later ones overwrite earlier ones.
    for written in file.into_iter().chain(environment.settings).chain(typed.settings) {
        loaded.apply(written)?;
    }
    loaded.finish()?;
    Ok(loaded)
}

impl Loaded {
    /// The configuration as a file that gives the same configuration, with the origin of each
    /// value beside it.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "# Settings in effect, quipud {}. Can be used as a file with --config.\n",
            version::VERSION
        );
        for setting in SETTINGS {
            let value = (setting.show)(&self.config);
            writeln!(text, "\n# {}.", setting.help).expect("a string takes all");
            // The name of a file may hold anything; the comment must stay on its line.
            let origin = self.origin(setting.key).to_string().replace(char::is_control, " ");
            writeln!(text, "{} = {value} # {origin}", setting.key).expect("a string takes all");
        }
        text
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn apply(&mut self, written: Written) -> Result<(), ConfigError> {
        let Written { key, value, origin } = written;
        let Some(setting) = setting(&key) else {
            return Err(ConfigError::UnknownKey { key, origin });
        };
        if let Err(reason) = (setting.set)(&mut self.config, &value) {
            return Err(ConfigError::BadValue { key, value: format!("`{value}`"), origin, reason });
        }
        self.origins.insert(setting.key, origin);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ConfigError> {
        for setting in SETTINGS.iter().filter(|setting| setting.required) {
            if !self.origins.contains_key(setting.key) {
                let variable = setting.environment_variable();
                return Err(ConfigError::Missing { key: setting.key, variable });
            }
        }
        if !self.origins.contains_key("advertise") {
            self.config.advertise = self.config.listen.into();
            self.origins.insert("advertise", Origin::Follows("listen"));
        }
        self.config.check().map_err(|invalid| {
            let origin = self.origin(invalid.key);
            ConfigError::Invalid { invalid, origin }
        })
    }
}
