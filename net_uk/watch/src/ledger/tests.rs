//! Examples of losses and duplicates at each tap, and random arrivals against plain counting.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::WatchError;
use crate::limits::SEQUENCE_WINDOW_MAX;

fn arrived(numbers: &[u64], sent: u64) -> Numbers {
    let mut sequence = Sequence::new(64).unwrap();
    for number in numbers {
        let mut payload = [7; 40];
        seal(&mut payload, *number).unwrap();
        sequence.take(&payload);
    }
    sequence.numbers(sent)
}

fn clean(frames: u64) -> Numbers {
    Numbers { unique: frames, ..Numbers::default() }
}

#[test]
fn a_sealed_payload_shows_any_flipped_bit() {
    let mut payload = [0x5a; PAYLOAD_BYTES_MIN + 20];
    seal(&mut payload, 0x0102_0304_0506_0708).unwrap();
    assert_eq!(number_of(&payload), Some(0x0102_0304_0506_0708));
    assert_eq!(payload[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
    for bit in 0..payload.len() * 8 {
        payload[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(number_of(&payload), None);
        payload[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn short_payloads_and_bad_windows_are_refused() {
    let short = seal(&mut [0; PAYLOAD_BYTES_MIN - 1], 0);
    assert!(matches!(short, Err(WatchError::PayloadTooShort { .. })));
    assert_eq!(number_of(&[0; 3]), None);
    assert_eq!(number_of(&[0; 11]), None);
    assert!(Sequence::new(63).is_err());
    assert!(Sequence::new(SEQUENCE_WINDOW_MAX).is_ok());
    assert!(Sequence::new(SEQUENCE_WINDOW_MAX + 1).is_err());
}

#[test]
fn each_kind_is_counted() {
    let numbers = arrived(&[0, 1, 3, 2, 3, 6], 8);
    let expected = Numbers { unique: 5, lost: 3, duplicated: 1, reordered: 1, stale: 0, corrupt: 0 };
    assert_eq!(numbers, expected);
}

#[test]
fn a_leap_beyond_the_window_is_no_long_work() {
    let numbers = arrived(&[0, u64::MAX - 1, 5, u64::MAX], u64::MAX);
    let expected = Numbers { unique: 2, lost: u64::MAX - 2, stale: 1, corrupt: 1, ..Numbers::default() };
    assert_eq!(numbers, expected);
}

fn sent() -> SendTaps {
    SendTaps {
        guest_sent: 100,
        shadow_taken: 100,
        answered_ok: 97,
        answered_error: 1,
        answered_dropped: 2,
        elsewhere: 7,
        lane_pushed: 90,
        driver_sent: 90,
        nic_sent: 90,
        peer: clean(90),
        ..SendTaps::default()
    }
}

fn received() -> ReceiveTaps {
    ReceiveTaps {
        peer_sent: 100,
        nic_received: 98,
        nic_dropped: 2,
        driver_taken: 98,
        driver_dropped: 3,
        lane_pushed: 95,
        shadow_taken: 95,
        dropped_no_slots: 4,
        filtered: 1,
        given: 90,
        guest: clean(90),
        ..ReceiveTaps::default()
    }
}

#[test]
fn what_was_counted_or_is_on_its_way_is_not_lost() {
    assert!(sent().balance().is_clean(), "{:?}", sent().balance());
    assert!(received().balance().is_clean(), "{:?}", received().balance());
    let pending = SendTaps { driver_sent: 85, nic_sent: 80, lane_pending: 5, nic_pending: 5, ..sent() };
    let pending = SendTaps { peer: clean(80), ..pending };
    assert!(pending.balance().is_clean(), "{:?}", pending.balance());
}

#[test]
fn a_loss_is_told_with_its_place() {
    let lost = SendTaps { driver_sent: 88, nic_sent: 88, peer: clean(88), ..sent() }.balance();
    assert_eq!(lost.lost, 2);
    assert_eq!(lost.gaps, [Gap { from: Tap::Lane, to: Tap::Driver, lost: 2, duplicated: 0 }]);
    let lost = ReceiveTaps { given: 89, guest: clean(89), ..received() }.balance();
    assert_eq!((lost.lost, lost.counted), (1, 10));
    assert_eq!(lost.gaps, [Gap { from: Tap::Shadow, to: Tap::Answered, lost: 1, duplicated: 0 }]);
}

#[test]
fn a_duplicate_is_told_with_its_place() {
    let peer = Numbers { duplicated: 1, ..clean(90) };
    let twice = SendTaps { nic_sent: 91, peer, ..sent() }.balance();
    assert_eq!((twice.lost, twice.duplicated), (0, 1));
    assert_eq!(twice.gaps, [Gap { from: Tap::Driver, to: Tap::Nic, lost: 0, duplicated: 1 }]);
}

#[test]
fn a_loss_that_a_duplicate_hides_from_the_counters_is_found_by_numbers() {
    let peer = Numbers { unique: 89, duplicated: 1, ..Numbers::default() };
    let balance = SendTaps { peer, ..sent() }.balance();
    assert_eq!((balance.lost, balance.duplicated, balance.gaps.len()), (1, 1, 0));
    assert!(!balance.is_clean());
}

proptest! {
    /// Plain counting of all that arrived.
    #[test]
    fn arrivals_within_the_window_are_counted_exactly(numbers in prop::collection::vec(0..60_u64, 0..300)) {
        let mut seen = BTreeSet::new();
        let mut expected = Numbers::default();
        for number in &numbers {
            let highest = seen.last().copied();
            if !seen.insert(*number) {
                expected.duplicated += 1;
            } else if highest.is_some_and(|highest| highest > *number) {
                expected.reordered += 1;
            }
        }
        expected.unique = seen.len() as u64;
        expected.lost = 60 - expected.unique;
        prop_assert_eq!(arrived(&numbers, 60), expected);
    }

    /// With any numbers: each number below the end arrived, is lost, or is hidden by a stale frame.
    #[test]
    fn nothing_is_counted_twice(steps in prop::collection::vec((0..200_u64, any::<bool>()), 0..300)) {
        let mut at = 0_u64;
        let numbers: Vec<_> = steps.iter().map(|(step, back)| {
            at = if *back { at.saturating_sub(*step) } else { at + step };
            at
        }).collect();
        let sent = numbers.iter().max().map_or(0, |highest| highest + 1);
        let counts = arrived(&numbers, sent);
        prop_assert_eq!(counts.unique + counts.lost, sent);
        prop_assert_eq!(counts.received(), numbers.len() as u64);
        let unique = numbers.iter().collect::<BTreeSet<_>>().len() as u64;
        prop_assert!(counts.unique <= unique && unique <= counts.unique + counts.stale);
    }
}
