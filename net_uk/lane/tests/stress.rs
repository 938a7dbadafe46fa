//! Two threads at full speed, asleep whenever there is nothing to do.

use std::sync::Arc;
use std::thread;

use hypervisor::Region;
use lane::limits::FRAME_BYTES_MAX;
use lane::{FrameMeta, FrameRing};

const FRAMES: u32 = 200_000;

fn length_of(seq: u32) -> usize {
    match seq % 1000 {
        0 => FRAME_BYTES_MAX,
        1..50 => 2048 + seq as usize % 3000,
        _ => 1 + seq as usize % 200,
    }
}

fn fill(seq: u32, bytes: &mut [u8]) {
    for (at, chunk) in (0u32..).zip(bytes.chunks_mut(4)) {
        chunk.copy_from_slice(&(seq ^ at << 16).to_le_bytes()[..chunk.len()]);
    }
}

#[test]
fn two_threads_pass_every_frame_once() {
    let region = Arc::new(Region::create("stress", FrameRing::bytes(128)).unwrap());
    let ring = FrameRing::create(region, 0, 128).unwrap();
    let mut producer = ring.producer().unwrap();
    let mut consumer = ring.consumer().unwrap();
    let taker = thread::current();
    let giver = thread::spawn(move || {
        let mut bytes = vec![0; FRAME_BYTES_MAX];
        for seq in 0..FRAMES {
            let frame = &mut bytes[..length_of(seq)];
            fill(seq, frame);
            let meta = FrameMeta { source: 1, seq, ..FrameMeta::default() };
            while !producer.push(frame, &meta).unwrap() {
                let slots = u32::try_from(frame.len().div_ceil(2048)).unwrap();
                while producer.prepare_sleep(slots).unwrap() {
                    thread::park();
                }
            }
            if producer.needs_wake() {
                taker.unpark();
            }
        }
    });
    let mut expected = vec![0; FRAME_BYTES_MAX];
    for seq in 0..FRAMES {
        let frame = loop {
            match consumer.peek().unwrap() {
                Some(frame) => break frame,
                None if consumer.prepare_sleep().unwrap() => thread::park(),
                None => {}
            }
        };
        let expected = &mut expected[..length_of(seq)];
        fill(seq, expected);
        assert_eq!((frame.number(), frame.meta().seq), (seq, seq));
        assert!(consumer.bytes_of(&frame) == *expected, "frame {seq}");
        consumer.advance(&frame);
        // In batches, but never asleep on frames that were passed and not taken off.
        if seq % 4 == 3 || consumer.backlog_slots().unwrap() == 0 {
            consumer.commit();
            if consumer.needs_wake() {
                giver.thread().unpark();
            }
        }
    }
    giver.join().unwrap();
    assert_eq!(consumer.peek(), Ok(None));
}

/// A producer that writes random bytes over the whole ring: errors or frames within bounds, never a panic.
#[test]
fn random_memory_never_breaks_the_consumer() {
    let region = Arc::new(Region::create("noise", FrameRing::bytes(64)).unwrap());
    let ring = FrameRing::create(region.clone(), 0, 64).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut frames, mut errors) = (0, 0);
    for _ in 0..20_000 {
        let Ok(mut consumer) = ring.consumer() else {
            region.write(128, &region_word(&region, 256));
            continue;
        };
        let mut producer = ring.producer().unwrap();
        for seq in 0..3 {
            producer.push(&[7; 3000], &FrameMeta { seq, ..FrameMeta::default() }).unwrap_or(false);
        }
        for _ in 0..random.u32(0..4) {
            // The indices or the descriptors.
            let at = if random.u8(..) < 20 { 128 + random.usize(..8) } else { 512 + random.usize(..64 * 32) };
            region.write(at, &[random.u8(..)]);
        }
        for _ in 0..64 {
            match consumer.peek() {
                Ok(Some(frame)) => {
                    assert!(frame.length_bytes() <= FRAME_BYTES_MAX);
                    consumer.bytes_of(&frame);
                    consumer.release(&frame);
                    frames += 1;
                }
                Ok(None) => break,
                Err(_) => {
                    errors += 1;
                    region.write(128, &region_word(&region, 256));
                    break;
                }
            }
        }
    }
    assert!(frames > 10_000 && errors > 500, "{frames} frames, {errors} errors");
}

fn region_word(region: &Region, at: usize) -> [u8; 8] {
    let mut word = [0; 8];
    region.read(at, &mut word);
    word
}
