//! Kills a role again and again while a test's load runs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::stand::{Stand, binary};

/// How a killer's work went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    /// Kills that hit.
    pub hits: u64,
    /// Attempts with nobody to kill at that moment.
    pub misses: u64,
}

/// A thread that kills until it is told to stop.
pub struct Killer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Kills>>,
}

impl Killer {
    /// Kills `target` with SIGKILL, waiting a pause drawn from `pauses` in turn before each.
    pub fn start(stand: &Stand, target: &str, pauses: Vec<Duration>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, rundir, target) = (stop.clone(), stand.rundir().to_path_buf(), target.to_owned());
        let thread = std::thread::spawn(move || kill_until(&flag, &rundir, &target, &pauses));
        Self { stop, thread: Some(thread) }
    }

    /// Stops and tells how it went.
    ///
    /// # Panics
    /// If the killing thread did.
    pub fn finish(mut self) -> Kills {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or_else(Kills::default, |thread| thread.join().expect("the killer's thread"))
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn kill_until(stop: &AtomicBool, rundir: &PathBuf, target: &str, pauses: &[Duration]) -> Kills {
    let mut kills = Kills::default();
    for pause in pauses.iter().cycle() {
        std::thread::sleep(*pause);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let status = Command::new(binary("ppvmm"))
            .arg("--rundir")
            .arg(rundir)
            .args(["inject", "kill", target])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => kills.hits += 1,
            _ => kills.misses += 1,
        }
    }
    kills
}
