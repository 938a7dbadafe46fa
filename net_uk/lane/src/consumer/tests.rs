use super::*;
use crate::descriptor::RawDescriptor;
use crate::frame::{FrameFlags, FrameMeta};
use crate::testing::{frame_of, label, ring};

fn slot(length_bytes: usize, more: bool) -> Descriptor {
    Descriptor { length_bytes, more, number: 0, meta: FrameMeta::default() }
}

fn write(ring: &FrameRing, position: u32, index: u32, descriptor: Descriptor) {
    let length_bytes = descriptor.length_bytes.min(2048);
    let raw = ring.summed(position, descriptor.encode(position), index, length_bytes);
    ring.write_descriptor(position, raw);
}

/// What a consumer says to one published frame with these descriptors.
fn fault_of(slots: &[Descriptor]) -> DescriptorFault {
    let ring = ring(64);
    for (position, descriptor) in (0..).zip(slots) {
        write(&ring, position, position, *descriptor);
    }
    ring.publish(Cursor { frames: 1, slots: u32::try_from(slots.len()).unwrap() });
    match ring.consumer().unwrap().peek() {
        Err(LaneError::Descriptor { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_that_make_no_sense_are_told() {
    let other = Descriptor { meta: label(0, 1), ..slot(9, false) };
    assert_eq!(fault_of(&[slot(2048, true)]), DescriptorFault::Unfinished);
    assert_eq!(fault_of(&[slot(2048, true), other]), DescriptorFault::Mixed);
    assert_eq!(fault_of(&[slot(2047, true), slot(1, false)]), DescriptorFault::Gap);
    assert_eq!(fault_of(&[slot(2049, false)]), DescriptorFault::Length);
    let mut long = [slot(2048, true); 33];
    long[32] = slot(27, false);
    assert_eq!(fault_of(&long), DescriptorFault::TooLong);
}

#[test]
fn the_longest_frame_comes_through() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    let mut consumer = ring.consumer().unwrap();
    for seq in 0..5 {
        let bytes = frame_of(seq, FRAME_BYTES_MAX);
        assert!(producer.push(&bytes, &label(1, seq)).unwrap());
        let frame = consumer.peek().unwrap().unwrap();
        assert_eq!(consumer.bytes_of(&frame), bytes);
        assert_eq!(frame.slots as usize, crate::limits::FRAME_SLOTS_MAX);
        consumer.release(&frame);
    }
}

#[test]
fn nonsense_indices_are_told_at_each_use() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    let mut consumer = ring.consumer().unwrap();
    ring.publish(Cursor { frames: 1, slots: 65 });
    assert!(matches!(consumer.peek(), Err(LaneError::Indices { .. })));
    assert!(matches!(consumer.prepare_sleep(), Err(LaneError::Indices { .. })));
    assert!(matches!(ring.consumer(), Err(LaneError::Indices { .. })));
    ring.publish(Cursor::default());
    ring.take_off(Cursor { frames: 1, slots: 1 });
    assert!(matches!(producer.room_slots(), Err(LaneError::Indices { .. })));
    assert!(matches!(producer.prepare_sleep(1), Err(LaneError::Indices { .. })));
    assert!(matches!(ring.producer(), Err(LaneError::Indices { .. })));
}

#[test]
fn frames_and_slots_must_end_together() {
    // One frame is announced in two slots, but the descriptors make two of it.
    let ring = ring(64);
    for position in 0..2 {
        write(&ring, position, 0, Descriptor { number: position, ..slot(1, false) });
    }
    ring.publish(Cursor { frames: 1, slots: 2 });
    let mut consumer = ring.consumer().unwrap();
    let frame = consumer.peek().unwrap().unwrap();
    consumer.advance(&frame);
    assert!(matches!(consumer.peek(), Err(LaneError::Indices { .. })));
}

#[test]
fn unknown_flags_and_stale_descriptors_are_told() {
    let ring = ring(64);
    ring.write_descriptor(0, RawDescriptor([1 | 1 << 30, 0, 0, 0]));
    ring.publish(Cursor { frames: 1, slots: 1 });
    let fault = |fault| Err(LaneError::Descriptor { slot: 0, fault });
    assert_eq!(ring.consumer().unwrap().peek(), fault(DescriptorFault::Flags));
    ring.write_descriptor(0, slot(1, false).encode(64));
    assert_eq!(ring.consumer().unwrap().peek(), fault(DescriptorFault::Position));
    write(&ring, 0, 0, Descriptor { number: 5, ..slot(1, false) });
    assert_eq!(ring.consumer().unwrap().peek(), fault(DescriptorFault::Number));
}

fn twice(consumer: &mut Consumer) -> Option<Frame> {
    consumer.next_good().or_else(|_| consumer.next_good()).unwrap()
}

#[test]
fn a_frame_that_fits_is_copied_and_checked_where_it_is_to_be() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    let mut consumer = ring.consumer().unwrap();
    let mut room = [0; 100];
    for (seq, (length, fits)) in (0..).zip([(100, true), (101, false), (5000, false), (1, true)]) {
        producer.push(&frame_of(seq, length), &label(1, seq)).unwrap();
        let (frame, there) = consumer.next_good_in(&mut room).unwrap().unwrap();
        assert_eq!((frame.number(), there), (seq, fits));
        let bytes = if there { room[..length].to_vec() } else { consumer.bytes_of(&frame) };
        assert_eq!(bytes, frame_of(seq, length));
        consumer.release(&frame);
    }
    assert_eq!(consumer.next_good_in(&mut room), Ok(None));
    assert_eq!(consumer.next_good_in(&mut []), Ok(None));
}

/// The first look may be spoilt by an index that ran ahead, so such a frame is passed over at the second one only, and the
/// one behind it is good, whether it fits or not.
#[test]
fn a_damaged_frame_that_fits_is_passed_over_as_any_other() {
    for length in [60, 5000] {
        let ring = ring(64);
        let mut producer = ring.producer().unwrap();
        producer.push(&frame_of(0, 60), &label(1, 0)).unwrap();
        producer.push(&frame_of(1, length), &label(1, 1)).unwrap();
        ring.region().u64(4096).fetch_xor(1, std::sync::atomic::Ordering::Relaxed);
        let (mut consumer, mut room) = (ring.consumer().unwrap(), [0; 100]);
        assert!(matches!(consumer.next_good_in(&mut room), Err(LaneError::Descriptor { .. })));
        let (frame, there) = consumer.next_good_in(&mut room).unwrap().unwrap();
        assert_eq!((frame.number(), there, consumer.take_damaged()), (1, false, 1));
        assert_eq!(consumer.bytes_of(&frame), frame_of(1, length));
    }
}

#[test]
fn an_index_that_ran_ahead_harms_no_frame() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    producer.push(&[1], &label(1, 0)).unwrap();
    ring.publish(Cursor { frames: 3, slots: 5 });
    let mut consumer = ring.consumer().unwrap();
    let frame = consumer.next_good().unwrap().unwrap();
    consumer.release(&frame);
    assert!(matches!(consumer.next_good(), Err(LaneError::Descriptor { .. })));
    assert!(producer.reassert());
    assert_eq!(consumer.next_good(), Ok(None));
    producer.push(&[1], &label(1, 1)).unwrap();
    let frame = consumer.next_good().unwrap().unwrap();
    assert_eq!((frame.number(), consumer.take_damaged()), (1, 0));
}

