//! A log in shared memory, copied to a real etcd: nothing is missing there for long, whoever dies or stops.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use etcd_stand::EtcdStand;
use xs_consensus::limits::{ENTRY_BYTES_MAX, LOG_BYTES};
use xs_consensus::{Appended, Consensus, Cursor, Embedded, EngineHealth, Epoch, Loaded, LogError};
use xs_etcd::limits::LAG_BYTES_MAX;
use xs_etcd::{CopiedLog, CopyOptions};
use xs_shm::Region;

use crate::rig::{PATIENCE, drain, engine, lead, load, numbered, options, sleep_on, stand};

/// The memory that outlives every leader.
struct Memory(Region);

impl Memory {
    fn new() -> Self {
        Self(Region::create("log", LOG_BYTES).unwrap())
    }

    fn view(&self, from: Cursor) -> Embedded {
        let fd = self.0.as_fd().try_clone_to_owned().unwrap();
        Embedded::attach(Region::open(fd, LOG_BYTES).unwrap(), from).unwrap()
    }

    /// A replica that is told to lead, at the end of the log.
    fn leader(&self, stand: &EtcdStand, epoch: u64, from: Cursor) -> CopiedLog {
        let copy = CopyOptions { etcd: options(stand), linger: Duration::from_millis(5) };
        let mut log = CopiedLog::new(self.view(from), copy).unwrap();
        log.lead(Epoch(epoch)).unwrap();
        while log.next(&mut Vec::new()).unwrap().is_some() {}
        log
    }
}

fn append(log: &mut CopiedLog, entries: std::ops::Range<usize>) {
    for i in entries {
        assert!(matches!(log.append(&numbered(i)).unwrap(), Appended::Committed(_)));
    }
}

