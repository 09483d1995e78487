//! The settings of a topic: names, defaults, units, bounds.
//!
//! People set them as text by name; everything else uses [`TopicConfig`]. The stored form is the
//! full set of values, so that a change of a default never changes an existing topic.

use std::fmt;

use crate::codec::{DecodeError, Reader, Writer};
use crate::partition::LadderLimits;
use crate::partition::retention::Retention;

const NO_LIMIT: i64 = -1;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const MIB: i64 = 1024 * 1024;

/// The settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `retention.ms`, `retention.bytes`: how long records are kept. Default: for ever.
    pub retention: Retention,
    /// `max.batch.bytes`: the largest batch that is taken in. Default: 1,048,588, as in Kafka.
    pub max_batch_bytes: u32,
    /// `checkpoint.bytes`, `checkpoint.ms`: when a rung is due. Fixed when the topic is made,
    /// because every replica must use the same from the first entry on.
    pub ladder: LadderLimits,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            retention: Retention::default(),
            max_batch_bytes: 1_048_588,
            ladder: LadderLimits::default(),
        }
    }
}

/// A setting, apart from its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// `retention.ms`: records whose entry is older may go. -1: no limit.
    RetentionMs,
    /// `retention.bytes`: the oldest records may go while so much stays. -1: no limit.
    RetentionBytes,
    /// `max.batch.bytes`.
    MaxBatchBytes,
    /// `checkpoint.bytes`.
    CheckpointBytes,
    /// `checkpoint.ms`.
    CheckpointMs,
}

/// A new value for one setting; made by [`parse_changes`], which checks the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigChange {
    setting: Setting,
    value: i64,
}

/// Why settings were refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("unknown setting {name:?}; known are {}", known_names())]
    Unknown {
        /// As given.
        name: String,
    },
    /// The text is no value of this setting.
    #[error("{setting} can't be {value:?}; it is {}", setting.expected())]
    Value {
        /// Which.
        setting: Setting,
        /// As given.
        value: String,
    },
    /// The setting can be given only when the topic is made.
    #[error("{setting} is fixed when the topic is made")]
    Fixed {
        /// Which.
        setting: Setting,
    },
}

