//! A ring against a model, with deaths between any two stores.
//!
//! The model: a producer has frames 0, 1, 2, … to append, each exactly once and in order; it learns from the ring's
//! labels where the one before it stopped. A consumer takes them off. An operation is cut after a random number of
//! stores; then a successor attaches. Whatever the cuts, the consumer commits 0, 1, 2, … each once.

use proptest::prelude::*;

use crate::consumer::Consumer;
use crate::cursor::Cursor;
use crate::fate;
use crate::frame::Frame;
use crate::producer::Producer;
use crate::ring::FrameRing;
use crate::testing::{frame_of, label, ring};

const SOURCE: u16 = 5;

#[derive(Debug, Clone)]
enum Step {
    /// Append so many frames of these lengths as one batch; die after so many stores, if given.
    Produce(Vec<usize>, Option<u64>),
    /// Look at up to so many frames and take them off; die after so many stores, if given.
    Consume(usize, Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![8 => 1..100usize, 3 => 2040..2060usize, 1 => 1..=crate::limits::FRAME_BYTES_MAX];
    let death = proptest::option::of(0..30u64);
    prop_oneof![
        (proptest::collection::vec(length, 1..6), death.clone()).prop_map(|(n, d)| Step::Produce(n, d)),
        (1..8usize, death).prop_map(|(n, d)| Step::Consume(n, d)),
    ]
}

struct World {
    ring: FrameRing,
    producer: Producer,
    consumer: Consumer,
    next_seq: u32,
    lengths: Vec<usize>,
    committed: u32,
}

impl World {
    fn new() -> Self {
        let ring = ring(64);
        // Close to the wrap of both counters.
        let start = Cursor { frames: u32::MAX - 9, slots: u32::MAX - 20 };
        ring.publish(start);
        ring.take_off(start);
        let (producer, consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
        Self { ring, producer, consumer, next_seq: 0, lengths: Vec::new(), committed: 0 }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Produce(lengths, death) => {
                if let Some(stores) = death {
                    fate::die_after(*stores);
                }
                self.produce(lengths);
                fate::revive();
                if death.is_some() {
                    self.replace_producer();
                }
            }
            Step::Consume(frames, death) => {
                if let Some(stores) = death {
                    fate::die_after(*stores);
                }
                self.consume(*frames);
                fate::revive();
                if death.is_some() {
                    self.consumer = self.ring.consumer().unwrap();
                }
                self.committed = self.ring.consumed().frames.wrapping_sub(u32::MAX - 9);
            }
        }
    }

    fn produce(&mut self, lengths: &[usize]) {
        let mut reservations = Vec::new();
        for &length in lengths {
            match self.producer.reserve(length).unwrap() {
                Some(reservation) => reservations.push(reservation),
                None => break,
            }
        }
        self.lengths.truncate(self.next_seq as usize);
        for reservation in reservations {
            let seq = u32::try_from(self.lengths.len()).unwrap();
            self.producer.write(&reservation, 0, &frame_of(seq, reservation.length_bytes()));
            self.lengths.push(reservation.length_bytes());
            self.producer.stage(reservation, &label(SOURCE, seq)).unwrap();
        }
        self.producer.publish();
        self.next_seq = u32::try_from(self.lengths.len()).unwrap();
    }

    /// A successor knows the ring only. (The lengths are the test's own knowledge of what was written.)
    fn replace_producer(&mut self) {
        self.producer = self.ring.producer().unwrap();
        self.next_seq = self.producer.last_seqs().get(&SOURCE).map_or(0, |seq| seq + 1);
    }

    fn consume(&mut self, frames: usize) {
        let first = self.consumer.committed().frames.wrapping_sub(u32::MAX - 9);
        for seq in (first..).take(frames) {
            let Some(frame) = self.consumer.peek().unwrap() else { break };
            self.check(&frame, seq);
            self.consumer.advance(&frame);
        }
        self.consumer.commit();
    }

    fn check(&self, frame: &Frame, seq: u32) {
        assert_eq!(frame.meta(), &label(SOURCE, seq));
        assert_eq!(frame.length_bytes(), self.lengths[seq as usize]);
        assert_eq!(self.consumer.bytes_of(frame), frame_of(seq, frame.length_bytes()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_frame_comes_once_whatever_dies(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            prop_assert!(world.committed <= world.next_seq);
        }
        for _ in 0..64 {
            world.run(&Step::Consume(8, None));
        }
        prop_assert_eq!(world.committed, world.next_seq);
    }
}

/// One batch, cut after each of its stores in turn.
#[test]
fn each_store_of_a_batch_can_be_the_last() {
    let lengths = vec![100, 5000, 1, 2048];
    let mut complete = 0;
    for stores in 0..60 {
        let mut world = World::new();
        // A full turn first, so that old descriptors lie everywhere.
        for _ in 0..70 {
            world.run(&Step::Produce(vec![1], None));
            world.run(&Step::Consume(1, None));
        }
        world.run(&Step::Produce(lengths.clone(), Some(stores)));
        complete += usize::from(world.next_seq == 74);
        assert!([70, 74].contains(&world.next_seq), "all or nothing");
        world.run(&Step::Produce(lengths.clone(), None));
        world.run(&Step::Consume(10, None));
        assert_eq!(world.committed, world.next_seq);
    }
    assert!(complete > 0 && complete < 60);
}
