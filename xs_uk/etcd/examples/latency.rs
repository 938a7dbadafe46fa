//! Append latency and throughput of the engine against bare puts to the same etcd, in the same run:
//! `cargo run --release -p xs_etcd --example latency [MEMBERS [DIRECTORY]]`.
//!
//! Members run on this machine, their data in DIRECTORY (default: memory). Entries have 160 bytes, as a WRITE of a
//! device's state has with its envelope.
#![expect(clippy::print_stdout, reason = "it is its purpose")]

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use etcd_stand::{EtcdStand, StandOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xs_consensus::{Consensus, Cursor, Epoch, LogError};
use xs_etcd::{EtcdLog, EtcdOptions};

const ENTRY: [u8; 160] = [7; 160];
const ALONE: usize = 1000;
const FLOOD: Duration = Duration::from_secs(5);
/// Puts of the bare client at once.
const WINDOW: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let members = arguments.next().map_or(Ok(1), |members| members.parse())?;
    let stand = match arguments.next() {
        Some(directory) => EtcdStand::start(members, Path::new(&directory))?,
        None => EtcdStand::start_in_memory(members, StandOptions::default())?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoints = stand.endpoints();
    let mut engine = leader(&endpoints)?;
    for round in 1..=3 {
        let put_us = runtime.block_on(bare_alone(&endpoints))?;
        let append_us = alone(&mut engine)?;
        let puts = runtime.block_on(bare_flood(&endpoints))?;
        let appends = flood(&mut engine)?;
        println!("round {round}, {members} member(s), entries of {} bytes", ENTRY.len());
        print("one at a time, median us", median(put_us), median(append_us));
        print("at once, per second", puts, appends);
        let_go(&mut engine)?;
    }
    Ok(())
}

fn print(what: &str, bare: f64, engine: f64) {
    println!("  {what}: bare put {bare:.0}, engine {engine:.0}, ratio {:.2}", engine / bare);
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn leader(endpoints: &[String]) -> Result<EtcdLog, Box<dyn Error>> {
    let options = EtcdOptions {
        endpoints: endpoints.to_vec(),
        prefix: "/ppvmm/latency/".to_owned(),
        log_bytes_max: 1 << 30,
        ..EtcdOptions::default()
    };
    let mut engine = EtcdLog::start(&options, Cursor::default())?;
    engine.lead(Epoch(1))?;
    while !engine.is_leading()? {
        wait(&engine)?;
    }
    Ok(engine)
}

fn wait(engine: &EtcdLog) -> Result<(), Box<dyn Error>> {
    let wake = engine.wake_fd().ok_or("no wake descriptor")?;
    let pause = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&pause))?;
    Ok(())
}

/// Two snapshots, so that the log of this round goes.
fn let_go(engine: &mut EtcdLog) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        engine.append(&ENTRY)?;
        while engine.next(&mut Vec::new())?.is_none() {
            wait(engine)?;
        }
        let cursor = engine.cursor();
        engine.save_snapshot(&cursor, vec![1])?;
        while engine.state().saving_snapshot {
            wait(engine)?;
        }
    }
    Ok(())
}

fn alone(engine: &mut EtcdLog) -> Result<Vec<f64>, Box<dyn Error>> {
    let (mut all, mut entry) = (Vec::new(), Vec::new());
    for _ in 0..ALONE {
        let began = Instant::now();
        engine.append(&ENTRY)?;
        while engine.next(&mut entry)?.is_none() {
            wait(engine)?;
        }
        all.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(all)
}

fn flood(engine: &mut EtcdLog) -> Result<f64, Box<dyn Error>> {
    let (began, mut committed, mut submitted) = (Instant::now(), 0_u32, 0_u32);
    let mut entry = Vec::new();
    while began.elapsed() < FLOOD || committed < submitted {
        let full = began.elapsed() >= FLOOD
            || match engine.append(&ENTRY) {
                Ok(_) => {
                    submitted += 1;
                    false
                }
                Err(LogError::Busy { .. }) => true,
                Err(error) => return Err(error.into()),
            };
        if full {
            wait(engine)?;
        }
        while engine.next(&mut entry)?.is_some() {
            committed += 1;
        }
    }
    Ok(f64::from(committed) / began.elapsed().as_secs_f64())
}

async fn bare_alone(endpoints: &[String]) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut client = etcd_client::Client::connect(&endpoints[..1], None).await?;
    let mut all = Vec::new();
    for i in 0..ALONE {
        let began = Instant::now();
        client.put(format!("/bare/{i}"), ENTRY, None).await?;
        all.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(all)
}

async fn bare_flood(endpoints: &[String]) -> Result<f64, Box<dyn Error>> {
    let client = etcd_client::Client::connect(&endpoints[..1], None).await?;
    let (began, mut done, mut under_way) = (Instant::now(), 0_u32, VecDeque::new());
    while began.elapsed() < FLOOD {
        while under_way.len() < WINDOW {
            let mut kv = client.kv_client();
            let key = format!("/bare/{}", under_way.len());
            under_way.push_back(tokio::spawn(async move { kv.put(key, ENTRY, None).await }));
        }
        if let Some(put) = under_way.pop_front() {
            put.await??;
            done += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    for put in under_way {
        put.await??;
    }
    Ok(f64::from(done) / seconds)
}
