use etcd_client::proto::{PbPutRequest, PbRangeRequest};

use super::*;

fn cluster() -> Cluster {
    Cluster::new(ClusterOptions { members: 3, ..ClusterOptions::default() })
}

fn put(value: &str) -> Op {
    Op::Put(PbPutRequest { key: b"k".to_vec(), value: value.into(), ..PbPutRequest::default() })
}

fn get() -> Op {
    Op::Range(PbRangeRequest { key: b"k".to_vec(), ..PbRangeRequest::default() })
}

fn value(cluster: &Cluster, member: usize) -> Vec<u8> {
    let request = PbRangeRequest { key: b"k".to_vec(), ..PbRangeRequest::default() };
    let read = cluster.state(member).read(&request).unwrap();
    read.kvs.into_iter().next().map(|kv| kv.value).unwrap_or_default()
}

fn answered(proposed: Proposed) -> Result<Answer, EtcdError> {
    match proposed {
        Proposed::Answered(answer) => answer,
        Proposed::Stranded(_) => panic!("there is a majority"),
    }
}

fn stranded(proposed: Proposed) -> Ticket {
    match proposed {
        Proposed::Stranded(ticket) => ticket,
        Proposed::Answered(answer) => panic!("there is no majority: {answer:?}"),
    }
}

#[test]
fn all_that_are_reached_apply_what_is_committed() {
    let cluster = cluster();
    cluster.set_up(2, false);
    answered(cluster.lock().propose(1, put("1"))).unwrap();
    assert_eq!([value(&cluster, 0), value(&cluster, 1), value(&cluster, 2)], [&b"1"[..], b"1", b""]);
    cluster.set_up(2, true);
    assert_eq!(value(&cluster, 2), b"1");
}

#[test]
fn a_slow_member_catches_up_for_a_linearizable_read() {
    let cluster = cluster();
    cluster.set_slow(1, true);
    answered(cluster.lock().propose(0, put("1"))).unwrap();
    assert_eq!(value(&cluster, 1), b"");
    let Answer::Range(read) = answered(cluster.lock().propose(1, get())).unwrap() else { panic!() };
    assert_eq!(read.kvs[0].value, b"1");
}

#[test]
fn what_a_cut_off_leader_was_given_is_committed_later_or_never() {
    for elected in [false, true] {
        let cluster = cluster();
        cluster.set_link(0, 1, false);
        cluster.set_link(0, 2, false);
        let ticket = stranded(cluster.lock().propose(0, put("late")));
        assert!(cluster.lock().take_settled(ticket).is_none());
        if elected {
            cluster.tick(10_000);
            assert_eq!((cluster.leader(), cluster.term()), (1, 3));
            answered(cluster.lock().propose(2, put("other"))).unwrap();
        }
        cluster.set_link(0, 1, true);
        cluster.set_link(0, 2, true);
        let settled = cluster.lock().take_settled(ticket).unwrap();
        assert_eq!(settled.is_ok(), !elected);
        assert_eq!(value(&cluster, 0), if elected { &b"other"[..] } else { b"late" });
    }
}

#[test]
fn a_member_without_leader_refuses() {
    let cluster = cluster();
    cluster.set_link(0, 2, false);
    cluster.set_link(1, 2, false);
    let refused = answered(cluster.lock().propose(2, get()));
    assert_eq!(refused, Err(EtcdError::NoLeader));
}

#[test]
fn a_full_key_space_raises_the_alarm() {
    let cluster = Cluster::new(ClusterOptions { quota_bytes: 100, ..ClusterOptions::default() });
    answered(cluster.lock().propose(0, put("1"))).unwrap();
    let large = "v".repeat(100);
    assert_eq!(answered(cluster.lock().propose(0, put(&large))), Err(EtcdError::NoSpace));
    assert_eq!(answered(cluster.lock().propose(0, put("2"))), Err(EtcdError::NoSpace));
    answered(cluster.lock().propose(0, Op::NoSpace(false))).unwrap();
    answered(cluster.lock().propose(0, put("2"))).unwrap();
}

#[test]
fn a_leader_keeps_a_bounded_number_of_proposals() {
    let cluster = cluster();
    cluster.set_up(1, false);
    cluster.set_up(2, false);
    for _ in 0..STRANDED_MAX {
        stranded(cluster.lock().propose(0, put("1")));
    }
    assert_eq!(answered(cluster.lock().propose(0, put("1"))), Err(EtcdError::TooManyRequests));
}

#[test]
#[should_panic(expected = "bound")]
fn members_are_bounded() {
    Cluster::new(ClusterOptions { members: MEMBERS_MAX + 1, ..ClusterOptions::default() });
}
