//! Transactions (`applyV3.Txn` in etcd): all comparisons first, nested ones too, then the operations chosen.

use std::collections::BTreeSet;

use etcd_client::proto::{
    PbCompare, PbKeyValue, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest,
    PbTxnRequestOp, PbTxnResponse,
};

use crate::error::EtcdError;
use crate::limits::{TXN_DEPTH_MAX, TXN_OPS_MAX};
use crate::range;
use crate::state::{Op, Writer, check_put};

/// What is refused whatever the state.
pub(crate) fn check(request: &PbTxnRequest) -> Result<(), EtcdError> {
    check_level(request, 0)?;
    Written::of(&request.success)?;
    Written::of(&request.failure)?;
    Ok(())
}

fn check_level(request: &PbTxnRequest, depth: usize) -> Result<(), EtcdError> {
    if depth > TXN_DEPTH_MAX {
        return Err(EtcdError::Unsupported("transactions nested too deeply"));
    }
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > TXN_OPS_MAX {
        return Err(EtcdError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => range::check(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => check_put(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) if request.key.is_empty() => {
                return Err(EtcdError::EmptyKey);
            }
            Some(PbTxnOpRequest::RequestTxn(request)) => check_level(request, depth + 1)?,
            Some(PbTxnOpRequest::RequestDeleteRange(_)) => {}
            None => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(())
}

/// Whether either branch puts anything. etcd does not look into nested transactions for this.
pub(crate) fn puts(request: &PbTxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.any(|op| matches!(op.request, Some(PbTxnOpRequest::RequestPut(_))))
}

/// Whether either branch holds anything but reads, at any depth.
pub(crate) fn may_change(request: &PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(PbTxnOpRequest::RequestRange(_)) | None => false,
        Some(PbTxnOpRequest::RequestTxn(request)) => may_change(request),
        _ => true,
    })
}

/// Bytes that the dearer branch puts.
pub(crate) fn cost_bytes(request: &PbTxnRequest) -> usize {
    let of = |ops: &[PbTxnRequestOp]| -> usize {
        ops.iter()
            .map(|op| match &op.request {
                Some(PbTxnOpRequest::RequestPut(put)) => Op::Put(put.clone()).cost_bytes(),
                _ => 0,
            })
            .sum()
    };
    of(&request.success).max(of(&request.failure))
}

/// Applies a transaction that passed [`check`]. Its header is the caller's to set.
pub(crate) fn apply(writer: &mut Writer<'_>, request: &PbTxnRequest) -> Result<PbTxnResponse, EtcdError> {
    let mut path = Vec::new();
    choose(writer, request, &mut path);
    check_chosen(writer, request, &mut path.iter(), Pass::Puts)?;
    check_chosen(writer, request, &mut path.iter(), Pass::Ranges)?;
    Ok(execute(writer, request, &mut path.iter()))
}

/// Decides for this transaction and then for those nested in the branch taken, in their order.
fn choose(writer: &Writer<'_>, request: &PbTxnRequest, path: &mut Vec<bool>) {
    let holds = request.compare.iter().all(|compare| holds(writer, compare));
    path.push(holds);
    for op in branch(request, holds) {
        if let Some(PbTxnOpRequest::RequestTxn(request)) = &op.request {
            choose(writer, request, path);
        }
    }
}

fn branch(request: &PbTxnRequest, holds: bool) -> &[PbTxnRequestOp] {
    if holds { &request.success } else { &request.failure }
}

/// etcd looks at all puts first: which error a client gets depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Puts,
    Ranges,
}

/// Nothing is changed before it is known that all can be.
fn check_chosen<'a>(
    writer: &Writer<'_>,
    request: &PbTxnRequest,
    path: &mut impl Iterator<Item = &'a bool>,
    pass: Pass,
) -> Result<(), EtcdError> {
    let holds = *path.next().expect("one for each transaction met");
    for op in branch(request, holds) {
        match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) if pass == Pass::Ranges => {
                range::check_txn_revision(writer.state, writer.current(), request.revision)?;
            }
            Some(PbTxnOpRequest::RequestPut(request)) if pass == Pass::Puts => writer.check_put(request)?,
            Some(PbTxnOpRequest::RequestTxn(request)) => check_chosen(writer, request, path, pass)?,
            _ => {}
        }
    }
    Ok(())
}

