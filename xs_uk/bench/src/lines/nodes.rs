//! A large store.

use std::time::Instant;

use peers::Daemon;
use xs_protocol::MessageType as T;

use super::{Scale, per_second, pss_mib, repeat};
use crate::client::Client;
use crate::error::Result;
use crate::limits::{PIPELINE, VALUE};

const DIRECTORIES: usize = 1000;
const NODES_EACH: usize = 1000;

pub(super) fn million(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let mut client = Client::connect(&daemon.socket())?;
    let directories = scale.count(DIRECTORIES);
    let began = Instant::now();
    let paths = (0..directories).flat_map(|top| (1..NODES_EACH).map(move |leaf| path(top, leaf)));
    let created =
        client.stream(T::WRITE, PIPELINE, paths.map(|path| format!("{path}\0value").into_bytes()))?;
    let created = per_second((created + directories) as u64, began.elapsed());
    let mut next = 0_usize;
    // A stride that shares no factor with the counts, so that everything has its turn.
    let mut any = || {
        next = next.wrapping_add(7919);
        path(next % directories, 1 + next % (NODES_EACH - 1))
    };
    let began = Instant::now();
    let reads = repeat(scale.time, || client.read(0, &any()).map(drop))?;
    let read = per_second(reads.count, began.elapsed());
    let began = Instant::now();
    let writes = repeat(scale.time, || client.write(0, &any(), VALUE))?;
    let written = per_second(writes.count, began.elapsed());
    Ok(vec![created, read, written, pss_mib(daemon)])
}

fn path(top: usize, leaf: usize) -> String {
    format!("/bench/{top}/{leaf}")
}
