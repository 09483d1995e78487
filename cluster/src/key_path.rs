//! A path to a value inside a JSON object, as `jq` writes it: `.subject`, `.data.items[0].id`.
//!
//! Used to take a record's key out of its line. A line that lacks the path is an error, not a
//! record without a key: without its key it would land in any partition, out of order.

use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::json_fault;

/// Steps from the top of an object to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Element(usize),
}

/// Why a text is not a path, or a line has no key there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPathError(String);

impl fmt::Display for KeyPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyPathError {}

impl std::str::FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<KeyPath, KeyPathError> {
        let refused = || KeyPathError(format!("`{text}` is not a path; want .name or .a.b[0]"));
        let mut steps = Vec::new();
        for part in text.strip_prefix('.').ok_or_else(refused)?.split('.') {
            let (name, elements) = part.split_at(part.find('[').unwrap_or(part.len()));
            if name.is_empty() || name.contains(']') {
                return Err(refused());
            }
            steps.push(Step::Field(name.to_owned()));
            for element in elements.split_inclusive(']') {
                let digits = element.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let index = digits.and_then(|digits| digits.parse().ok()).ok_or_else(refused)?;
                steps.push(Step::Element(index));
            }
        }
        Ok(KeyPath(steps))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Element(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl KeyPath {
    /// The key that stands at this path of `line`: the text of a string, a number or boolean as
    /// it is written.
    pub(crate) fn key_of(&self, line: &[u8]) -> Result<Vec<u8>, KeyPathError> {
        let mut raw: &RawValue = serde_json::from_slice(line)
            .map_err(|error| KeyPathError(format!("not JSON: {}", json_fault::text(&error))))?;
        for step in &self.0 {
            raw = child(raw, step).ok_or_else(|| {
                KeyPathError(format!("there is no `{self}` to take the key from"))
            })?;
        }
        match serde_json::from_str(raw.get()) {
            Ok(Value::String(text)) => Ok(text.into_bytes()),
            Ok(Value::Number(_) | Value::Bool(_)) => Ok(raw.get().as_bytes().to_vec()),
            Ok(Value::Null | Value::Array(_) | Value::Object(_)) | Err(_) => Err(KeyPathError(
                format!("`{self}` is not a string, a number or a boolean, so it can't be a key"),
            )),
        }
    }
}

fn child<'a>(raw: &'a RawValue, step: &Step) -> Option<&'a RawValue> {
    match step {
        Step::Field(name) => {
            let mut fields: std::collections::BTreeMap<String, &'a RawValue> =
                serde_json::from_str(raw.get()).ok()?;
            fields.remove(name)
        }
        Step::Element(index) => {
            let elements: Vec<&'a RawValue> = serde_json::from_str(raw.get()).ok()?;
            elements.get(*index).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, line: &str) -> Result<String, String> {
        let path: KeyPath = path.parse().map_err(|error: KeyPathError| error.to_string())?;
        let key = path.key_of(line.as_bytes()).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(key).unwrap())
    }

    #[test]
    fn a_key_is_found_at_any_depth() {
        assert_eq!(key(".subject", r#"{"subject":"N14228"}"#), Ok("N14228".to_owned()));
        assert_eq!(key(".a.b[1].c", r#"{"a":{"b":[0,{"c":"x\n"}]}}"#), Ok("x\n".to_owned()));
    }

    #[test]
    fn numbers_and_booleans_are_keys_as_they_are_written() {
        assert_eq!(key(".n", r#"{"n":1.50}"#), Ok("1.50".to_owned()));
        assert_eq!(key(".b", r#"{"b":true}"#), Ok("true".to_owned()));
    }

    #[test]
    fn a_line_without_the_path_is_an_error_that_names_it() {
        let missing = "there is no `.a[2]` to take the key from".to_owned();
        assert_eq!(key(".a[2]", r#"{"a":[1]}"#), Err(missing.clone()));
        assert_eq!(key(".a[2]", r#"{"b":1}"#), Err(missing));
        assert!(key(".a", r#"{"a":null}"#).unwrap_err().contains("can't be a key"));
        assert!(key(".a", "plain").unwrap_err().starts_with("not JSON"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["", "a", ".", "..a", ".a.", ".a[", ".a[]", ".a[x]", ".a]", ".a[0]b"] {
            assert!(path.parse::<KeyPath>().is_err(), "{path}");
        }
        assert_eq!(".a.b[0]".parse::<KeyPath>().unwrap().to_string(), ".a.b[0]");
    }
}