/// Whatever bit flips between writer and reader, frames that come are those that were written, in their order, and the
/// rest is counted.
#[test]
fn a_flipped_bit_costs_the_frames_that_it_hits_and_is_counted() {
    let lengths = [60, 5000, 1, 2048, 300, 9000, 60];
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..4000 {
        let ring = ring(64);
        let mut producer = ring.producer().unwrap();
        for (seq, length) in (0..).zip(lengths) {
            producer.push(&frame_of(seq, length), &label(1, seq)).unwrap();
        }
        let (descriptors, buffers) = (512..512 + 13 * 32, 4096..4096 + 13 * 2048);
        let at = if rng.bool() { rng.usize(descriptors) } else { rng.usize(buffers) } & !7;
        let bit = 1 << rng.u32(0..64);
        ring.region().u64(at).fetch_xor(bit, std::sync::atomic::Ordering::Relaxed);
        let mut consumer = ring.consumer().unwrap();
        let (mut came, mut last) = (0, None);
        while let Some(frame) = twice(&mut consumer) {
            let seq = frame.meta().seq;
            assert!(last.is_none_or(|last| last < seq) && frame.number() == seq);
            assert_eq!(consumer.bytes_of(&frame), frame_of(seq, lengths[seq as usize]));
            consumer.release(&frame);
            (came, last) = (came + 1, Some(seq));
        }
        let damaged = consumer.take_damaged();
        assert_eq!(came + damaged, 7, "at {at}, bit {bit:#x}");
        // The rest of a slot behind a short frame means nothing.
        assert!(damaged <= 1, "at {at}, bit {bit:#x}: {damaged}");
        consumer.commit();
        assert_eq!((consumer.committed().slots, consumer.backlog_slots()), (13, Ok(0)));
    }
}

#[test]
fn an_own_index_that_something_changed_is_written_again() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    producer.push(&[1], &label(1, 0)).unwrap();
    let mut consumer = ring.consumer().unwrap();
    assert!(!producer.reassert() && !consumer.reassert());
    ring.publish(Cursor { frames: 9, slots: 1 << 20 });
    ring.take_off(Cursor { frames: 9, slots: 7 });
    assert!(producer.room_slots().is_err() && consumer.backlog_slots().is_err());
    assert!(producer.reassert() && consumer.reassert());
    assert_eq!((producer.room_slots(), consumer.backlog_slots()), (Ok(63), Ok(1)));
}

#[test]
fn passed_frames_come_again_after_a_rewind_and_to_a_successor() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    for seq in 0..3 {
        producer.push(&[1], &FrameMeta { flags: FrameFlags::CSUM_VALID, ..label(1, seq) }).unwrap();
    }
    let mut consumer = ring.consumer().unwrap();
    for seq in 0..3 {
        let frame = consumer.peek().unwrap().unwrap();
        assert_eq!(frame.meta().seq, seq);
        consumer.advance(&frame);
    }
    assert_eq!(consumer.peek(), Ok(None));
    consumer.rewind();
    assert_eq!(consumer.peek().unwrap().unwrap().number(), 0);
    assert_eq!(ring.consumer().unwrap().peek().unwrap().unwrap().number(), 0);
}

#[test]
fn it_sleeps_only_with_nothing_to_do() {
    let ring = ring(64);
    let mut producer = ring.producer().unwrap();
    let mut consumer = ring.consumer().unwrap();
    assert!(!producer.needs_wake());
    assert!(consumer.prepare_sleep().unwrap());
    producer.push(&[1], &label(1, 1)).unwrap();
    assert!(producer.needs_wake());
    assert!(!consumer.prepare_sleep().unwrap());
    assert!(!producer.needs_wake());
    consumer.ring.consumer_sleeps().set();
    consumer.awake();
    assert!(!producer.needs_wake());
}
