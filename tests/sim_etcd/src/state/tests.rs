use etcd_client::proto::{PbTxnOpRequest, PbTxnRequestOp};

use super::*;

fn put(key: &str, value: &str) -> Op {
    Op::Put(PbPutRequest { key: key.into(), value: value.into(), ..PbPutRequest::default() })
}

fn compact(revision: i64) -> Op {
    Op::Compact(PbCompactionRequest { revision, physical: false })
}

fn read_at(state: &State, key: &str, revision: i64) -> Result<Vec<Vec<u8>>, EtcdError> {
    let request = PbRangeRequest { key: key.into(), revision, ..PbRangeRequest::default() };
    Ok(state.read(&request)?.kvs.into_iter().map(|kv| kv.value).collect())
}

#[test]
fn old_revisions_can_be_read_until_they_are_compacted() {
    let mut state = State::default();
    for value in ["1", "2", "3"] {
        state.apply(&put("k", value)).unwrap();
    }
    assert_eq!(state.revision(), 4);
    assert_eq!(read_at(&state, "k", 2), Ok(vec![b"1".to_vec()]));
    state.apply(&compact(3)).unwrap();
    assert_eq!(read_at(&state, "k", 2), Err(EtcdError::Compacted));
    assert_eq!(read_at(&state, "k", 3), Ok(vec![b"2".to_vec()]));
    assert_eq!(read_at(&state, "k", 5), Err(EtcdError::FutureRevision));
    assert_eq!(state.apply(&compact(3)), Err(EtcdError::Compacted));
}

#[test]
fn compaction_gives_back_the_bytes_of_what_it_forgets() {
    let mut state = State::default();
    state.apply(&put("k", "long value")).unwrap();
    let one = state.used_bytes();
    for _ in 0..10 {
        state.apply(&put("k", "long value")).unwrap();
    }
    assert_eq!(state.used_bytes(), 11 * one);
    state.apply(&compact(state.revision())).unwrap();
    assert_eq!(state.used_bytes(), one);
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let op = |op| PbTxnRequestOp { request: Some(op) };
    let missing = PbPutRequest { key: b"x".to_vec(), ignore_value: true, ..PbPutRequest::default() };
    let present = PbPutRequest { key: b"k".to_vec(), value: b"2".to_vec(), ..PbPutRequest::default() };
    let success = vec![op(PbTxnOpRequest::RequestPut(present)), op(PbTxnOpRequest::RequestPut(missing))];
    let mut state = State::default();
    state.apply(&put("k", "1")).unwrap();
    let before = state.clone();
    let request = PbTxnRequest { success, ..PbTxnRequest::default() };
    assert_eq!(state.apply(&Op::Txn(request)), Err(EtcdError::KeyNotFound));
    assert_eq!(state, before);
}

#[test]
fn bounds_are_reached() {
    let ops = |count| {
        let get =
            PbTxnOpRequest::RequestRange(PbRangeRequest { key: b"k".to_vec(), ..PbRangeRequest::default() });
        let success = vec![PbTxnRequestOp { request: Some(get) }; count];
        Op::Txn(PbTxnRequest { success, ..PbTxnRequest::default() })
    };
    let mut state = State::default();
    assert!(state.apply(&ops(crate::limits::TXN_OPS_MAX)).is_ok());
    assert_eq!(state.apply(&ops(crate::limits::TXN_OPS_MAX + 1)), Err(EtcdError::TooManyOps));
    assert_eq!(state.apply(&put("k", &"v".repeat(REQUEST_BYTES_MAX))), Err(EtcdError::TooLarge));
    let mut nested = PbTxnRequest::default();
    for _ in 0..=crate::limits::TXN_DEPTH_MAX {
        let success = vec![PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestTxn(nested)) }];
        nested = PbTxnRequest { success, ..PbTxnRequest::default() };
    }
    assert!(matches!(state.apply(&Op::Txn(nested)), Err(EtcdError::Unsupported(_))));
}
