//! Child processes that end with their value.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result, system};
use crate::limits::{START_WAIT, STOP_WAIT};

/// A daemon's process and its log.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    patient: bool,
}

impl Process {
    /// Starts `command` with its output in `dir/NAME.log`. A `patient` one is asked to end, the others are killed.
    pub(crate) fn spawn(
        name: &'static str,
        dir: &Path,
        command: &mut Command,
        patient: bool,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(system(log.display().to_string()))?;
        let second = file.try_clone().map_err(system("duplicate the log"))?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        let child = child.map_err(system(format!("start {name}")))?;
        Ok(Self { name, child, log, patient })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until it takes connections on `socket`.
    pub(crate) fn wait_for_socket(&mut self, socket: &Path) -> Result<()> {
        self.wait_until(|| UnixStream::connect(socket).is_ok())
    }

    /// Waits until something is so, as long as the process lives.
    pub(crate) fn wait_until(&mut self, so: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !so() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.not_serving(format!("ended: {status}")));
            }
            if began.elapsed() > START_WAIT {
                return Err(self.not_serving(format!("takes no clients after {START_WAIT:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn not_serving(&self, what: String) -> Error {
        Error::NotServing { name: self.name.into(), what, log: self.log() }
    }

    fn ask_to_end(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_WAIT {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.patient {
            self.ask_to_end();
        }
        // Neither fails for a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
