//! docs/errors.md has one row for each code of the API, with the gRPC status that is really sent.

use std::collections::BTreeSet;

use quipu_proto::status_of_error;
use quipu_proto::v1::{Error, ErrorCode};
use tonic::Code;

struct Row {
    name: String,
    grpc: String,
    outcome: String,
    retry: String,
    advice: String,
}

/// The rows "| `CODE` | gRPC status | outcome | retry | what happened, and what to do |".
fn rows() -> Vec<Row> {
    let page = include_str!("../../docs/errors.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_end_matches(" |").split(" | ").collect();
        let [name, grpc, outcome, retry, advice] = cells[..] else {
            panic!("not five cells: {line}");
        };
        Row {
            name: name.trim_end_matches('`').to_owned(),
            grpc: grpc.to_owned(),
            outcome: outcome.to_owned(),
            retry: retry.to_owned(),
            advice: advice.to_owned(),
        }
    })
    .collect()
}

/// The names in the definition; of the generated code one can't ask for all.
fn names_of_the_api() -> BTreeSet<String> {
    let definition = include_str!("../../proto/quipu/v1/errors.proto");
    let names = definition.lines().filter_map(|line| line.trim().split_once(" = "));
    names
        .filter(|(name, _)| ErrorCode::from_str_name(name).is_some())
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "ERROR_CODE_UNSPECIFIED")
        .collect()
}

#[test]
fn every_code_has_one_row() {
    let rows = rows();
    let named: BTreeSet<String> = rows.iter().map(|row| row.name.clone()).collect();
    assert_eq!(named, names_of_the_api());
    assert_eq!(named.len(), rows.len(), "a code stands twice");
}

#[test]
fn the_grpc_status_of_a_row_is_the_one_that_is_sent() {
    for row in rows() {
        let code = ErrorCode::from_str_name(&row.name).expect("see every_code_has_one_row");
        let status = status_of_error(&Error { code: code.into(), ..Error::default() });
        assert_eq!(row.grpc, grpc_name(status.code()), "{}", row.name);
    }
}

#[test]
fn a_row_says_the_outcome_whether_to_retry_and_what_to_do() {
    for row in rows() {
        let outcomes = ["Definite", "Unknown", "Definite or Unknown"];
        assert!(outcomes.contains(&row.outcome.as_str()), "{}: {}", row.name, row.outcome);
        assert!(["yes", "no"].contains(&row.retry.as_str()), "{}: {}", row.name, row.retry);
        assert!(row.advice.len() > 40, "{}: {}", row.name, row.advice);
    }
}

fn grpc_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Aborted => "ABORTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Unavailable => "UNAVAILABLE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::DataLoss => "DATA_LOSS",
        Code::Internal => "INTERNAL",
        other => panic!("no error of ours is sent as {other:?}"),
    }
}