fn wait_until(log: &CopiedLog, what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "never {what}: {:?}", log.state());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_leading(log: &mut CopiedLog) {
    let began = Instant::now();
    while !log.is_leading().unwrap() {
        assert!(began.elapsed() < PATIENCE, "not leading: {:?}", log.state());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first leader of all, once etcd knows it.
fn first_leader() -> (EtcdStand, Memory, CopiedLog) {
    let (stand, memory) = (stand(1), Memory::new());
    let mut log = memory.leader(&stand, 1, Cursor::default());
    wait_leading(&mut log);
    (stand, memory, log)
}

fn lag(log: &CopiedLog) -> u64 {
    log.state().copy_lag.unwrap().entries
}

fn wait_copied(log: &CopiedLog) {
    wait_until(log, "copied", || lag(log) == 0);
}

/// Reads etcd by itself: it holds the same entries with the same chain.
fn check_copy(stand: &EtcdStand, log: &CopiedLog, entries: usize) {
    check_copy_of(stand, log, &(0..entries).map(numbered).collect::<Vec<_>>());
}

fn check_copy_of(stand: &EtcdStand, log: &CopiedLog, entries: &[Vec<u8>]) {
    let (mut reader, mut all) = (engine(&options(stand)), Vec::new());
    let began = Instant::now();
    while reader.cursor().index < log.cursor().index {
        drain(&mut reader, &mut all).unwrap();
        assert!(began.elapsed() < PATIENCE, "{} of {} entries", all.len(), entries.len());
        sleep_on(&reader);
    }
    assert_eq!(all, entries);
    assert_eq!(reader.cursor().hash, log.cursor().hash);
}

#[test]
fn what_memory_acknowledged_is_in_etcd_a_moment_later_with_the_same_chain() {
    let (stand, memory, mut log) = first_leader();
    append(&mut log, 0..3000);
    wait_copied(&log);
    check_copy(&stand, &log, 3000);
    let from = log.cursor();
    drop(log);
    let mut log = memory.leader(&stand, 2, from);
    append(&mut log, 3000..3010);
    wait_copied(&log);
    check_copy(&stand, &log, 3010);
}

#[test]
fn the_first_leader_waits_for_etcd_and_later_ones_bring_what_others_left() {
    let (stand, memory) = (stand(1), Memory::new());
    stand.stop(0);
    let mut log = memory.leader(&stand, 1, Cursor::default());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!log.is_leading().unwrap(), "nothing is stored before etcd was seen once");
    assert!(memory.view(Cursor::default()).copied().is_none());
    stand.cont(0);
    wait_leading(&mut log);
    append(&mut log, 0..10);
    wait_copied(&log);
    let mut entries = 10;
    // Each dies with what it appended in memory alone.
    for epoch in 2..6 {
        stand.stop(0);
        let mut log = memory.leader(&stand, epoch, Cursor::default());
        assert!(log.is_leading().unwrap(), "later ones do not wait");
        append(&mut log, entries..entries + 7);
        entries += 7;
        drop(log);
        stand.cont(0);
    }
    let log = memory.leader(&stand, 6, Cursor::default());
    wait_copied(&log);
    check_copy(&stand, &log, entries);
}

#[test]
fn etcd_may_be_away_for_so_long_and_then_appends_are_refused_until_it_is_back() {
    let (stand, _memory, mut log) = first_leader();
    stand.stop(0);
    let (began, mut entries) = (Instant::now(), 0);
    let waited_ms = loop {
        match log.append(&numbered(entries)) {
            Ok(_) => entries += 1,
            Err(LogError::Unavailable { waited_ms }) => break waited_ms,
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < PATIENCE, "never refused: {:?}", log.state());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(waited_ms >= 1500 && began.elapsed() >= Duration::from_millis(1500), "{waited_ms} ms");
    assert!(lag(&log) == entries as u64 && entries > 10, "{:?}", log.state());
    stand.cont(0);
    wait_copied(&log);
    append(&mut log, entries..entries + 1);
    wait_copied(&log);
    check_copy(&stand, &log, entries + 1);
}

#[test]
fn the_lag_is_bounded_in_bytes_and_who_waits_is_woken() {
    let (stand, _memory, mut log) = first_leader();
    assert_eq!(log.next(&mut Vec::new()).unwrap(), None);
    stand.stop(0);
    let entry = vec![7; ENTRY_BYTES_MAX];
    let mut entries = 0_u64;
    let busy = loop {
        match log.append(&entry) {
            Ok(_) => entries += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, LogError::Busy { queued } if queued as u64 == entries), "{busy}");
    assert!((LAG_BYTES_MAX..LAG_BYTES_MAX + 2 * ENTRY_BYTES_MAX as u64).contains(&log.used_bytes()));
    stand.cont(0);
    sleep_until_woken(&log);
    log.append(&entry).unwrap();
    wait_copied(&log);
}

fn sleep_until_woken(log: &CopiedLog) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec { tv_sec: 40, tv_nsec: 0 };
    let wake = log.wake_fd().unwrap();
    assert_eq!(
        poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&patience)).unwrap(),
        1,
        "{:?}",
        log.state()
    );
}

#[test]
fn nothing_is_let_go_that_etcd_lacks_and_snapshots_wait_for_the_copy() {
    let (stand, memory, mut log) = first_leader();
    append(&mut log, 0..100);
    wait_copied(&log);
    stand.stop(0);
    append(&mut log, 100..200);
    let used_bytes = log.used_bytes();
    let cursor = log.cursor();
    assert!(log.save_snapshot(&cursor, vec![9; 100_000]).unwrap());
    log.release(&cursor).unwrap();
    assert_eq!(log.used_bytes(), used_bytes, "a successor needs it");
    stand.cont(0);
    wait_until(&log, "kept", || log.state().snapshot == Some(cursor.index));
    append(&mut log, 200..201);
    wait_copied(&log);
    assert!(log.used_bytes() < used_bytes / 10, "{} bytes", log.used_bytes());
    // Its successor starts from the kept snapshot; what lies before it is gone.
    drop(log);
    let mut log = memory.leader(&stand, 2, cursor);
    append(&mut log, 201..202);
    wait_copied(&log);
}

