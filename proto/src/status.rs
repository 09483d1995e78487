//! An [`Error`] inside a gRPC status: as `google.rpc.Status` with one `Any`, the form that
//! generic tools know how to print.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::v1::{Error, ErrorCode};

const TYPE_URL: &str = "type.googleapis.com/quipu.v1.Error";

/// `google.rpc.Status`, field for field.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// Makes the gRPC status of an error. The status code follows docs/errors.md.
pub fn status_of_error(error: &Error) -> Status {
    let code = grpc_code(error.code());
    let any = prost_types::Any { type_url: TYPE_URL.to_owned(), value: error.encode_to_vec() };
    let details =
        RpcStatus { code: code.into(), message: error.message.clone(), details: vec![any] };
    let details = Bytes::from(details.encode_to_vec());
    Status::with_details(code, error.message.clone(), details)
}

/// Finds the error in a status; `None` where there is none, as in statuses that the transport made.
pub fn error_of_status(status: &Status) -> Option<Error> {
    let details = RpcStatus::decode(status.details()).ok()?;
    let any = details.details.iter().find(|any| any.type_url == TYPE_URL)?;
    Error::decode(any.value.as_slice()).ok()
}

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument
        | ErrorCode::InvalidConfig
        | ErrorCode::InvalidReplication
        | ErrorCode::BatchTooLarge
        | ErrorCode::BatchCorrupt
        | ErrorCode::BatchUnsupported => Code::InvalidArgument,
        ErrorCode::UnknownTopic
        | ErrorCode::UnknownPartition
        | ErrorCode::UnknownGroup
        | ErrorCode::UnknownMember => Code::NotFound,
        ErrorCode::TopicExists | ErrorCode::AlreadyInitialized => Code::AlreadyExists,
        ErrorCode::OffsetOutOfRange | ErrorCode::OffsetBeyondEnd => Code::OutOfRange,
        ErrorCode::NotSupported => Code::Unimplemented,
        ErrorCode::EndOffsetConflict | ErrorCode::OffsetRegression => Code::Aborted,
        ErrorCode::GroupMemberFenced
        | ErrorCode::GroupInstanceFenced
        | ErrorCode::GroupNotEmpty
        | ErrorCode::PartitionNotOwned
        | ErrorCode::ProducerFenced
        | ErrorCode::SequenceOutOfOrder
        | ErrorCode::UnknownProducer
        | ErrorCode::NotInitialized
        | ErrorCode::WrongCluster => Code::FailedPrecondition,
        ErrorCode::NotLeader
        | ErrorCode::LeaderUnknown
        | ErrorCode::StaleReplica
        | ErrorCode::LeadershipLost
        | ErrorCode::Stopping => Code::Unavailable,
        ErrorCode::Overloaded | ErrorCode::DiskFull | ErrorCode::GroupFull => {
            Code::ResourceExhausted
        }
        ErrorCode::TimedOut => Code::DeadlineExceeded,
        ErrorCode::CorruptEntry => Code::DataLoss,
        ErrorCode::Internal | ErrorCode::Unspecified => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Outcome;

    #[test]
    fn an_error_comes_out_of_its_status_as_it_went_in() {
        let error = Error {
            code: ErrorCode::EndOffsetConflict.into(),
            outcome: Outcome::Definite.into(),
            message: "the end offset is 7".to_owned(),
            end_offset: Some(7),
            ..Error::default()
        };
        let status = status_of_error(&error);
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(error_of_status(&status), Some(error));
    }

    #[test]
    fn a_status_without_details_has_no_error() {
        assert_eq!(error_of_status(&Status::internal("x")), None);
        let torn = Status::with_details(Code::Internal, "x", Bytes::from_static(b"\xff\xff\x07"));
        assert_eq!(error_of_status(&torn), None);
    }
}
