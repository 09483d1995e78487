//! `quipu consume`.

use std::time::Duration;

use quipu_client::ResetPolicy;

use super::values;
use crate::output::template::{self, Template};
use crate::position::{self, Position};

/// Consume topics together with the other members of a group
///
/// Start it in several shells: they share the partitions, each of which is with one of them at a
/// time. A record is committed once it is printed, so none is left out; what a killed consumer
/// printed and had not committed yet is printed again by the next owner. Ctrl-C commits and leaves:
/// the others have its partitions at once.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsumeArgs {
    /// The topics
    #[arg(required = true)]
    pub(crate) topics: Vec<String>,
    /// The group
    #[arg(short, long, value_name = "G")]
    pub(crate) group: String,
    /// Leave after so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Leave when no record has come for so long
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) idle_exit: Option<Duration>,
    /// Where to begin in a partition of which the group has committed nothing: earliest, latest,
    /// @TIME, event@TIME, or none (an error)
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = parse_from)]
    pub(crate) from: ResetPolicy,
    /// A name of this consumer's own that is kept over restarts: a restart within the session
    /// moves no partition
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Silence after which the others get its partitions
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub(crate) session: Duration,
    /// Say nothing on stderr of partitions that come and go
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How to print a record [default: %t/%p:%o %k %s\n]
    #[arg(short, long, value_name = "FORMAT", long_help = format!(
        "How to print a record: {} [default: {}]", template::GRAMMAR, super::DEFAULT_FORMAT))]
    pub(crate) format: Option<Template>,
}

fn parse_from(text: &str) -> Result<ResetPolicy, String> {
    if text == "none" {
        return Ok(ResetPolicy::None);
    }
    match position::parse_now(text).map_err(|error| error.to_string())? {
        Position::Earliest => Ok(ResetPolicy::Earliest),
        Position::Latest => Ok(ResetPolicy::Latest),
        Position::EntryTime(time) => {
            Ok(ResetPolicy::EntryTime(u64::try_from(time.as_millisecond()).unwrap_or(0)))
        }
        Position::EventTime(time) => Ok(ResetPolicy::EventTime(time.as_millisecond())),
        Position::Offset(_) | Position::BeforeEnd(_) => {
            Err("want earliest, latest, @TIME, event@TIME or none; \
                 `quipu group seek` moves a group to an offset"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_begins_at_a_place_that_all_partitions_have() {
        assert_eq!(parse_from("earliest"), Ok(ResetPolicy::Earliest));
        assert_eq!(parse_from("none"), Ok(ResetPolicy::None));
        assert_eq!(
            parse_from("@2013-01-05T10:00:00Z"),
            Ok(ResetPolicy::EntryTime(1_357_380_000_000))
        );
        assert!(parse_from("17").unwrap_err().contains("quipu group seek"));
        assert!(parse_from("-5").is_err() && parse_from("soon").is_err());
    }
}
