//! The table of all settings: their keys, what they mean, how a value is read and shown.
//!
//! One row makes the flag, the environment variable, the key of the file, the line of
//! `--print-config` and the row of docs/operating/configuration.md, so these can't drift apart. A
//! new setting is a field of [`NodeConfig`] and a row here.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use node_core::ids::RackName;
use toml::Value;

use crate::config::address::Address;
use crate::config::node_config::{LogFormat, NodeConfig};
use crate::limits;

/// One setting.
pub struct Setting {
    /// Its name in the file, and on the command line after `--`.
    pub key: &'static str,
    /// Stands for the value in `--help`.
    pub placeholder: &'static str,
    /// One sentence without a full stop.
    pub help: &'static str,
    /// Whether the value is used when nothing sets it, or something must.
    pub required: bool,
    /// Takes a value as it was written. The error says what would be accepted.
    pub(super) set: fn(&mut NodeConfig, &str) -> Result<(), String>,
    /// The value in effect, as TOML that `set` takes again.
    pub(super) show: fn(&NodeConfig) -> Value,
}

/// Before the name of every environment variable.
pub const ENVIRONMENT_PREFIX: &str = "QUIPUD_";

/// Every setting, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "node-id",
        placeholder: "N",
        help: "Label of this node in the cluster, 1 or more",
        required: true,
        set: |config, text| number(text, 1..=u64::MAX).map(|id| config.node_id = id),
        show: |config| integer(config.node_id),
    },
    Setting {
        key: "listen",
        placeholder: "IP:PORT",
        help: "Where gRPC is served, to clients and to the other nodes",
        required: false,
        set: |config, text| socket(text).map(|socket| config.listen = socket),
        show: |config| string(config.listen),
    },
    Setting {
        key: "advertise",
        placeholder: "HOST:PORT",
        help: "What clients and other nodes are told to connect to; unset: the value of listen",
        required: false,
        set: |config, text| parsed(text).map(|address| config.advertise = address),
        show: |config| string(&config.advertise),
    },
    Setting {
        key: "data-dir",
        placeholder: "DIR",
        help: "Directory that this node alone owns; made if it is missing",
        required: true,
        set: |config, text| directory(text).map(|directory| config.data_dir = directory),
        show: |config| string(config.data_dir.display()),
    },
    Setting {
        key: "join",
        placeholder: "HOST:PORT,…",
        help: "Nodes to ask for the cluster; may name this one",
        required: false,
        set: |config, text| addresses(text).map(|join| config.join = join),
        show: |config| Value::Array(config.join.iter().map(string).collect()),
    },
    Setting {
        key: "rack",
        placeholder: "NAME",
        help: "Rack, room or zone that may fail as a whole; replicas are kept in different ones",
        required: false,
        set: |config, text| rack(text).map(|rack| config.rack = rack),
        show: |config| config.rack.as_ref().map_or_else(|| string("none"), string),
    },
    Setting {
        key: "http-listen",
        placeholder: "IP:PORT",
        help: "Where /metrics, /healthz and /readyz are served, or `none`",
        required: false,
        set: |config, text| optional_socket(text).map(|http| config.http_listen = http),
        show: |config| config.http_listen.map_or_else(|| string("none"), string),
    },
    Setting {
        key: "log-format",
        placeholder: "FORMAT",
        help: "Form of the log on standard error: `text` or `json`",
        required: false,
        set: |config, text| log_format(text).map(|format| config.log.format = format),
        show: |config| {
            string(match config.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })
        },
    },
    Setting {
        key: "log-level",
        placeholder: "FILTER",
        help: "What is logged: `info`, or by module as in `info,node=debug`",
        required: false,
        set: |config, text| log_level(text).map(|level| config.log.level = level),
        show: |config| string(&config.log.level),
    },
    Setting {
        key: "max-append-in-flight-bytes",
        placeholder: "BYTES",
        help: "Bytes of appends that may wait for their answer; beyond, clients are held back",
        required: false,
        set: |config, text| {
            bytes(text, limits::APPEND_IN_FLIGHT_BYTES_MIN..=limits::SETTING_BYTES_MAX)
                .map(|bytes| config.append_in_flight_bytes_max = bytes)
        },
        show: |config| integer(config.append_in_flight_bytes_max),
    },
    Setting {
        key: "disk-reserve-bytes",
        placeholder: "BYTES",
        help: "Free disk space below which appends are refused",
        required: false,
        set: |config, text| {
            bytes(text, limits::DISK_RESERVE_BYTES_MIN..=limits::SETTING_BYTES_MAX)
                .map(|bytes| config.disk_reserve_bytes = bytes)
        },
        show: |config| integer(config.disk_reserve_bytes),
    },
    Setting {
        key: "storage-cache-bytes",
        placeholder: "BYTES",
        help: "Memory for blocks read from disk",
        required: false,
        set: |config, text| {
            bytes(text, limits::STORAGE_BUFFER_BYTES_MIN..=limits::SETTING_BYTES_MAX)
                .map(|bytes| config.storage.cache_bytes = bytes)
        },
        show: |config| integer(config.storage.cache_bytes),
    },
    Setting {
        key: "storage-write-buffer-bytes",
        placeholder: "BYTES",
        help: "Memory of one write buffer of the storage engine; a full one becomes a file",
        required: false,
        set: |config, text| {
            bytes(text, limits::STORAGE_BUFFER_BYTES_MIN..=limits::SETTING_BYTES_MAX)
                .map(|bytes| config.storage.write_buffer_bytes = bytes)
        },
        show: |config| integer(config.storage.write_buffer_bytes),
    },
    Setting {
        key: "election-timeout-ms",
        placeholder: "MS",
        help: "A follower that hears nothing for this long may call an election",
        required: false,
        set: |config, text| {
            milliseconds(text, limits::ELECTION_TIMEOUT_MS)
                .map(|timeout| config.election_timeout = timeout)
        },
        show: |config| whole_milliseconds(config.election_timeout),
    },
    Setting {
        key: "heartbeat-ms",
        placeholder: "MS",
        help: "Pause between two signs of life from a node to each other node",
        required: false,
        set: |config, text| {
            milliseconds(text, limits::HEARTBEAT_MS).map(|pause| config.heartbeat = pause)
        },
        show: |config| whole_milliseconds(config.heartbeat),
    },
];

