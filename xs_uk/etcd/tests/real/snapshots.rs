//! Snapshots, what they let go, and who is left behind.

use xs_consensus::{Consensus, Cursor, Loaded, LogError};
use xs_etcd::EtcdLog;
use xs_etcd::limits::CHUNK_BYTES;

use crate::rig::{append, drain_until, engine, lead, load, numbered, options, save, sleep_on, stand};

#[test]
fn a_snapshot_is_read_back_and_the_log_goes_on_from_it() {
    let stand = stand(1);
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    assert_eq!(load(&mut engine(&options)), Loaded::Nothing);
    let content = |i: usize| vec![u8::try_from(i % 251).unwrap(); CHUNK_BYTES * i + 17];
    let mut places = Vec::new();
    for i in 0..4 {
        let total = ours.len() + 50;
        for n in 0..50 {
            append(&mut leader, &numbered(100 * i + n), &mut ours);
        }
        drain_until(&mut leader, &mut ours, |all| all.len() == total);
        places.push(leader.cursor());
        save(&mut leader, content(i));
        assert_eq!(leader.used_bytes(), 0);
    }
    append(&mut leader, b"last", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.len() == 201);
    let mut late = engine(&options);
    assert_eq!(load(&mut late), Loaded::Snapshot { cursor: places[3], bytes: content(3) });
    let mut theirs = Vec::new();
    drain_until(&mut late, &mut theirs, |all| all.len() == 1);
    assert_eq!((theirs, late.cursor()), (vec![b"last".to_vec()], leader.cursor()));
    // The log still goes back to the snapshot before, so that one can be replayed too; and no further.
    let mut back = EtcdLog::start(&options, places[2]).unwrap();
    let mut replayed = Vec::new();
    drain_until(&mut back, &mut replayed, |all| all.len() == 51);
    assert_eq!(replayed[..], ours[150..]);
    assert_eq!(overrun(EtcdLog::start(&options, places[0]).unwrap()), 51);
    assert_eq!(overrun(engine(&options)), 1);
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_one_before_it() {
    let stand = stand(1);
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    let mut places = Vec::new();
    for i in 0..2 {
        append(&mut leader, &numbered(i), &mut ours);
        drain_until(&mut leader, &mut ours, |all| all.len() == i + 1);
        places.push(leader.cursor());
        save(&mut leader, vec![5; 1000 + i]);
    }
    let damage = |index: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = etcd_client::Client::connect(stand.endpoints(), None).await.unwrap();
            let key = format!("{}snap/{index:016x}/00000000", options.prefix);
            assert_eq!(client.get(key.clone(), None).await.unwrap().count(), 1);
            client.put(key, vec![4; 1000], None).await.unwrap();
        });
    };
    damage(2);
    let mut late = engine(&options);
    assert_eq!(load(&mut late), Loaded::Snapshot { cursor: places[0], bytes: vec![5; 1000] });
    let mut theirs = Vec::new();
    drain_until(&mut late, &mut theirs, |all| all.len() == 1);
    assert_eq!((theirs[0].clone(), late.cursor()), (numbered(1), leader.cursor()));
    damage(1);
    let mut last = engine(&options);
    loop {
        match last.load_snapshot() {
            Ok(Loaded::Pending) => sleep_on(&last),
            Err(LogError::Corrupt { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}

fn overrun(mut engine: EtcdLog) -> u64 {
    let mut entry = Vec::new();
    loop {
        match engine.next(&mut entry) {
            Ok(None) => sleep_on(&engine),
            Err(LogError::Overrun { index }) => return index,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_follower_that_was_overtaken_loads_the_snapshot_and_goes_on() {
    let stand = stand(1);
    let options = options(&stand);
    let (mut leader, mut follower) = (engine(&options), engine(&options));
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    // More than a follower keeps ready, so that it is still behind when the log is let go.
    let big = vec![7; 60_000];
    for round in 1..=3 {
        for _ in 0..200 {
            append(&mut leader, &big, &mut ours);
        }
        drain_until(&mut leader, &mut ours, |all| all.len() == round * 200);
        save(&mut leader, vec![1; 100]);
    }
    let (mut entry, mut read) = (Vec::new(), 0);
    let index = loop {
        match follower.next(&mut entry) {
            Ok(Some(_)) => read += 1,
            Ok(None) => sleep_on(&follower),
            Err(LogError::Overrun { index }) => break index,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(read > 0 && index == read + 1);
    let Loaded::Snapshot { cursor, bytes } = load(&mut follower) else { panic!("no snapshot") };
    assert_eq!((cursor, bytes), (leader.cursor(), vec![1; 100]));
    append(&mut leader, b"last", &mut ours);
    let mut theirs = Vec::new();
    drain_until(&mut follower, &mut theirs, |all| all.len() == 1);
    assert_eq!(theirs, [b"last"]);
}

#[test]
fn a_place_that_this_log_never_had_is_corrupt() {
    let stand = stand(1);
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    append(&mut leader, b"one", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.len() == 1);
    for wrong in [
        Cursor { hash: [9; 32], ..leader.cursor() },
        Cursor { index: xs_consensus::Index(7), ..leader.cursor() },
    ] {
        let mut reader = EtcdLog::start(&options, wrong).unwrap();
        let mut entry = Vec::new();
        loop {
            match reader.next(&mut entry) {
                Ok(None) => sleep_on(&reader),
                Err(LogError::Corrupt { .. }) => break,
                other => panic!("{other:?}"),
            }
        }
    }
}