#[test]
fn a_copy_that_is_not_the_logs_is_told_and_begun_anew() {
    let (stand, memory) = (stand(1), Memory::new());
    let mut foreign = engine(&options(&stand));
    lead(&mut foreign, 1, &mut Vec::new());
    crate::rig::append(&mut foreign, b"another", &mut Vec::new());
    crate::rig::drain_until(&mut foreign, &mut Vec::new(), |all| all.len() == 1);
    let mut alone = memory.view(Cursor::default());
    alone.lead(Epoch(2)).unwrap();
    alone.append(b"one").unwrap();
    let mut log = memory.leader(&stand, 3, Cursor::default());
    wait_until(&log, "told", || warnings(&log).contains("differs from the log"));
    assert_ne!(log.state().health, EngineHealth::Healthy);
    log.append(b"two").unwrap();
    wait_copied(&log);
    assert!(!warnings(&log).contains("anew"), "{:?}", log.state());
    check_copy_of(&stand, &log, &[b"one".to_vec(), b"two".to_vec()]);
}

fn warnings(log: &CopiedLog) -> String {
    log.state().warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The log does not go back to its first entry: the new copy needs a snapshot, asks for it, and can be read then.
#[test]
fn a_damaged_copy_of_a_log_that_was_let_go_is_begun_anew_with_a_snapshot() {
    let (stand, memory, mut log) = first_leader();
    append(&mut log, 0..100);
    wait_copied(&log);
    let kept = log.cursor();
    log.save_snapshot(&kept, b"the first".to_vec()).unwrap();
    wait_until(&log, "kept", || log.state().snapshot == Some(kept.index));
    log.release(&kept).unwrap();
    append(&mut log, 100..150);
    wait_copied(&log);
    let from = log.cursor();
    drop(log);
    damage_last_batch(&stand);
    let mut log = memory.leader(&stand, 2, from);
    wait_until(&log, "told", || warnings(&log).contains("anew"));
    append(&mut log, 150..160);
    wait_copied(&log);
    wait_until(&log, "a snapshot is wanted", || log.used_bytes() >= log.capacity_bytes() / 2);
    assert!(warnings(&log).contains("anew"), "until then it cannot be read by itself");
    let kept = log.cursor();
    log.save_snapshot(&kept, b"the second".to_vec()).unwrap();
    wait_until(&log, "kept", || log.state().snapshot == Some(kept.index));
    wait_until(&log, "well", || !warnings(&log).contains("anew"));
    append(&mut log, 160..170);
    wait_copied(&log);
    let mut reader = engine(&options(&stand));
    let Loaded::Snapshot { cursor, bytes } = load(&mut reader) else { panic!("no snapshot") };
    assert_eq!((cursor.index, bytes), (kept.index, b"the second".to_vec()));
    let mut tail = Vec::new();
    crate::rig::drain_until(&mut reader, &mut tail, |all| all.len() == 10);
    assert_eq!(tail, (160..170).map(numbered).collect::<Vec<_>>());
    assert_eq!(reader.cursor().hash, log.cursor().hash);
}

fn damage_last_batch(stand: &EtcdStand) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect(stand.endpoints(), None).await.unwrap();
        let keys = etcd_client::GetOptions::new().with_prefix();
        let found = client.get("/ppvmm/test/log/", Some(keys)).await.unwrap();
        let last = found.kvs().last().unwrap();
        let mut value = last.value().to_vec();
        *value.last_mut().unwrap() ^= 1;
        client.put(last.key(), value, None).await.unwrap();
    });
}

/// A note that was lost where the log was let go: nobody knows how far the copy goes.
#[test]
fn without_a_note_the_copy_is_begun_anew() {
    let (stand, memory, mut log) = first_leader();
    append(&mut log, 0..100);
    wait_copied(&log);
    let kept = log.cursor();
    log.release(&kept).unwrap();
    append(&mut log, 100..101);
    wait_copied(&log);
    let from = log.cursor();
    drop(log);
    let note = 64;
    for half in [0, LOG_BYTES / 2] {
        memory.0.write(half + note, &[0xff; 64]);
    }
    let mut log = memory.leader(&stand, 2, from);
    append(&mut log, 101..110);
    wait_copied(&log);
    wait_until(&log, "a snapshot is wanted", || log.used_bytes() >= log.capacity_bytes() / 2);
}
