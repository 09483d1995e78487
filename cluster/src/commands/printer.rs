//! Records on stdout, in the form that was asked for, until there are enough.

use std::io::Write as _;

use anyhow::Context as _;
use quipu_client::ConsumedRecord;

use crate::args::{DEFAULT_FORMAT, OutputForm};
use crate::failure::usage;
use crate::output::PipeClosed;
use crate::output::record::RecordFormat;
use crate::output::template::Template;

/// What is kept back before it is written to stdout.
const OUT_BYTES: usize = 256 << 10;

/// The form of records. A format of the caller's and a form by name exclude each other.
pub(super) fn format(
    form: OutputForm,
    template: Option<&Template>,
) -> anyhow::Result<RecordFormat> {
    match (form, template) {
        (OutputForm::Table, Some(template)) => Ok(RecordFormat::Template(template.clone())),
        (OutputForm::Table, None) => {
            let default = DEFAULT_FORMAT.parse().context("the default format")?;
            Ok(RecordFormat::Template(default))
        }
        (OutputForm::Json, None) => Ok(RecordFormat::Json),
        (OutputForm::Cloudevents, None) => Ok(RecordFormat::CloudEvents),
        (OutputForm::Json | OutputForm::Cloudevents, Some(_)) => {
            usage("-f and -o both say how to print a record; give one of them")
        }
    }
}

/// Prints records until there are enough.
pub(super) struct Printer {
    format: RecordFormat,
    /// How many may still be printed; `None`: all.
    left: Option<u64>,
    out: Vec<u8>,
}

impl Printer {
    /// Prints `count` records; without it, all.
    pub(super) fn new(format: RecordFormat, count: Option<u64>) -> Printer {
        Printer { format, left: count, out: Vec::new() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    pub(super) fn print(&mut self, records: &[ConsumedRecord]) -> anyhow::Result<()> {
        for record in records {
            if self.is_done() {
                return Ok(());
            }
            self.format.print(record, &mut self.out).with_context(|| {
                format!("{}/{}:{}", record.topic, record.partition, record.offset)
            })?;
            self.left = self.left.map(|left| left - 1);
            if self.out.len() >= OUT_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&self.out).and_then(|()| stdout.flush());
        self.out.clear();
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(PipeClosed.into()),
            Err(error) => Err(error).context("can't write to stdout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn format_of(line: &str) -> anyhow::Result<RecordFormat> {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Read(args) = cli.command else { panic!("not read") };
        format(cli.global.output, args.format.as_ref())
    }

    #[test]
    fn a_format_and_a_form_exclude_each_other() {
        assert_eq!(format_of("quipu read t -o json").unwrap(), RecordFormat::Json);
        assert_eq!(format_of("quipu read t -o cloudevents").unwrap(), RecordFormat::CloudEvents);
        let both = format_of("quipu read t -o json -f %s").unwrap_err();
        assert_eq!(crate::failure::exit_code(&both), 2);
    }

    #[test]
    fn the_printer_stops_after_the_wanted_count() {
        let record = |offset| ConsumedRecord {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            leader_epoch: 1,
        };
        let format = format_of("quipu read t -f %o,").unwrap();
        let mut printer = Printer::new(format, Some(2));
        printer.print(&[record(0), record(1), record(2)]).unwrap();
        assert!(printer.is_done());
        assert_eq!(printer.out, b"0,1,");
    }
}
