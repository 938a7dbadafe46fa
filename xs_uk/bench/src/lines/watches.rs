//! What watches cost those whom they do not concern.

use std::time::Instant;

use peers::Daemon;
use xs_protocol::MessageType as T;

use super::{Scale, ops, repeat};
use crate::client::Client;
use crate::error::Result;
use crate::limits::{PIPELINE, VALUE};

/// Clients that share the watches.
const WATCHERS: usize = 8;

pub(super) fn elsewhere(daemon: &mut dyn Daemon, scale: Scale, watches: usize) -> Result<Vec<f64>> {
    let socket = daemon.socket();
    let mut watchers = Vec::new();
    for watcher in 0..WATCHERS {
        let mut client = Client::connect(&socket)?;
        let each = scale.count(watches) / WATCHERS;
        let payload = |number| format!("/elsewhere/{watcher}/{number}\0token\0").into_bytes();
        client.stream(T::WATCH, PIPELINE, (0..each).map(payload))?;
        watchers.push(client);
    }
    let mut client = Client::connect(&socket)?;
    client.write(0, "/bench/value", VALUE)?;
    let began = Instant::now();
    let latencies = repeat(scale.time, || client.write(0, "/bench/value", VALUE))?;
    Ok(ops(vec![latencies], began.elapsed()))
}
