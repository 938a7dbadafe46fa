//! etcd's size: bounded by snapshots; a quota that is used up.

use std::time::{Duration, Instant};

use etcd_stand::{EtcdStand, StandOptions};
use xs_consensus::{Consensus, EngineWarning, LogError};
use xs_etcd::EtcdLog;

use crate::rig::{PATIENCE, append, drain, drain_until, engine, lead, options, save, sleep_on, stand};

const MIB: u64 = 1 << 20;

#[test]
fn the_size_of_etcd_stays_bounded_over_many_appends_and_snapshots() {
    let stand = stand(1);
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    let (mut appended_bytes, mut used_bytes_max) = (0, 0);
    for _ in 0..24 {
        let total = ours.len() + 64;
        for _ in 0..64 {
            append(&mut leader, &[5; 60_000], &mut ours);
            appended_bytes += 60_000;
        }
        drain_until(&mut leader, &mut ours, |all| all.len() == total);
        save(&mut leader, vec![6; 1 << 20]);
        let seen = Instant::now();
        while seen.elapsed() < Duration::from_millis(700) {
            sleep_on(&leader);
            drain(&mut leader, &mut ours).unwrap();
        }
        used_bytes_max = used_bytes_max.max(leader.state().members[0].db_used_bytes);
    }
    // Two rounds of the log, two snapshots, and what is in the way of being deleted.
    assert!(appended_bytes > 80 * MIB, "{appended_bytes}");
    assert!(used_bytes_max > 0 && used_bytes_max < 24 * MIB, "{used_bytes_max}");
}

#[test]
fn a_quota_that_is_used_up_refuses_appends_until_room_is_made() {
    let quota = StandOptions { quota_bytes: Some(32 * MIB), ..StandOptions::default() };
    let stand = EtcdStand::start_in_memory(1, quota).unwrap();
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    // Live data that only a stranger can remove: making room by itself does not help at first.
    let ballast = ballast(&stand.endpoints(), 28);
    let began = Instant::now();
    let mut submitted = 0;
    loop {
        assert!(began.elapsed() < PATIENCE, "{:?}", leader.state());
        match leader.append(&[1; 60_000]) {
            // Not at full speed: etcd looks at its file's size ten times a second only, and the log alone, which no
            // snapshot lets go here, must not exceed the quota.
            Ok(_) => {
                submitted += 1;
                std::thread::sleep(Duration::from_millis(4));
            }
            Err(LogError::Busy { .. }) => sleep_on(&leader),
            Err(LogError::Unavailable { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        drain(&mut leader, &mut ours).unwrap();
    }
    assert!(leader.state().warnings.contains(&EngineWarning::NoSpace), "{:?}", leader.state());
    assert!(submitted * 60_000 < 24 << 20, "{submitted} entries");
    ballast.remove();
    let removed = Instant::now();
    drain_until(&mut leader, &mut ours, |all| all.len() == submitted);
    append(&mut leader, b"after", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.last().is_some_and(|entry| entry == b"after"));
    assert_eq!(ours.len(), submitted + 1);
    room_again(&leader, removed);
}

/// As long as its file is that large, etcd 3.4 refuses transactions that only read, too.
#[test]
fn an_etcd_that_is_full_to_the_brim_has_room_again_once_something_is_deleted() {
    let quota = StandOptions { quota_bytes: Some(16 * MIB), ..StandOptions::default() };
    let stand = EtcdStand::start_in_memory(1, quota).unwrap();
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    let mut ballast = ballast(&stand.endpoints(), 13);
    ballast.fill_to_the_brim();
    append(&mut leader, b"waits", &mut ours);
    let began = Instant::now();
    while !leader.state().warnings.contains(&EngineWarning::NoSpace) {
        assert!(began.elapsed() < PATIENCE, "{:?}", leader.state());
        sleep_on(&leader);
    }
    // Long enough for a first, vain attempt to make room.
    std::thread::sleep(Duration::from_secs(1));
    assert!(ours.is_empty());
    ballast.remove();
    let removed = Instant::now();
    drain_until(&mut leader, &mut ours, |all| all.len() == 1);
    room_again(&leader, removed);
}

/// The attempt under way ends in vain, a pause, one that succeeds, a pause without complaints; all of it on a slow disk.
const ROOM_WAIT: Duration = Duration::from_secs(15);

fn room_again(leader: &EtcdLog, removed: Instant) {
    while leader.state().warnings.contains(&EngineWarning::NoSpace) {
        assert!(removed.elapsed() < ROOM_WAIT, "{:?}", leader.state());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(removed.elapsed() < ROOM_WAIT, "{:?}", removed.elapsed());
}

struct Ballast(tokio::runtime::Runtime, etcd_client::Client);

fn ballast(endpoints: &[String], mib: u64) -> Ballast {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let mut client = etcd_client::Client::connect(endpoints, None).await.unwrap();
        for i in 0..mib {
            // A file grows by more than what is put into it, so the quota may be used up a little earlier.
            if client.put(format!("ballast{i}"), vec![0; 1 << 20], None).await.is_err() {
                assert!(i + 4 >= mib, "only {i} of {mib} MiB fitted");
                break;
            }
        }
        client
    });
    Ballast(runtime, client)
}

impl Ballast {
    /// Until even the smallest write is refused.
    fn fill_to_the_brim(&mut self) {
        let Self(runtime, client) = self;
        runtime.block_on(async {
            for i in 0.. {
                if client.put(format!("ballast-small{i}"), vec![0; 16 << 10], None).await.is_err() {
                    break;
                }
            }
        });
    }

    fn remove(mut self) {
        let options = etcd_client::DeleteOptions::new().with_prefix();
        self.0.block_on(self.1.delete("ballast", Some(options))).unwrap();
    }
}
