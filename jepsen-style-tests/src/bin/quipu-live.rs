//! `quipu-live`: fault tests on real `quipud` processes. See `live`.

use std::process::ExitCode;

use clap::Parser as _;
use jepsen_style_tests::live::{self, LiveArgs};

fn main() -> ExitCode {
    live::main(&LiveArgs::parse())
}