impl Setting {
    /// The environment variable that sets it.
    pub fn environment_variable(&self) -> String {
        let name = self.key.to_ascii_uppercase().replace('-', "_");
        format!("{ENVIRONMENT_PREFIX}{name}")
    }

    /// The value that is used when nothing sets it, as TOML.
    pub fn default_value(&self) -> Value {
        (self.show)(&NodeConfig::default())
    }
}

/// Finds a setting by its key.
pub(super) fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let wanted = || {
        if *range.end() == u64::MAX {
            format!("write a whole number, {} or more", range.start())
        } else {
            format!("write a whole number from {} to {}", range.start(), range.end())
        }
    };
    let number: u64 = text.parse().map_err(|_| wanted())?;
    if range.contains(&number) { Ok(number) } else { Err(wanted()) }
}

/// Reads "67108864" or "64 MiB".
fn bytes(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim_end(), *unit)))
        .unwrap_or((text, 1));
    let count: Option<u64> = digits.parse().ok();
    count
        .and_then(|count| count.checked_mul(unit))
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| {
            format!(
                "write bytes, or a whole number of KiB, MiB or GiB as in `64MiB`; from {} to {}",
                range.start(),
                range.end()
            )
        })
}

fn milliseconds(text: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    number(text, range).map(Duration::from_millis)
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port, such as 127.0.0.1:9400, 0.0.0.0:9400 or [::1]:9400"
            .to_owned()
    })
}

fn optional_socket(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" { Ok(None) } else { socket(text).map(Some) }
}

fn rack(text: &str) -> Result<Option<RackName>, String> {
    if text == "none" { Ok(None) } else { parsed(text).map(Some) }
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn addresses(text: &str) -> Result<Vec<Address>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let addresses: Vec<Address> =
        text.split(',').map(|one| parsed(one.trim())).collect::<Result<_, _>>()?;
    if addresses.len() > limits::JOIN_ADDRESSES_MAX {
        return Err(format!("name at most {} nodes", limits::JOIN_ADDRESSES_MAX));
    }
    Ok(addresses)
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("write the path of a directory".to_owned());
    }
    Ok(Path::new(text).to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write `text` or `json`".to_owned()),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    const WANTED: &str = "write error, warn, info, debug, trace or off, or a list such as \
                          `info,node=debug`";
    if text.trim().is_empty() {
        return Err(WANTED.to_owned());
    }
    match crate::telemetry::filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; {WANTED}")),
    }
}

fn string(value: impl Display) -> Value {
    Value::String(value.to_string())
}

/// TOML's integers are signed. What does not fit is shown as a string, which is read as well.
fn integer(value: u64) -> Value {
    i64::try_from(value).map_or_else(|_| string(value), Value::Integer)
}

fn whole_milliseconds(duration: Duration) -> Value {
    integer(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        }
    }

    #[test]
    fn what_a_setting_shows_it_takes_again() {
        let changed = NodeConfig {
            node_id: u64::MAX,
            join: vec!["a:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            http_listen: Some("127.0.0.1:0".parse().unwrap()),
            ..NodeConfig::default()
        };
        for config in [NodeConfig::default(), changed] {
            let mut read = NodeConfig::default();
            for setting in SETTINGS {
                (setting.set)(&mut read, &text_of(&(setting.show)(&config))).expect(setting.key);
            }
            assert_eq!(read, config);
        }
    }

    #[test]
    fn sizes_are_read_in_bytes_and_in_binary_units() {
        let any = 0..=u64::MAX;
        assert_eq!(bytes("67108864", any.clone()), Ok(64 << 20));
        assert_eq!(bytes("64MiB", any.clone()), Ok(64 << 20));
        assert_eq!(bytes("1 GiB", any.clone()), Ok(1 << 30));
        for bad in ["", "MiB", "-1", "1.5MiB", "64MB", "18446744073709551615KiB"] {
            assert!(bytes(bad, any.clone()).is_err(), "{bad}");
        }
        assert!(bytes("9", 10..=20).is_err());
    }

    #[test]
    fn a_log_level_that_cannot_be_parsed_is_refused() {
        for bad in ["", " ", "info,node=loud", "=debug="] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
        assert_eq!(log_level("info,node=debug"), Ok("info,node=debug".to_owned()));
    }

    #[test]
    fn keys_are_unique_and_make_environment_variables() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.key != setting.key));
            assert!(setting.key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
        let heartbeat = setting("heartbeat-ms").unwrap();
        assert_eq!(heartbeat.environment_variable(), "QUIPUD_HEARTBEAT_MS");
    }
}
