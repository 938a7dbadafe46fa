//! Large removals, and what another client notices of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use figures::Latencies;
use peers::Daemon;
use xs_protocol::MessageType as T;

use super::Scale;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::limits::{PIPELINE, VALUE};

/// How long the other client goes on: what is freed late counts too.
const AFTERMATH: Duration = Duration::from_millis(100);

const CHILDREN: usize = 30_000;
const BRANCHES: usize = 100;
const LEAVES: usize = 1000;

pub(super) fn wide(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let paths = (0..scale.count(CHILDREN)).map(|child| format!("/bench/doomed/{child:05}"));
    removal(daemon, paths)
}

/// The top and the branches are nodes too.
pub(super) fn deep(daemon: &mut dyn Daemon, scale: Scale) -> Result<Vec<f64>> {
    let leaves = scale.count(LEAVES) - 1;
    let names = move |branch| (0..leaves).map(move |leaf| format!("/bench/doomed/{branch}/{leaf}"));
    removal(daemon, (0..BRANCHES).flat_map(names))
}

fn removal(daemon: &dyn Daemon, paths: impl Iterator<Item = String>) -> Result<Vec<f64>> {
    let socket = daemon.socket();
    let mut client = Client::connect(&socket)?;
    client.write(0, "/bench/value", VALUE)?;
    client.stream(T::WRITE, PIPELINE, paths.map(|path| format!("{path}\0x").into_bytes()))?;
    let mut other = Client::connect(&socket)?;
    other.read(0, "/bench/value")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&over, &mut other));
        let removed = remove(&mut client);
        over.store(true, Ordering::Relaxed);
        let latencies = reader.join().map_err(|_| Error::Thread)??;
        let [median, p99, worst] = latencies.summary_us();
        Ok(vec![removed?.as_secs_f64() * 1e3, median, p99, worst])
    })
}

fn remove(client: &mut Client) -> Result<Duration> {
    std::thread::sleep(Duration::from_millis(20));
    let began = Instant::now();
    client.rm("/bench/doomed")?;
    let took = began.elapsed();
    std::thread::sleep(AFTERMATH);
    Ok(took)
}

fn read_until(over: &AtomicBool, client: &mut Client) -> Result<Latencies> {
    let mut latencies = Latencies::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.read(0, "/bench/value")?;
        latencies.note(began.elapsed());
    }
    Ok(latencies)
}
