//! What handing a frame from one processor to another over a lane takes, with nothing else done: the least that a driver in a
//! process of its own adds to each frame. One side fills a batch, the other one empties it, in turn, and each is timed only while
//! it does so: nobody waits within what is measured.
//!
//! `cargo run --release -p lane --example handover`: medians in nanoseconds for each frame, for several sizes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people, which fails by a panic")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use hypervisor::Region;
use lane::limits::FRAME_ROOM_BYTES;
use lane::{Consumer, FrameMeta, FrameRing, Producer};
use rustix::thread::{CpuSet, sched_setaffinity};

/// As many frames as a turn of shadow or driver moves at most.
const BATCH: u32 = 64;
const BATCHES: usize = 20_000;
const SLOTS: u32 = 2048;

fn main() {
    println!("bytes  fill ns  empty ns  together ns");
    for bytes in [64, 512, 1514] {
        let (fill, empty) = measure(bytes);
        println!("{bytes:>5}  {fill:>7.0}  {empty:>8.0}  {:>11.0}", fill + empty);
    }
}

fn measure(bytes: usize) -> (f64, f64) {
    let region = Arc::new(Region::create("handover", FrameRing::bytes(SLOTS)).unwrap());
    let ring = FrameRing::create(region, 0, SLOTS).unwrap();
    let (producer, consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let (filled, to_empty) = channel();
    let (emptied, to_fill) = channel();
    let other = std::thread::spawn(move || empty_all(consumer, &to_empty, &emptied));
    let fill = fill_all(producer, bytes, &filled, &to_fill);
    drop(filled);
    (fill, other.join().unwrap())
}

fn fill_all(mut producer: Producer, bytes: usize, filled: &Sender<()>, to_fill: &Receiver<()>) -> f64 {
    run_on(0);
    let frame = vec![7; bytes];
    let mut times = vec![];
    for batch in 0..BATCHES {
        let began = Instant::now();
        for number in 0..BATCH {
            let meta = FrameMeta { source: 64, seq: number, ..FrameMeta::default() };
            let reservation = producer.reserve(bytes).unwrap().unwrap();
            producer.stage_bytes(reservation, &frame, &meta).unwrap();
        }
        producer.publish();
        note(&mut times, batch, began.elapsed());
        filled.send(()).unwrap();
        to_fill.recv().unwrap();
    }
    median(times)
}

fn empty_all(mut consumer: Consumer, to_empty: &Receiver<()>, emptied: &Sender<()>) -> f64 {
    run_on(1);
    let mut room = vec![0; FRAME_ROOM_BYTES];
    let mut times = vec![];
    for batch in 0.. {
        if to_empty.recv().is_err() {
            break;
        }
        let began = Instant::now();
        while let Some(frame) = consumer.next_good_into(&mut room).unwrap() {
            consumer.advance(&frame);
        }
        consumer.commit();
        note(&mut times, batch, began.elapsed());
        emptied.send(()).unwrap();
    }
    median(times)
}

/// The first tenth warms up.
fn note(times: &mut Vec<Duration>, batch: usize, time: Duration) {
    if batch >= BATCHES / 10 {
        times.push(time);
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9 / f64::from(BATCH)
}

/// On a machine with one processor both sides share it.
fn run_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    let _ = sched_setaffinity(None, &set);
}
