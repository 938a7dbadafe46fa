//! The core against a model of etcd, with an unkind network.
//!
//! Goal: whatever happens to calls (lost before or after they took effect, late, done twice, long after their caller
//! gave up), no entry is lost, doubled or reordered, and once the network is kind again everything goes on. Method:
//! several cores share one model; a random script appends, promotes, snapshots, and delivers or spoils calls.

mod etcd;
mod world;

use proptest::prelude::*;
use xs_consensus::limits::ENTRY_BYTES_MAX;
use xs_consensus::{Cursor, Index, LogError};

use crate::limits::{
    BATCH_ENTRIES_MAX, PAGE_BATCHES_MAX, QUEUE_BYTES_MAX, QUEUE_ENTRIES_MAX, TRIM_ENTRIES_MAX,
};
use world::{Fault, Step, World};

#[test]
fn the_queue_is_bounded_in_entries_and_in_bytes() {
    for (bytes, most) in [(0, QUEUE_ENTRIES_MAX), (ENTRY_BYTES_MAX, QUEUE_BYTES_MAX / ENTRY_BYTES_MAX)] {
        let mut world = World::leading(u64::MAX);
        let entry = vec![0; bytes];
        for i in 0..most {
            assert_eq!(world.core().append(&entry).unwrap(), Index(i as u64 + 1));
        }
        assert!(matches!(world.core().append(&entry), Err(LogError::Busy { queued }) if queued == most));
        // What came back counts until it is taken.
        world.deliver_all();
        assert!(matches!(world.core().append(&entry), Err(LogError::Busy { .. })));
        world.core().next(&mut Vec::new()).unwrap();
        world.core().append(&entry).unwrap();
    }
}

#[test]
fn entries_the_log_and_snapshots_have_their_bounds() {
    let mut world = World::leading(1000);
    let too_large = vec![0; ENTRY_BYTES_MAX + 1];
    assert!(matches!(world.core().append(&too_large), Err(LogError::TooLarge { .. })));
    world.core().append(&[0; 1000]).unwrap();
    let full = world.core().append(b"x");
    assert!(matches!(full, Err(LogError::Full { capacity_bytes: 1000, .. })), "{full:?}");
    world.deliver_all();
    assert!(world.core().next(&mut Vec::new()).unwrap().is_some());
    let cursor = world.core().cursor();
    let ahead = Cursor { index: Index(2), ..cursor };
    assert!(matches!(world.core().save_snapshot(&ahead, Vec::new()), Err(LogError::Engine { .. })));
    world.core().save_snapshot(&cursor, Vec::new()).unwrap();
    assert!(matches!(world.core().save_snapshot(&cursor, Vec::new()), Err(LogError::Busy { .. })));
    world.deliver_all();
    world.core().append(b"x").unwrap();
}

#[test]
fn nothing_committed_for_too_long_refuses_appends_until_something_is() {
    let mut world = World::leading(u64::MAX);
    world.core().append(b"first").unwrap();
    world.step(&Step::Wait { ms: 0 });
    world.step(&Step::Wait { ms: 1999 });
    world.core().append(b"second").unwrap();
    world.step(&Step::Wait { ms: 1 });
    let refused = world.core().append(b"third");
    assert!(matches!(refused, Err(LogError::Unavailable { waited_ms: 2000 })), "{refused:?}");
    world.deliver_all();
    world.core().append(b"third").unwrap();
}

#[test]
fn a_follower_without_a_watch_looks_when_it_expects_more_and_when_it_polls() {
    let mut world = World::without_watch();
    let mut entry = Vec::new();
    world.core().append(b"a").unwrap();
    world.deliver_all();
    assert_eq!(world.follower().next(&mut entry).unwrap(), None);
    world.follower().expect_more();
    world.deliver_all();
    assert_eq!(world.follower().next(&mut entry).unwrap(), Some(Index(1)));
    world.core().append(b"b").unwrap();
    world.deliver_all();
    assert_eq!(world.follower().next(&mut entry).unwrap(), None);
    world.step(&Step::Wait { ms: 300 });
    world.deliver_all();
    assert_eq!(world.follower().next(&mut entry).unwrap(), Some(Index(2)));
}

/// More than a page and more than one call trims, so that paging and trimming go on where they were.
#[test]
fn long_logs_are_read_in_pages_and_trimmed_in_pieces() {
    let mut world = World::leading(u64::MAX);
    let total = 2 * TRIM_ENTRIES_MAX + 5;
    assert!(total > BATCH_ENTRIES_MAX as u64 * u64::from(PAGE_BATCHES_MAX));
    for half in 0..2 {
        while world.core().cursor().index.0 < total * (half + 1) {
            while world.core().append(b"").is_ok() {}
            world.deliver_all();
            while world.core().next(&mut Vec::new()).unwrap().is_some() {}
        }
        let cursor = world.core().cursor();
        if half == 0 {
            world.read_all(cursor);
        }
        world.core().save_snapshot(&cursor, Vec::new()).unwrap();
        world.deliver_all();
    }
    assert!(world.first_key_index() > total, "what the snapshot before the last covers is gone");
}

fn step() -> impl Strategy<Value = Step> {
    let engine = 0_usize..3;
    let fault = prop_oneof![
        8 => Just(Fault::None),
        2 => Just(Fault::LostBefore),
        2 => Just(Fault::LostAfter),
        1 => Just(Fault::Twice),
        2 => Just(Fault::Held),
        2 => (1_usize..12).prop_map(Fault::Stale),
        1 => Just(Fault::NoSpace),
    ];
    prop_oneof![
        12 => (engine.clone(), 1_usize..5).prop_map(|(engine, count)| Step::Append { engine, count }),
        2 => engine.clone().prop_map(|engine| Step::Lead { engine }),
        40 => (any::<prop::sample::Index>(), fault).prop_map(|(call, fault)| Step::Deliver { call, fault }),
        6 => engine.clone().prop_map(|engine| Step::Read { engine }),
        3 => engine.clone().prop_map(|engine| Step::Save { engine }),
        3 => any::<prop::sample::Index>().prop_map(|held| Step::LetGo { held }),
        2 => engine.clone().prop_map(|engine| Step::EndWatch { engine }),
        2 => (engine, any::<bool>()).prop_map(|(engine, load)| Step::Restart { engine, load }),
        6 => (1_u64..700).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new(3);
        for step in &steps {
            world.step(step);
        }
        world.heal_and_check();
    }
}
