//! Plain requests.

use std::time::Instant;

use peers::Daemon;
use xs_protocol::MessageType as T;

use super::{Scale, ops, repeat, together};
use crate::client::Client;
use crate::error::Result;
use crate::limits::{PIPELINE, VALUE};

/// Each client has a node of its own.
pub(super) fn reads(daemon: &mut dyn Daemon, scale: Scale, clients: usize) -> Result<Vec<f64>> {
    let (latencies, took) = together(&daemon.socket(), clients, |number, client| {
        let path = node(number);
        client.write(0, &path, VALUE)?;
        repeat(scale.time, || client.read(0, &path).map(drop))
    })?;
    Ok(ops(latencies, took))
}

pub(super) fn writes(daemon: &mut dyn Daemon, scale: Scale, clients: usize) -> Result<Vec<f64>> {
    let (latencies, took) = together(&daemon.socket(), clients, |number, client| {
        let path = node(number);
        repeat(scale.time, || client.write(0, &path, VALUE))
    })?;
    Ok(ops(latencies, took))
}

pub(super) fn piped_reads(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    Client::connect(&daemon.socket())?.write(0, &node(0), VALUE)?;
    piped(daemon, scale, T::READ, &[])
}

pub(super) fn piped_writes(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    piped(daemon, scale, T::WRITE, VALUE)
}

/// The latency is that of a whole batch.
fn piped(daemon: &dyn Daemon, scale: Scale, kind: T, value: &[u8]) -> Result<Vec<f64>> {
    let mut client = Client::connect(&daemon.socket())?;
    let path = node(0);
    let began = Instant::now();
    let mut latencies = repeat(scale.time, || {
        for _ in 0..PIPELINE {
            client.queue(kind, 0, &[path.as_bytes(), b"\0", value]);
        }
        client.flush()?;
        (0..PIPELINE).try_for_each(|_| client.answer(kind).map(drop))
    })?;
    latencies.count *= PIPELINE as u64;
    Ok(ops(vec![latencies], began.elapsed()))
}

pub(super) fn connections(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let socket = daemon.socket();
    let began = Instant::now();
    let latencies = repeat(scale.time, || Client::connect(&socket)?.read(0, "/").map(drop))?;
    Ok(ops(vec![latencies], began.elapsed()))
}

fn node(number: usize) -> String {
    format!("/bench/client/{number}/value")
}
