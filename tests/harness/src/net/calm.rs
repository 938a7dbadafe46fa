//! Traffic without faults: whoever is found dead then was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use net_stand::{Keeper, Told};
use serde::Serialize;

/// How often the keeper's events are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What happened while nothing should.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Calm {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Processes that ended.
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
        let new = || backend.events().iter().filter(|told| told.at_monotonic_ns > since_ns);
        for told in new().filter(|told| is_death(told)) {
            eprintln!("false alarm: {} {}: {}", told.part, told.kind, told.detail);
            alarms += 1;
        }
        since_ns = new().map(|told| told.at_monotonic_ns).max().unwrap_or(since_ns);
    }
    Ok(Calm { seconds: began.elapsed().as_secs_f64(), alarms })
}

/// Of a keeper that was condemned no end is told besides.
fn is_death(told: &Told) -> bool {
    told.kind == "ended" || told.part == "keeper" && told.kind == "condemned"
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
