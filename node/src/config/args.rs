//! The command line of `quipud`, made from the table of settings.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use crate::config::error::Origin;
use crate::config::file;
use crate::config::settings::{SETTINGS, Setting};
use crate::config::written::Written;
use crate::version;

/// What was typed.
pub(super) struct Typed {
    /// Settings, in the order of the table.
    pub(super) settings: Vec<Written>,
    /// `--config`.
    pub(super) config: Option<String>,
    /// `--print-config`.
    pub(super) print_config: bool,
    /// `--print-versions`.
    pub(super) print_versions: bool,
}

/// The command line, for parsing, help and completions.
pub fn command() -> Command {
    let flags = SETTINGS.iter().map(|setting| {
        Arg::new(setting.key)
            .long(setting.key)
            .value_name(setting.placeholder)
            .help(help(setting))
            .allow_hyphen_values(false)
    });
    Command::new("quipud")
        .version(version::VERSION)
        .about("One node of a Quipu cluster")
        .after_help(
            "Every setting can be given as a flag, as an environment variable or in the file \
             named by --config, with the same names. The command line wins over the environment, \
             the environment over the file.",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help(format!("TOML file with settings [env: {}]", file::VARIABLE)),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the settings in effect and where each came from, then exit"),
        )
        .arg(
            Arg::new("print-versions")
                .long("print-versions")
                .action(ArgAction::SetTrue)
                .help("Print the version and the feature levels it speaks as JSON, then exit"),
        )
        .args(flags)
}

/// Parses a command line, the program's name first.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Typed, clap::Error> {
    let mut matches = command().try_get_matches_from(arguments)?;
    let mut settings = Vec::new();
    for setting in SETTINGS {
        if let Some(value) = matches.remove_one::<String>(setting.key) {
            let origin = Origin::CommandLine(format!("--{}", setting.key));
            settings.push(Written { key: setting.key.to_owned(), value, origin });
        }
    }
    Ok(Typed {
        settings,
        config: matches.remove_one("config"),
        print_config: matches.get_flag("print-config"),
        print_versions: matches.get_flag("print-versions"),
    })
}

fn help(setting: &Setting) -> String {
    let variable = setting.environment_variable();
    // `advertise` says itself what it falls back to; an empty `join` needs no words.
    let default = match setting.default_value() {
        _ if setting.key == "advertise" => String::new(),
        toml::Value::Array(_) => String::new(),
        _ if setting.required => " [required]".to_owned(),
        toml::Value::String(text) => format!(" [default: {text}]"),
        value => format!(" [default: {value}]"),
    };
    format!("{} [env: {variable}]{default}", setting.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
