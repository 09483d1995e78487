//! Readers of single values on the command line: addresses, settings, sizes, names.

use std::time::Duration;

use jiff::SignedDuration;

/// `NAME=VALUE` of a topic's settings. An empty value stands for the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Setting { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("want NAME=VALUE, for example retention.ms=86400000".to_owned()),
        }
    }
}

/// `HOST:PORT`. The host is not looked up here.
pub(super) fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.to_owned()),
        _ => Err("want HOST:PORT, for example 127.0.0.1:9400".to_owned()),
    }
}

/// `1, 3 or 5`, the counts of replicas that a topic may have.
pub(super) fn replication_factor(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("want 1, 3 or 5".to_owned()),
    }
}

/// Bytes, with a binary unit if wanted: `900`, `64KiB`, `1MiB`.
pub(super) fn bytes(text: &str) -> Result<u32, String> {
    let refused = || "want bytes between 1 and 1 GiB, for example 900, 64KiB or 1MiB".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_bytes: u32 = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        _ => return Err(refused()),
    };
    let number: u32 = number.parse().map_err(|_| refused())?;
    number.checked_mul(unit_bytes).filter(|bytes| (1..=1 << 30).contains(bytes)).ok_or_else(refused)
}

/// A time of a millisecond or more: `500ms`, `5s`, `2m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
    let time = time.filter(|it| *it >= Duration::from_millis(1));
    time.ok_or_else(|| "want a time, for example 500ms, 5s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        for text in ["", "5", "0s", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        assert_eq!(address("127.0.0.1:9400").as_deref(), Ok("127.0.0.1:9400"));
        assert_eq!(address("[::1]:9400").as_deref(), Ok("[::1]:9400"));
        for text in ["", "localhost", ":9400", "a:0", "a:65536", "a:"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!(bytes("900"), Ok(900));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1M"), Ok(1_048_576));
        for text in ["", "0", "KiB", "1GB", "5000MiB", "-1", "1.5M"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_setting_may_have_an_empty_value_but_no_empty_name() {
        let setting = |text: &str| text.parse::<Setting>();
        assert_eq!(setting("a="), Ok(Setting { name: "a".to_owned(), value: String::new() }));
        assert_eq!(setting("a=b=c").map(|s| s.value), Ok("b=c".to_owned()));
        assert!(setting("=b").is_err());
        assert!(setting("a").is_err());
    }
}
