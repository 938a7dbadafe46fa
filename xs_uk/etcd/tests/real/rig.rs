//! Waiting, appending, comparing.

use std::time::{Duration, Instant};

use etcd_stand::{EtcdStand, StandOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xs_consensus::{Appended, Consensus, Cursor, Epoch, Loaded, LogError};
use xs_etcd::{EtcdLog, EtcdOptions};

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn stand(members: usize) -> EtcdStand {
    EtcdStand::start_in_memory(members, StandOptions::default()).unwrap()
}

pub fn options(stand: &EtcdStand) -> EtcdOptions {
    EtcdOptions {
        endpoints: stand.endpoints(),
        prefix: "/ppvmm/test/".to_owned(),
        call_timeout_ms: 200,
        poll_interval_ms: 300,
        status_interval_ms: 600,
        unavailable_after_ms: 1500,
        ..EtcdOptions::default()
    }
}

pub fn engine(options: &EtcdOptions) -> EtcdLog {
    EtcdLog::start(options, Cursor::default()).unwrap()
}

/// Waits until the engine has something to say, or a little while.
pub fn sleep_on(engine: &EtcdLog) {
    let wake = engine.wake_fd().unwrap();
    let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&pause)).unwrap();
}

/// Takes all that is there.
pub fn drain(engine: &mut EtcdLog, all: &mut Vec<Vec<u8>>) -> Result<(), LogError> {
    let mut entry = Vec::new();
    while let Some(index) = engine.next(&mut entry)? {
        assert_eq!(index, engine.cursor().index);
        all.push(entry.clone());
    }
    Ok(())
}

/// Takes entries until `enough`.
pub fn drain_until(engine: &mut EtcdLog, all: &mut Vec<Vec<u8>>, enough: impl Fn(&[Vec<u8>]) -> bool) {
    let began = Instant::now();
    loop {
        drain(engine, all).unwrap();
        if enough(all) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{} entries, then nothing; {:?}", all.len(), engine.state());
        sleep_on(engine);
    }
}

/// Leads, and reads to the end.
pub fn lead(engine: &mut EtcdLog, epoch: u64, all: &mut Vec<Vec<u8>>) {
    let began = Instant::now();
    engine.lead(Epoch(epoch)).unwrap();
    while !engine.is_leading().unwrap() {
        drain(engine, all).unwrap();
        assert!(began.elapsed() < PATIENCE, "not leading: {:?}", engine.state());
        sleep_on(engine);
    }
    drain(engine, all).unwrap();
}

/// Appends as soon as the engine takes it; what comes back meanwhile goes to `all`.
pub fn append(engine: &mut EtcdLog, entry: &[u8], all: &mut Vec<Vec<u8>>) {
    let began = Instant::now();
    loop {
        match engine.append(entry) {
            Ok(Appended::Submitted(_)) => return,
            Ok(Appended::Committed(_)) => panic!("etcd commits nothing at once"),
            Err(LogError::Busy { .. } | LogError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < PATIENCE, "appends are refused: {:?}", engine.state());
        drain(engine, all).unwrap();
        sleep_on(engine);
    }
}

pub fn numbered(i: usize) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

pub fn load(engine: &mut EtcdLog) -> Loaded {
    let began = Instant::now();
    loop {
        match engine.load_snapshot().unwrap() {
            Loaded::Pending => assert!(began.elapsed() < PATIENCE, "no snapshot: {:?}", engine.state()),
            loaded => return loaded,
        }
        sleep_on(engine);
    }
}

/// Saves a snapshot and waits until old entries are gone.
pub fn save(engine: &mut EtcdLog, bytes: Vec<u8>) {
    let began = Instant::now();
    let cursor = engine.cursor();
    assert!(engine.save_snapshot(&cursor, bytes).unwrap());
    while engine.state().saving_snapshot {
        assert!(began.elapsed() < PATIENCE, "not saved: {:?}", engine.state());
        sleep_on(engine);
    }
    assert_eq!(engine.state().snapshot, Some(cursor.index));
}
