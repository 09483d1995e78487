//! `quipu read`.

use crate::output::template::{self, Template};
use crate::position::{self, Position};

/// Read records, each partition in its order
///
/// Without --follow it ends where the partitions ended when it began. Partitions are read at the
/// same time, so records of different partitions mix; those of one partition keep their order.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// The topic
    pub(crate) topic: String,
    /// Only this partition; may be repeated
    #[arg(short, long = "partition", value_name = "P")]
    pub(crate) partitions: Vec<u32>,
    /// Where to begin
    #[arg(long, value_name = "POSITION", default_value = "earliest", allow_hyphen_values = true,
        value_parser = position::parse_now, long_help = format!(
            "Where to begin: {}", position::GRAMMAR))]
    pub(crate) from: Position,
    /// Where to end: `end`, or a position; the record there is not read
    #[arg(long, value_name = "POSITION", default_value = "end", allow_hyphen_values = true,
        value_parser = parse_to)]
    pub(crate) to: Position,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Go on as records are appended, until interrupted
    #[arg(long, conflicts_with = "to")]
    pub(crate) follow: bool,
    /// What a read must have seen [default: linearizable, with --follow committed]
    #[arg(
        long,
        value_name = "LEVEL",
        long_help = "What a read must have seen: `linearizable` all \
        that was acknowledged before it began, `committed` what the asked replica has applied, \
        `bounded:MS` the same but refused where the replica may lag more [default: linearizable, \
        with --follow committed]"
    )]
    pub(crate) level: Option<LevelArg>,
    /// Read from this node's replicas instead of the leaders'
    #[arg(long, value_name = "N")]
    pub(crate) node: Option<u64>,
    /// How to print a record [default: %t/%p:%o %k %s\n]
    #[arg(short, long, value_name = "FORMAT", long_help = format!(
        "How to print a record: {} [default: {DEFAULT_FORMAT}]", template::GRAMMAR))]
    pub(crate) format: Option<Template>,
}

/// How records are printed where nothing else is asked for.
pub(crate) const DEFAULT_FORMAT: &str = r"%t/%p:%o %k %s\n";

/// What a read must have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LevelArg {
    Linearizable,
    Committed,
    /// The replica may lag so many milliseconds.
    Bounded(u32),
}

impl std::str::FromStr for LevelArg {
    type Err = String;

    fn from_str(text: &str) -> Result<LevelArg, String> {
        let bound = text.strip_prefix("bounded:").and_then(|ms| ms.parse().ok());
        match (text, bound) {
            ("linearizable", _) => Ok(LevelArg::Linearizable),
            ("committed", _) => Ok(LevelArg::Committed),
            (_, Some(ms)) => Ok(LevelArg::Bounded(ms)),
            _ => Err("want linearizable, committed or bounded:MS".to_owned()),
        }
    }
}

fn parse_to(text: &str) -> Result<Position, position::PositionError> {
    if text == "end" { Ok(Position::Latest) } else { position::parse_now(text) }
}
