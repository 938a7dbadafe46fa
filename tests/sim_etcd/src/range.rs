//! Reads of a range (`applyV3.Range` in etcd).

use std::ops::Bound;

use etcd_client::proto::{PbKeyValue, PbRangeRequest, PbRangeResponse, PbResponseHeader};
use etcd_client::{SortOrder, SortTarget};

use crate::error::EtcdError;
use crate::state::{Revision, State};

/// What is refused whatever the state.
pub(crate) fn check(request: &PbRangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() { Err(EtcdError::EmptyKey) } else { Ok(()) }
}

/// As [`check_revision`], but for a read in a transaction, where etcd takes a negative revision as an old one.
pub(crate) fn check_txn_revision(state: &State, current: i64, revision: i64) -> Result<(), EtcdError> {
    if revision < 0 && revision < state.compacted() {
        return Err(EtcdError::Compacted);
    }
    check_revision(state, current, revision)
}

/// Whether the revision that is asked for can be read; not positive means the newest.
fn check_revision(state: &State, current: i64, revision: i64) -> Result<(), EtcdError> {
    if revision > current {
        return Err(EtcdError::FutureRevision);
    }
    if revision > 0 && revision < state.compacted() {
        return Err(EtcdError::Compacted);
    }
    Ok(())
}

/// The pairs of a range as of a revision, by key.
pub(crate) fn current<'a>(
    state: &'a State,
    revision: i64,
    key: &[u8],
    range_end: &[u8],
) -> impl Iterator<Item = &'a PbKeyValue> {
    let after = Revision { main: revision + 1, sub: 0 };
    let keys = bounds(key, range_end).map(|bounds| state.keys.range::<[u8], _>(bounds));
    keys.into_iter()
        .flatten()
        .filter_map(move |(_, versions)| versions.range(..after).next_back()?.1.as_ref())
}

/// Reads; `current_revision` is what the request sees as the newest.
pub(crate) fn read(
    state: &State,
    current_revision: i64,
    request: &PbRangeRequest,
) -> Result<PbRangeResponse, EtcdError> {
    check_revision(state, current_revision, request.revision)?;
    let at = if request.revision > 0 { request.revision } else { current_revision };
    let found: Vec<&PbKeyValue> = current(state, at, &request.key, &request.range_end).collect();
    let header = PbResponseHeader { revision: current_revision, ..PbResponseHeader::default() };
    let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
    if request.count_only {
        return Ok(PbRangeResponse { header: Some(header), count, ..PbRangeResponse::default() });
    }
    let mut kvs: Vec<PbKeyValue> = found.into_iter().filter(|kv| is_wanted(request, kv)).cloned().collect();
    sort(&mut kvs, request);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    Ok(PbRangeResponse { header: Some(header), kvs, more, count })
}

fn is_wanted(request: &PbRangeRequest, kv: &PbKeyValue) -> bool {
    let within = |value: i64, min: i64, max: i64| value >= min && (max == 0 || value <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Equal ones stay by key; etcd's own order of equal ones is not defined.
fn sort(kvs: &mut [PbKeyValue], request: &PbRangeRequest) {
    match request.sort_target {
        target if target == SortTarget::Version as i32 => kvs.sort_by_key(|kv| kv.version),
        target if target == SortTarget::Create as i32 => kvs.sort_by_key(|kv| kv.create_revision),
        target if target == SortTarget::Mod as i32 => kvs.sort_by_key(|kv| kv.mod_revision),
        target if target == SortTarget::Value as i32 => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        _ => {}
    }
    if request.sort_order == SortOrder::Descend as i32 {
        kvs.reverse();
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// What `key` and `range_end` mean: one key, all from a key on (`range_end` is one zero byte), or an interval.
/// `None` for an empty interval.
fn bounds<'a>(key: &'a [u8], range_end: &'a [u8]) -> Option<Bounds<'a>> {
    match range_end {
        [] => Some((Bound::Included(key), Bound::Included(key))),
        [0] => Some((Bound::Included(key), Bound::Unbounded)),
        end if end <= key => None,
        end => Some((Bound::Included(key), Bound::Excluded(end))),
    }
}

/// Whether a key lies in what `key` and `range_end` mean.
pub(crate) fn contains(key: &[u8], range_end: &[u8], wanted: &[u8]) -> bool {
    match range_end {
        [] => wanted == key,
        [0] => wanted >= key,
        end => wanted >= key && wanted < end,
    }
}
