//! A setting as somebody wrote it: a key, a text and the place, before it is known to be good.

use std::ffi::OsString;

use crate::config::error::{ConfigError, Origin};
use crate::config::file;
use crate::config::settings::{ENVIRONMENT_PREFIX, SETTINGS};

/// A setting as it was written somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct FromEnvironment {
    pub(super) settings: Vec<Written>,
    /// `QUIPUD_CONFIG`.
    pub(super) config: Option<String>,
}

/// Takes the variables that begin with `QUIPUD_`. One that names no setting is refused, because a
/// mistyped name would otherwise be a setting silently left at its default.
pub(super) fn from_environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<FromEnvironment, ConfigError> {
    let mut found = FromEnvironment::default();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        let setting = SETTINGS.iter().find(|setting| setting.environment_variable() == name);
        let origin = Origin::Environment(name.clone());
        let key = match setting {
            Some(setting) => setting.key,
            None if name == file::VARIABLE => "config",
            None => return Err(ConfigError::UnknownKey { key: name, origin }),
        };
        let value = value.into_string().map_err(|value| ConfigError::BadValue {
            key: key.to_owned(),
            value: value.to_string_lossy().into_owned(),
            origin: origin.clone(),
            reason: "write it in UTF-8".to_owned(),
        })?;
        match setting {
            Some(_) => found.settings.push(Written { key: key.to_owned(), value, origin }),
            None => found.config = Some(value),
        }
    }
    Ok(found)
}