impl Setting {
    /// All of them, in the order they are shown.
    pub const ALL: [Setting; 5] = [
        Setting::RetentionMs,
        Setting::RetentionBytes,
        Setting::MaxBatchBytes,
        Setting::CheckpointBytes,
        Setting::CheckpointMs,
    ];

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Setting::RetentionMs => "retention.ms",
            Setting::RetentionBytes => "retention.bytes",
            Setting::MaxBatchBytes => "max.batch.bytes",
            Setting::CheckpointBytes => "checkpoint.bytes",
            Setting::CheckpointMs => "checkpoint.ms",
        }
    }

    /// The setting of this name.
    pub fn from_name(name: &str) -> Result<Setting, ConfigError> {
        let found = Setting::ALL.into_iter().find(|setting| setting.name() == name);
        found.ok_or_else(|| ConfigError::Unknown { name: name.to_owned() })
    }

    /// Whether only the topic's creation can set it.
    #[must_use]
    pub fn is_fixed(self) -> bool {
        matches!(self, Setting::CheckpointBytes | Setting::CheckpointMs)
    }

    /// Its number in stored commands.
    fn number(self) -> u16 {
        match self {
            Setting::RetentionMs => 1,
            Setting::RetentionBytes => 2,
            Setting::MaxBatchBytes => 3,
            Setting::CheckpointBytes => 4,
            Setting::CheckpointMs => 5,
        }
    }

    /// Smallest and greatest value; [`NO_LIMIT`] is the smallest where it is allowed.
    fn bounds(self) -> (i64, i64) {
        match self {
            Setting::RetentionMs | Setting::RetentionBytes => (NO_LIMIT, i64::MAX),
            Setting::MaxBatchBytes => (128, BATCH_BYTES_MAX),
            Setting::CheckpointBytes => (1, 1024 * 1024 * MIB),
            Setting::CheckpointMs => (1, 365 * DAY_MS),
        }
    }

    fn expected(self) -> String {
        let (least, most) = self.bounds();
        let units = if self.is_time() { "ms, s, m, h or d" } else { "KiB, MiB or GiB" };
        let range = match (least, most) {
            (NO_LIMIT, _) => "a whole number from 0, or -1 for no limit".to_owned(),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        format!("{range}, with or without a unit ({units})")
    }

    fn is_time(self) -> bool {
        matches!(self, Setting::RetentionMs | Setting::CheckpointMs)
    }

    fn parse(self, text: &str) -> Option<i64> {
        if text == "-1" {
            return (self.bounds().0 == NO_LIMIT).then_some(NO_LIMIT);
        }
        let unit_start = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_start);
        let factor = match (unit, self.is_time()) {
            ("", _) | ("ms", true) => 1,
            ("s", true) => 1_000,
            ("m", true) => 60 * 1_000,
            ("h", true) => 60 * 60 * 1_000,
            ("d", true) => DAY_MS,
            ("KiB", false) => 1024,
            ("MiB", false) => MIB,
            ("GiB", false) => 1024 * MIB,
            _ => return None,
        };
        let value = digits.parse::<i64>().ok()?.checked_mul(factor)?;
        self.allows(value).then_some(value)
    }

    fn allows(self, value: i64) -> bool {
        let (least, most) = self.bounds();
        (least..=most).contains(&value)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The largest batch at all, as a setting's value.
#[expect(clippy::cast_possible_wrap, reason = "8 MiB; try_from is not const")]
const BATCH_BYTES_MAX: i64 = quipu_batch::BATCH_BYTES_MAX as i64;

/// Reads changes of settings; an empty text sets the default again.
pub fn parse_changes<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<ConfigChange>, ConfigError> {
    let mut changes = Vec::new();
    for (name, text) in pairs {
        let setting = Setting::from_name(name)?;
        let value = match text {
            "" => TopicConfig::default().value(setting),
            text => setting
                .parse(text)
                .ok_or_else(|| ConfigError::Value { setting, value: text.to_owned() })?,
        };
        changes.push(ConfigChange { setting, value });
    }
    Ok(changes)
}

impl TopicConfig {
    /// The defaults, changed by settings that people gave for a new topic.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<TopicConfig, ConfigError> {
        let mut config = TopicConfig::default();
        for change in parse_changes(pairs)? {
            config.set(change);
        }
        Ok(config)
    }

    /// Every setting with its value, those at their default too.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let pair = |setting: Setting| (setting.name(), self.value(setting).to_string());
        Setting::ALL.into_iter().map(pair).collect()
    }

    /// Changes the settings of an existing topic: all of them, or none.
    pub fn alter(&mut self, changes: &[ConfigChange]) -> Result<(), ConfigError> {
        if let Some(change) = changes.iter().find(|change| change.setting.is_fixed()) {
            return Err(ConfigError::Fixed { setting: change.setting });
        }
        for change in changes {
            self.set(*change);
        }
        Ok(())
    }

    /// Appends all values.
    ///
    /// # Panics
    /// If a value is out of its bounds: no replica could read it again.
    pub fn write(&self, writer: &mut Writer) {
        for setting in Setting::ALL {
            let value = self.value(setting);
            assert!(setting.allows(value), "{setting} = {value}");
            writer.i64(value);
        }
    }

    /// Reads what [`TopicConfig::write`] wrote.
    pub fn read(reader: &mut Reader) -> Result<TopicConfig, DecodeError> {
        let mut config = TopicConfig::default();
        for setting in Setting::ALL {
            let value = reader.i64()?;
            if !setting.allows(value) {
                return Err(reader.invalid("a setting is out of its bounds"));
            }
            config.set(ConfigChange { setting, value });
        }
        Ok(config)
    }

    fn value(&self, setting: Setting) -> i64 {
        let optional = |limit: Option<u64>| limit.map_or(NO_LIMIT, signed);
        match setting {
            Setting::RetentionMs => optional(self.retention.ms),
            Setting::RetentionBytes => optional(self.retention.bytes),
            Setting::MaxBatchBytes => i64::from(self.max_batch_bytes),
            Setting::CheckpointBytes => signed(self.ladder.bytes),
            Setting::CheckpointMs => signed(self.ladder.ms),
        }
    }

    fn set(&mut self, change: ConfigChange) {
        let ConfigChange { setting, value } = change;
        assert!(setting.allows(value), "{setting} = {value}");
        let value = u64::try_from(value).ok();
        let in_bounds = "only retention can be without a limit; the bounds were checked";
        match setting {
            Setting::RetentionMs => self.retention.ms = value,
            Setting::RetentionBytes => self.retention.bytes = value,
            Setting::MaxBatchBytes => {
                let bytes = value.and_then(|bytes| u32::try_from(bytes).ok());
                self.max_batch_bytes = bytes.expect(in_bounds);
            }
            Setting::CheckpointBytes => self.ladder.bytes = value.expect(in_bounds),
            Setting::CheckpointMs => self.ladder.ms = value.expect(in_bounds),
        }
    }
}

impl ConfigChange {
    /// Appends 10 bytes.
    pub fn write(self, writer: &mut Writer) {
        writer.u16(self.setting.number());
        writer.i64(self.value);
    }