fn execute<'a>(
    writer: &mut Writer<'_>,
    request: &PbTxnRequest,
    path: &mut impl Iterator<Item = &'a bool>,
) -> PbTxnResponse {
    let succeeded = *path.next().expect("one for each transaction met");
    let mut responses = Vec::new();
    for op in branch(request, succeeded) {
        let response = match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => {
                let response = writer.range(request).expect("its revision was checked");
                PbTxnOpResponse::ResponseRange(response)
            }
            Some(PbTxnOpRequest::RequestPut(request)) => PbTxnOpResponse::ResponsePut(writer.put(request)),
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => {
                PbTxnOpResponse::ResponseDeleteRange(writer.delete(request))
            }
            Some(PbTxnOpRequest::RequestTxn(request)) => {
                PbTxnOpResponse::ResponseTxn(execute(writer, request, path))
            }
            None => continue,
        };
        responses.push(PbResponseOp { response: Some(response) });
    }
    // A nested answer's header is there, and empty.
    PbTxnResponse { header: Some(etcd_client::proto::PbResponseHeader::default()), succeeded, responses }
}

/// A comparison holds if it does for every pair of its range; for an empty range, if it does for a pair of zeros.
fn holds(writer: &Writer<'_>, compare: &PbCompare) -> bool {
    let mut found =
        range::current(writer.state, writer.current(), &compare.key, &compare.range_end).peekable();
    if found.peek().is_none() {
        let of_value = compare.target == etcd_client::proto::PbCompareTarget::Value as i32;
        return !of_value && pair_holds(compare, &PbKeyValue::default());
    }
    found.all(|kv| pair_holds(compare, kv))
}

fn pair_holds(compare: &PbCompare, kv: &PbKeyValue) -> bool {
    use etcd_client::proto::PbCompareTarget as Target;
    let union = compare.target_union.as_ref();
    let number = |of: i64, wanted: Option<i64>| of.cmp(&wanted.unwrap_or(0));
    let order = match compare.target {
        t if t == Target::Version as i32 => number(kv.version, union.and_then(of_version)),
        t if t == Target::Create as i32 => number(kv.create_revision, union.and_then(of_create)),
        t if t == Target::Mod as i32 => number(kv.mod_revision, union.and_then(of_mod)),
        t if t == Target::Lease as i32 => number(kv.lease, union.and_then(of_lease)),
        _ => match union {
            Some(PbTargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.as_slice().cmp(&[]),
        },
    };
    match compare.result {
        r if r == etcd_client::CompareOp::Equal as i32 => order.is_eq(),
        r if r == etcd_client::CompareOp::Greater as i32 => order.is_gt(),
        r if r == etcd_client::CompareOp::Less as i32 => order.is_lt(),
        _ => order.is_ne(),
    }
}

fn of_version(union: &PbTargetUnion) -> Option<i64> {
    if let PbTargetUnion::Version(wanted) = union { Some(*wanted) } else { None }
}

fn of_create(union: &PbTargetUnion) -> Option<i64> {
    if let PbTargetUnion::CreateRevision(wanted) = union { Some(*wanted) } else { None }
}

fn of_mod(union: &PbTargetUnion) -> Option<i64> {
    if let PbTargetUnion::ModRevision(wanted) = union { Some(*wanted) } else { None }
}

fn of_lease(union: &PbTargetUnion) -> Option<i64> {
    if let PbTargetUnion::Lease(wanted) = union { Some(*wanted) } else { None }
}

/// The keys that a list of operations puts, and the ranges that it deletes, nested ones included.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Written<'a> {
    /// No key may be put twice or put and deleted, but by branches that exclude each other.
    fn of(ops: &'a [PbTxnRequestOp]) -> Result<Self, EtcdError> {
        let mut written = Self::default();
        for op in ops {
            if let Some(PbTxnOpRequest::RequestDeleteRange(request)) = &op.request {
                written.deletes.push((&request.key, &request.range_end));
            }
        }
        for op in ops {
            if let Some(PbTxnOpRequest::RequestTxn(request)) = &op.request {
                written.add_nested(Self::of(&request.success)?, Self::of(&request.failure)?)?;
            }
        }
        for op in ops {
            if let Some(PbTxnOpRequest::RequestPut(request)) = &op.request {
                written.add_put(&request.key)?;
            }
        }
        Ok(written)
    }

    fn add_nested(&mut self, success: Self, failure: Self) -> Result<(), EtcdError> {
        for put in &success.puts {
            self.add_put(put)?;
        }
        for put in &failure.puts {
            if success.puts.contains(put) {
                self.puts.remove(put);
            }
            self.add_put(put)?;
        }
        self.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
        Ok(())
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), EtcdError> {
        // etcd takes an end of one zero byte by the letter here, so "all from a key on" overlaps with no put.
        let deleted = self.deletes.iter().any(|(from, end)| match *end {
            [] => key == *from,
            end => key >= *from && key < end,
        });
        if deleted || !self.puts.insert(key) { Err(EtcdError::DuplicateKey) } else { Ok(()) }
    }
}
