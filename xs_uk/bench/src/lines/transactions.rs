//! Transactions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use figures::{Better, Figure};
use peers::Daemon;
use xs_protocol::MessageType as T;

use super::{Scale, ops, per_second, repeat, together};
use crate::client::Client;
use crate::error::Result;
use crate::limits::VALUE;

/// The figures of [`siblings`].
pub(super) const PARALLEL: &[Figure] =
    &[Figure::main("commits", "1/s", Better::Higher), Figure::other("EAGAIN", "", Better::Lower)];

const NODES: usize = 20;
const CLIENTS: usize = 16;
const COMMITS: usize = 400;

pub(super) fn increments(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let mut client = Client::connect(&daemon.socket())?;
    client.write(0, "/bench/counter", b"0")?;
    let began = Instant::now();
    let latencies = repeat(scale.time, || {
        client.transaction(|client, tx_id| {
            let text = String::from_utf8_lossy(client.read(tx_id, "/bench/counter")?).into_owned();
            let next = text.parse::<u64>().unwrap_or(0) + 1;
            client.write(tx_id, "/bench/counter", next.to_string().as_bytes())
        })?;
        Ok(())
    })?;
    Ok(ops(vec![latencies], began.elapsed()))
}

/// The removals between the transactions count as well: without them the directory would grow.
pub(super) fn creations(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let mut client = Client::connect(&daemon.socket())?;
    let began = Instant::now();
    let latencies = repeat(scale.time, || {
        client.transaction(|client, tx_id| family(client, tx_id, "/bench/family"))?;
        client.rm("/bench/family")
    })?;
    Ok(ops(vec![latencies], began.elapsed()))
}

pub(super) fn siblings(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let left = AtomicUsize::new(scale.count(COMMITS));
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    let (conflicts, took) = together(&daemon.socket(), CLIENTS, |_, client| {
        let mut conflicts = 0;
        while let Ok(number) = take() {
            let top = format!("/bench/siblings/{number}");
            conflicts += client.transaction(|client, tx_id| family(client, tx_id, &top))?;
        }
        Ok(conflicts)
    })?;
    let commits = per_second(scale.count(COMMITS) as u64, took);
    Ok(vec![commits, f64::from(conflicts.iter().sum::<u32>())])
}

fn family(client: &mut Client, tx_id: u32, top: &str) -> Result<()> {
    client.call(T::MKDIR, tx_id, &[top.as_bytes(), b"\0"])?;
    for child in 0..NODES {
        client.write(tx_id, &format!("{top}/{child}"), VALUE)?;
    }
    Ok(())
}