    /// Reads what [`ConfigChange::write`] wrote.
    pub fn read(reader: &mut Reader) -> Result<ConfigChange, DecodeError> {
        let number = reader.u16()?;
        let value = reader.i64()?;
        let setting = Setting::ALL.into_iter().find(|setting| setting.number() == number);
        let setting = setting.ok_or_else(|| reader.unknown_kind(number))?;
        if setting.allows(value) {
            Ok(ConfigChange { setting, value })
        } else {
            Err(reader.invalid("a setting is out of its bounds"))
        }
    }
}

/// The values of a config made by hand may lie beyond what can be stored; they count as the most.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn known_names() -> String {
    Setting::ALL.map(Setting::name).join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str, value: &str) -> Result<TopicConfig, ConfigError> {
        TopicConfig::from_pairs([(name, value)])
    }

    #[test]
    fn by_default_records_are_kept_for_ever() {
        let pairs: Vec<String> = TopicConfig::default()
            .pairs()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let expected = [
            "retention.ms=-1",
            "retention.bytes=-1",
            "max.batch.bytes=1048588",
            "checkpoint.bytes=67108864",
            "checkpoint.ms=600000",
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn values_may_have_units() {
        assert_eq!(parse("retention.ms", "7d").unwrap().retention.ms, Some(604_800_000));
        assert_eq!(parse("retention.ms", "90s").unwrap().retention.ms, Some(90_000));
        assert_eq!(parse("retention.bytes", "2GiB").unwrap().retention.bytes, Some(2 << 30));
        assert_eq!(parse("max.batch.bytes", "64KiB").unwrap().max_batch_bytes, 65_536);
        assert!(parse("retention.ms", "7KiB").is_err());
        assert!(parse("retention.bytes", "7d").is_err());
    }

    #[test]
    fn minus_one_is_no_limit_where_there_may_be_none() {
        assert_eq!(parse("retention.ms", "-1").unwrap().retention.ms, None);
        assert!(parse("checkpoint.ms", "-1").is_err());
        assert!(parse("retention.ms", "-2").is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = parse("retention.hours", "1").expect_err("no such setting").to_string();
        let text = "unknown setting \"retention.hours\"; known are retention.ms, \
                    retention.bytes, max.batch.bytes, checkpoint.bytes, checkpoint.ms";
        assert_eq!(error, text);
    }

    #[test]
    fn a_wrong_value_is_answered_with_what_is_right() {
        let error = parse("max.batch.bytes", "1GiB").expect_err("over the limit").to_string();
        let text = "max.batch.bytes can't be \"1GiB\"; it is a whole number from 128 to \
                    8388608, with or without a unit (KiB, MiB or GiB)";
        assert_eq!(error, text);
        for value in ["", "1", "99999999999999999999", "9223372036854775807d", "x", "ms", "1.5h"] {
            let parsed = parse("retention.ms", value);
            assert_eq!(parsed.is_ok(), matches!(value, "" | "1"), "{value:?}");
        }
    }

    #[test]
    fn an_empty_value_sets_the_default_again() {
        let mut config = parse("retention.ms", "1h").unwrap();
        let changes = parse_changes([("retention.ms", "")]).expect("a known setting");
        assert_eq!(config.alter(&changes), Ok(()));
        assert_eq!(config, TopicConfig::default());
    }

    #[test]
    fn checkpoint_settings_of_an_existing_topic_stay() {
        let mut config = TopicConfig::default();
        let changes = parse_changes([("retention.ms", "1h"), ("checkpoint.ms", "1s")]);
        let fixed = ConfigError::Fixed { setting: Setting::CheckpointMs };
        assert_eq!(config.alter(&changes.expect("known settings")), Err(fixed));
        assert_eq!(config, TopicConfig::default(), "all of them or none");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            ms in proptest::option::of(0..=i64::MAX as u64),
            bytes in proptest::option::of(0..=i64::MAX as u64),
            max_batch_bytes in 128..8_388_608_u32,
            ladder in (1..1_u64 << 40, 1..1_000_000_u64),
        ) {
            let config = TopicConfig {
                retention: Retention { ms, bytes },
                max_batch_bytes,
                ladder: LadderLimits { bytes: ladder.0, ms: ladder.1 },
            };
            let mut writer = Writer::default();
            config.write(&mut writer);
            let mut reader = Reader::new("config", writer.finish());
            prop_assert_eq!(TopicConfig::read(&mut reader), Ok(config.clone()));
            let pairs = config.pairs();
            let pairs = pairs.iter().map(|(name, value)| (*name, value.as_str()));
            prop_assert_eq!(TopicConfig::from_pairs(pairs), Ok(config));
        }
    }
}
