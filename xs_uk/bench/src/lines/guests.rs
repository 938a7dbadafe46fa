//! Guests with rings.

use std::time::{Duration, Instant};

use figures::{Better, Figure, Latencies};
use hypervisor::DomId;
use peers::Daemon;
use sim_guest::Guest;
use xs_protocol::MessageType as T;

use super::{Scale, ops, per_second, pss_mib, repeat};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::limits::{ANSWER_WAIT, VALUE};

/// The figures of [`memory`].
pub(super) const MEMORY: &[Figure] = &[Figure::other("PSS", "MiB", Better::Lower)];

/// The figures of [`many`].
pub(super) const MANY: &[Figure] = &[
    Figure::main("introduce", "1/s", Better::Higher),
    Figure::main("writes on rings", "1/s", Better::Higher),
    Figure::other("median", "us", Better::Lower),
    Figure::other("p99", "us", Better::Lower),
    Figure::other("socket read median", "us", Better::Lower),
    Figure::other("PSS", "MiB", Better::Lower),
];

const GUESTS: usize = 1000;
const FEW_GUESTS: usize = 40;
/// Threads that the guests are spread over.
const THREADS: usize = 4;
const NODES_EACH: usize = 60;
const WATCHES_EACH: usize = 10;

/// With what the toolstack and a Linux guest with a disk and a network interface roughly put there.
pub(super) fn memory(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let mut client = Client::connect(&daemon.socket())?;
    let mut guests = Vec::new();
    for number in 1..=scale.count(FEW_GUESTS) {
        let (domid, mut guest) = introduce(daemon, &mut client, number)?;
        for node in 0..NODES_EACH {
            client.write(0, &format!("/local/domain/{domid}/device/vif/{node}"), VALUE)?;
        }
        for watch in 0..WATCHES_EACH {
            guest.watch(&format!("device/vif/{watch}"), "token")?;
            guest.next_event(ANSWER_WAIT)?;
        }
        guests.push(guest);
    }
    // Processes that lag behind or free memory late get the time to.
    std::thread::sleep(Duration::from_secs(1));
    Ok(vec![pss_mib(daemon)])
}

pub(super) fn many(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let mut client = Client::connect(&daemon.socket())?;
    let count = scale.count(GUESTS);
    let mut guests = Vec::new();
    let began = Instant::now();
    for number in 1..=count {
        guests.push(introduce(daemon, &mut client, number)?.1);
    }
    let introduced = per_second(count as u64, began.elapsed());
    let (latencies, took) = write_all(&mut guests, scale)?;
    let [rate, median, p99] = ops(latencies, took)[..] else { return Err(Error::Thread) };
    let reads = repeat(scale.time / 3, || client.read(0, "/local").map(drop))?;
    let [read_median, ..] = reads.summary_us();
    Ok(vec![introduced, rate, median, p99, read_median, pss_mib(daemon)])
}

/// The time for making the domain counts, as it does for a toolstack; it is small beside the rest.
fn introduce(daemon: &mut dyn Daemon, client: &mut Client, number: usize) -> Result<(DomId, Guest)> {
    let domid = DomId(u16::try_from(number).map_err(|_| Error::Protocol("too many guests"))?);
    let port = daemon.create_domain(domid)?;
    let home = format!("/local/domain/{domid}");
    client.write(0, &home, b"")?;
    client.call(T::SET_PERMS, 0, &[format!("{home}\0n{domid}\0").as_bytes()])?;
    client.call(T::INTRODUCE, 0, &[format!("{domid}\x001\x00{port}\0").as_bytes()])?;
    let mut guest = daemon.attach(domid)?;
    guest.set_reply_timeout(ANSWER_WAIT);
    Ok((domid, guest))
}

fn write_all(guests: &mut [Guest], scale: Scale) -> Result<(Vec<Latencies>, Duration)> {
    let share = guests.len().div_ceil(THREADS);
    let began = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = guests
            .chunks_mut(share)
            .map(|guests| {
                scope.spawn(move || {
                    let count = guests.len();
                    let mut next = 0;
                    repeat(scale.time, || {
                        next += 1;
                        Ok(guests[next % count].write("value", VALUE)?)
                    })
                })
            })
            .collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Thread)?);
        outcomes.collect::<Result<Vec<_>>>()
    })?;
    Ok((latencies, began.elapsed()))
}
