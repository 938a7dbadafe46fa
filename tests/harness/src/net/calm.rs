//! Traffic without faults: whoever is found dead then was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use net_stand::Keeper;
use serde::Serialize;

/// How often the keeper's events are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What happened while nothing should.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Calm {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Processes that were condemned or ended.
    pub alarms: u64,
}

/// Waits.
pub fn wait(backend: &mut Keeper, length: Duration) -> anyhow::Result<Calm> {
    let began = Instant::now();
    let mut since_ns = net_uk::events::monotonic_ns();
    let mut alarms = 0;
    while began.elapsed() < length {
        std::thread::sleep(LOOK);
        backend.hear()?;
        let new = backend.events().iter().filter(|told| told.at_monotonic_ns > since_ns);
        let (mut last, mut bad) = (since_ns, vec![]);
        for told in new {
            last = last.max(told.at_monotonic_ns);
            if matches!(told.kind.as_str(), "condemned" | "ended") {
                bad.push(format!("{} {}: {}", told.part, told.kind, told.detail));
            }
        }
        since_ns = last;
        alarms += bad.len() as u64;
        bad.iter().for_each(|alarm| eprintln!("false alarm: {alarm}"));
    }
    Ok(Calm { seconds: began.elapsed().as_secs_f64(), alarms })
}

/// Threads that burn processor time until the value ends.
pub struct Hogs {
    stop: Arc<AtomicBool>,
}

impl Hogs {
    /// Starts them.
    pub fn start(number: u16) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        for _ in 0..number {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
