//! Several views of one log: the leader's, followers', successors'.

use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;

const SMALL_BYTES: usize = LOG_HEADER_BYTES + 2 * ENTRY_BYTES_MAX;

fn region(length_bytes: usize) -> Region {
    Region::create("log", length_bytes).unwrap()
}

fn view(region: &Region, from: Cursor) -> Embedded {
    let fd = region.as_fd().try_clone_to_owned().unwrap();
    Embedded::attach(Region::open(fd, LOG_HEADER_BYTES).unwrap(), from).unwrap()
}

fn leader(region: &Region, epoch: u64) -> Embedded {
    let mut engine = view(region, Cursor::default());
    engine.lead(Epoch(epoch)).unwrap();
    drain(&mut engine).unwrap();
    engine
}

fn drain(engine: &mut Embedded) -> Result<Vec<Vec<u8>>, LogError> {
    let (mut all, mut entry) = (Vec::new(), Vec::new());
    while engine.next(&mut entry)?.is_some() {
        all.push(entry.clone());
    }
    Ok(all)
}

#[test]
fn a_follower_reads_what_the_leader_appended() {
    let region = region(SMALL_BYTES);
    let (mut leader, mut follower) = (leader(&region, 1), view(&region, Cursor::default()));
    assert_eq!(leader.append(b"one").unwrap(), Appended::Committed(Index(1)));
    assert_eq!(leader.append(b"").unwrap(), Appended::Committed(Index(2)));
    assert_eq!(drain(&mut follower).unwrap(), vec![b"one".to_vec(), vec![]]);
    assert_eq!(follower.cursor(), leader.cursor());
}

#[test]
fn an_old_epoch_is_fenced_and_only_a_leader_appends() {
    let region = region(SMALL_BYTES);
    let mut old = leader(&region, 1);
    let mut new = leader(&region, 2);
    assert!(matches!(old.append(b"x"), Err(LogError::Fenced { ours: 1, newer: 2 })));
    assert!(matches!(view(&region, Cursor::default()).append(b"x"), Err(LogError::NotLeading)));
    assert!(matches!(view(&region, Cursor::default()).lead(Epoch(1)), Err(LogError::Fenced { .. })));
    new.append(b"x").unwrap();
}

#[test]
fn a_new_leader_reads_before_it_appends() {
    let region = region(SMALL_BYTES);
    leader(&region, 1).append(b"x").unwrap();
    let mut new = view(&region, Cursor::default());
    new.lead(Epoch(2)).unwrap();
    assert!(matches!(new.append(b"y"), Err(LogError::Behind { cursor: 0 })));
    drain(&mut new).unwrap();
    assert_eq!(new.append(b"y").unwrap(), Appended::Committed(Index(2)));
}

#[test]
fn an_entry_that_was_being_written_when_its_leader_died_does_not_count() {
    let region = region(SMALL_BYTES);
    let mut old = leader(&region, 1);
    old.append(b"kept").unwrap();
    let tail = old.tail();
    old.append(b"half").unwrap();
    old.word(WORD_TAIL).store(tail, Ordering::Release);
    let mut new = leader(&region, 2);
    new.append(b"after").unwrap();
    assert_eq!(
        drain(&mut view(&region, Cursor::default())).unwrap(),
        vec![b"kept".to_vec(), b"after".to_vec()]
    );
}

#[test]
fn the_bounds_are_reached_and_kept() {
    let region = region(SMALL_BYTES);
    let mut leader = leader(&region, 1);
    assert!(matches!(leader.append(&[0; ENTRY_BYTES_MAX + 1]), Err(LogError::TooLarge { .. })));
    leader.append(&[1; ENTRY_BYTES_MAX]).unwrap();
    let released = leader.cursor();
    assert!(matches!(leader.append(&[2; ENTRY_BYTES_MAX]), Err(LogError::Full { .. })));
    leader.release(&released).unwrap();
    leader.append(&[2; ENTRY_BYTES_MAX]).unwrap();
    assert!(matches!(drain(&mut view(&region, Cursor::default())), Err(LogError::Overrun { index: 1 })));
    assert_eq!(drain(&mut view(&region, released)).unwrap(), vec![vec![2; ENTRY_BYTES_MAX]]);
}

#[test]
fn a_flipped_bit_anywhere_in_an_entry_is_found() {
    let region = region(SMALL_BYTES);
    leader(&region, 1).append(b"payload").unwrap();
    for offset in 0..ENTRY_HEADER_BYTES + 7 {
        let mut byte = [0];
        region.read(LOG_HEADER_BYTES + offset, &mut byte);
        region.write(LOG_HEADER_BYTES + offset, &[byte[0] ^ 4]);
        let found = drain(&mut view(&region, Cursor::default()));
        assert!(matches!(found, Err(LogError::Corrupt { index: 1, .. })), "offset {offset}: {found:?}");
        region.write(LOG_HEADER_BYTES + offset, &byte);
    }
    assert_eq!(drain(&mut view(&region, Cursor::default())).unwrap().len(), 1);
}

#[test]
fn memory_of_another_version_is_refused() {
    let region = region(SMALL_BYTES);
    region.u64(WORD_VERSION).store(2, Ordering::Release);
    let fd = region.as_fd().try_clone_to_owned().unwrap();
    let attached = Embedded::attach(Region::open(fd, 1).unwrap(), Cursor::default());
    assert!(matches!(attached, Err(LogError::Corrupt { .. })));
}

proptest! {
    /// Entries of any size, over many turns of the ring, with snapshots and new leaders at any place: a follower
    /// reads exactly what was appended.
    #[test]
    fn followers_read_what_was_appended(sizes in prop::collection::vec(0_usize..9000, 1..120)) {
        let region = region(SMALL_BYTES);
        let mut leader = leader(&region, 1);
        let mut follower = view(&region, Cursor::default());
        let mut snapshot = Cursor::default();
        for (i, size) in sizes.into_iter().enumerate() {
            let entry = vec![u8::try_from(i % 251).unwrap(); size];
            if i % 17 == 16 {
                let mut next = view(&region, snapshot);
                next.lead(Epoch(i as u64)).unwrap();
                drain(&mut next).unwrap();
                leader = next;
            }
            leader.append(&entry).unwrap();
            prop_assert_eq!(drain(&mut follower).unwrap(), vec![entry]);
            prop_assert_eq!(follower.cursor(), leader.cursor());
            if leader.used_bytes() > 60_000 {
                snapshot = follower.cursor();
                leader.release(&snapshot).unwrap();
            }
        }
    }
}
