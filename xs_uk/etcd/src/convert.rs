//! Between the core's vocabulary and etcd's messages.

use etcd_client::proto::{PbTxnOpResponse, PbWatchResponse};
use etcd_client::{
    Compare, CompareOp, DeleteOptions, Error, GetOptions, StatusResponse, Txn, TxnOp, TxnResponse,
};
use tonic::Code;

use crate::call::{Answer, CallError, Found, KeyValue, Op, Status};

pub(crate) fn txn(compare: Vec<(Vec<u8>, i64)>, then: Vec<Op>, otherwise: Vec<Op>) -> Txn {
    let compare =
        compare.into_iter().map(|(key, revision)| Compare::mod_revision(key, CompareOp::Equal, revision));
    let ops = |ops: Vec<Op>| ops.into_iter().map(op).collect::<Vec<_>>();
    Txn::new().when(compare.collect::<Vec<_>>()).and_then(ops(then)).or_else(ops(otherwise))
}

fn op(op: Op) -> TxnOp {
    match op {
        Op::Get { key, end, limit } => {
            let options = GetOptions::new().with_limit(i64::from(limit));
            let options = match end {
                Some(end) => options.with_range(end),
                None => options,
            };
            TxnOp::get(key, Some(options))
        }
        Op::Put { key, value } => TxnOp::put(key, value, None),
        Op::Delete { key, end } => TxnOp::delete(key, Some(DeleteOptions::new().with_range(end))),
    }
}

pub(crate) fn txn_answer(response: TxnResponse) -> Result<Answer, CallError> {
    let response = response.0;
    let header = response.header.ok_or_else(|| CallError::Refused("an answer without header".to_owned()))?;
    let found = response.responses.into_iter().filter_map(|response| match response.response {
        Some(PbTxnOpResponse::ResponseRange(range)) => {
            Some(Found { kvs: range.kvs.into_iter().map(key_value).collect(), more: range.more })
        }
        _ => None,
    });
    let found = found.collect();
    Ok(Answer::Txn { cluster: header.cluster_id, revision: header.revision, held: response.succeeded, found })
}

fn key_value(kv: etcd_client::proto::PbKeyValue) -> KeyValue {
    KeyValue { key: kv.key, value: kv.value, mod_revision: kv.mod_revision }
}

/// Keys that were put; `None` at the end of the watch.
pub(crate) fn watched(response: PbWatchResponse) -> Option<Vec<KeyValue>> {
    const PUT: i32 = 0;
    let puts = response.events.into_iter().filter(|event| event.r#type == PUT);
    (!response.canceled).then(|| puts.filter_map(|event| event.kv).map(key_value).collect())
}

pub(crate) fn status(response: &StatusResponse) -> Status {
    let says = |what: &str| response.errors().iter().any(|error| error.contains(what));
    Status {
        version: response.version().to_owned(),
        member: response.header().map_or(0, |header| header.member_id()),
        leader: response.leader(),
        db_bytes: response.db_size().unsigned_abs(),
        db_used_bytes: response.raft_used_db_size().unsigned_abs(),
        no_space: says("NOSPACE"),
        corrupt: says("CORRUPT"),
    }
}

pub(crate) fn error(error: Error) -> CallError {
    let Error::GRpcStatus(status) = error else { return CallError::Uncertain(error.to_string()) };
    let message = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted if message.contains("space exceeded") => CallError::NoSpace,
        Code::OutOfRange if message.contains("has been compacted") => CallError::Compacted,
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented => CallError::Refused(message),
        code => CallError::Uncertain(format!("{code:?}: {message}")),
    }
}
