//! Where in a partition to begin or to end: `earliest`, `latest`, `17`, `-5`, `@TIME`.
//!
//! One grammar for `read --from`, `read --to` and `group seek --to`. Parsing is pure: the present
//! moment is an argument, so that `@-1h` can be tested. What a position means in a partition is
//! asked of the cluster later.

use std::fmt;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// What the help says about a position.
pub(crate) const GRAMMAR: &str = "earliest, latest, an offset (17), so many before the end (-5), \
    @TIME (entry time) or event@TIME (the record's own time); TIME is RFC 3339, a date, \
    milliseconds since 1970, or relative (-1h)";

/// Numbers below this are too short for milliseconds since 1970 and more likely a year.
const EPOCH_MS_MIN: i64 = 10_000_000_000;

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The log start offset.
    Earliest,
    /// The end of what may be read when it is asked.
    Latest,
    /// This offset.
    Offset(u64),
    /// So many records before the end.
    BeforeEnd(u64),
    /// The first record whose entry the leader stamped at or after this time.
    EntryTime(Timestamp),
    /// The first record whose own timestamp is at or after this time.
    EventTime(Timestamp),
}

/// Why a text is not a position; says what would be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PositionError(String);

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PositionError {}

impl Position {
    /// Reads a position. `now` is what relative times count from.
    pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Position, PositionError> {
        match text {
            "earliest" => return Ok(Position::Earliest),
            "latest" => return Ok(Position::Latest),
            _ => {}
        }
        if let Some(time) = text.strip_prefix("event@") {
            return parse_time(time, now).map(Position::EventTime);
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time, now).map(Position::EntryTime);
        }
        if let Some(count) = text.strip_prefix('-')
            && is_number(count)
        {
            return parse_number(count).map(Position::BeforeEnd);
        }
        if is_number(text) {
            return parse_number(text).map(Position::Offset);
        }
        Err(PositionError(format!("`{text}` is not a position; want {GRAMMAR}")))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Earliest => f.write_str("earliest"),
            Position::Latest => f.write_str("latest"),
            Position::Offset(offset) => write!(f, "{offset}"),
            Position::BeforeEnd(count) => write!(f, "-{count}"),
            Position::EntryTime(time) => write!(f, "@{time}"),
            Position::EventTime(time) => write!(f, "event@{time}"),
        }
    }
}

/// For clap: a position relative to the moment the command line is read.
pub(crate) fn parse_now(text: &str) -> Result<Position, PositionError> {
    Position::parse(text, Timestamp::now())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_number(text: &str) -> Result<u64, PositionError> {
    text.parse().map_err(|_| PositionError(format!("`{text}` is larger than any offset")))
}

/// Times without a zone are UTC, so that a script means the same on every machine.
fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, PositionError> {
    let refused = |why: String| PositionError(format!("`{text}` is not a time: {why}"));
    if is_number(text) {
        let ms: i64 = text.parse().map_err(|_| refused("too large".to_owned()))?;
        if ms < EPOCH_MS_MIN {
            let why = "milliseconds since 1970 have at least 11 digits, a date is 2013-01-05";
            return Err(refused(why.to_owned()));
        }
        return Timestamp::from_millisecond(ms).map_err(|error| refused(error.to_string()));
    }
    if text == "now" {
        return Ok(now);
    }
    if text.starts_with('-') {
        let ago: SignedDuration = text.parse().map_err(|_| {
            refused("a relative time is written -90s, -5m, -1h30m or -2h".to_owned())
        })?;
        return now.checked_add(ago).map_err(|error| refused(error.to_string()));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(date_time) = text.parse::<civil::DateTime>() {
        let zoned = date_time.to_zoned(TimeZone::UTC);
        return zoned.map(|z| z.timestamp()).map_err(|error| refused(error.to_string()));
    }
    Err(refused("want 2013-01-05T10:00:00Z, 2013-01-05, now, -1h or milliseconds".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Position, String> {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        Position::parse(text, now).map_err(|error| error.to_string())
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn words_offsets_and_counts_from_the_end_are_positions() {
        assert_eq!(parse("earliest"), Ok(Position::Earliest));
        assert_eq!(parse("latest"), Ok(Position::Latest));
        assert_eq!(parse("0"), Ok(Position::Offset(0)));
        assert_eq!(parse("17"), Ok(Position::Offset(17)));
        assert_eq!(parse("-5"), Ok(Position::BeforeEnd(5)));
    }

    #[test]
    fn a_time_is_rfc_3339_a_date_milliseconds_or_relative() {
        let at = |text| Ok(Position::EntryTime(time(text)));
        assert_eq!(parse("@2013-01-05T10:00:00Z"), at("2013-01-05T10:00:00Z"));
        assert_eq!(parse("@2013-01-05T10:00:00+02:00"), at("2013-01-05T08:00:00Z"));
        assert_eq!(parse("@2013-01-05"), at("2013-01-05T00:00:00Z"));
        assert_eq!(parse("@2013-01-05T10:00"), at("2013-01-05T10:00:00Z"));
        assert_eq!(parse("@1357380000000"), at("2013-01-05T10:00:00Z"));
        assert_eq!(parse("@-1h"), at("2026-11-21T11:00:00Z"));
        assert_eq!(parse("@-1h30m"), at("2026-11-21T10:30:00Z"));
        assert_eq!(parse("@now"), at("2026-11-21T12:00:00Z"));
    }

    #[test]
    fn event_time_is_told_apart_from_entry_time() {
        let event = Position::EventTime(time("2013-01-05T00:00:00Z"));
        assert_eq!(parse("event@2013-01-05"), Ok(event));
    }

    #[test]
    fn a_year_alone_is_not_taken_for_milliseconds() {
        let error = parse("@2013").unwrap_err();
        assert!(error.contains("at least 11 digits"), "{error}");
    }

    #[test]
    fn what_is_no_position_is_refused_with_the_grammar() {
        for text in ["", "-", "--5", "+5", "5x", "newest", "18446744073709551616", "@", "@soon"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("newest").unwrap_err().contains("earliest, latest"));
    }

    #[test]
    fn a_position_prints_as_it_is_written() {
        for text in ["earliest", "latest", "17", "-5", "@2013-01-05T10:00:00Z"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }
}
