//! The configuration file: TOML, one key for each setting, nothing nested.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::error::{ConfigError, Origin};
use crate::config::settings::setting;
use crate::config::written::Written;
use crate::limits;

/// The environment variable that names the file.
pub(super) const VARIABLE: &str = "QUIPUD_CONFIG";

/// Reads the settings of a file, in the order of their keys.
pub(super) fn read(path: &Path) -> Result<Vec<Written>, ConfigError> {
    let text = read_bounded(path)
        .map_err(|error| ConfigError::FileUnreadable { path: path.to_owned(), error })?;
    parse(path, &text)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limits::CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limits::CONFIG_FILE_BYTES_MAX {
        let reason = format!("longer than {} bytes", limits::CONFIG_FILE_BYTES_MAX);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Written>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::FileNotToml {
        path: path.to_owned(),
        // Begins with the line and column, and shows the line.
        reason: error.to_string().trim_end().to_owned(),
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(text, key.span().start);
        let origin = Origin::File { path: path.to_owned(), line };
        let key = key.get_ref().to_string();
        if setting(&key).is_none() {
            return Err(ConfigError::UnknownKey { key, origin });
        }
        let value = value_text(value.get_ref()).map_err(|reason| ConfigError::BadValue {
            key: key.clone(),
            value: format!("a TOML {}", value.get_ref().type_str()),
            origin: origin.clone(),
            reason: reason.to_owned(),
        })?;
        settings.push(Written { key, value, origin });
    }
    Ok(settings)
}

/// The value as it would be typed on the command line.
fn value_text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        // Decimal only; `0x40` reaches the setting as it is and is refused there.
        DeValue::Integer(integer) if integer.radix() == 10 => Ok(integer.as_str().to_owned()),
        DeValue::Array(items) => {
            let mut texts = Vec::new();
            for item in items {
                match item.get_ref() {
                    DeValue::String(text) => texts.push(text.to_string()),
                    _ => return Err("write a list of strings"),
                }
            }
            Ok(texts.join(","))
        }
        _ => Err("write a string, a decimal number or a list of strings"),
    }
}

/// Counted from 1.
fn line_of(text: &str, position: usize) -> usize {
    let before = text.as_bytes().get(..position).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, String> {
        let settings = parse(Path::new("q.toml"), text).map_err(|error| error.to_string())?;
        Ok(settings.into_iter().map(|written| (written.key, written.value)).collect())
    }

    #[test]
    fn numbers_strings_and_lists_are_read_as_typed() {
        let text = "node-id = 1_000\nlisten = '127.0.0.1:1'\njoin = ['a:1', 'b:2']\n";
        let mut settings = parsed(text).unwrap();
        settings.sort();
        let expected = [("join", "a:1,b:2"), ("listen", "127.0.0.1:1"), ("node-id", "1000")];
        assert_eq!(settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
        let error = parsed("node-id = 1\n\nlisten-on = 'x'\n").unwrap_err();
        assert!(error.contains("unknown key `listen-on` (file q.toml, line 3)"), "{error}");
        assert!(error.contains("known keys: node-id, listen, "), "{error}");
    }

    #[test]
    fn a_value_of_another_kind_is_refused_with_its_line() {
        let cases = ["true", "1.5", "2026-11-21", "0x10", "[1, 2]", "[['a']]", "{ a = 1 }"];
        for value in cases {
            let error = parsed(&format!("\njoin = {value}\n")).unwrap_err();
            assert!(error.starts_with("join: a TOML "), "{error}");
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_place() {
        let error = parsed("node-id = 1\nlisten = 127.0.0.1:9400\n").unwrap_err();
        assert!(error.starts_with("config: q.toml is not valid TOML: "), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }
}
