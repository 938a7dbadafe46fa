//! A tiny parent that starts a warden again when it dies, where no service manager does.
//!
//! The services outlive each warden and are adopted by the next. They become children of this process, which reaps
//! them. It holds nothing that any of them needs, so its own death harms nobody.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Sent, WaitOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::limits::{RESPAWN_PAUSE_FIRST_MS, RESPAWN_PAUSE_MAX_MS, RESPAWN_SOON_MS};

/// The flag that asks for it.
pub const FLAG: &str = "--respawn";

/// Exit status of a process that panicked.
const PANICKED: i32 = 101;

/// The own command line without [`FLAG`] and the program's name; what follows `--` is another program's.
pub fn without_flag(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut ours = true;
    let keep = |arg: &OsString| {
        ours &= arg != OsStr::new("--");
        !(ours && arg == OsStr::new(FLAG))
    };
    args.into_iter().skip(1).filter(keep).collect()
}

/// Runs the command again and again until it ends by itself: stopped as asked, or with an error that the next start
/// would meet again. SIGTERM and SIGINT stop it, SIGHUP is passed on.
///
/// # Errors
/// What the system says.
pub fn keep_running(command: impl Fn() -> Command) -> io::Result<Ended> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Parent::new()?.keep(command).await })
}

/// How the last one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; that of a failure if a signal ended it.
    pub code: u8,
}

struct Parent {
    child: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    stopping: bool,
}

impl Parent {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            stopping: false,
        })
    }

    async fn keep(&mut self, command: impl Fn() -> Command) -> io::Result<Ended> {
        let mut pause_ms = 0;
        loop {
            let began = Instant::now();
            let process = command().spawn()?;
            let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("a process without a pid"))?;
            let status = self.wait(pid).await?;
            match status.code() {
                Some(code) if code != PANICKED => return Ok(Ended { code: u8::try_from(code).unwrap_or(1) }),
                _ if self.stopping => return Ok(Ended { code: 1 }),
                _ => {}
            }
            pause_ms = next_pause_ms(pause_ms, began.elapsed());
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    async fn wait(&mut self, pid: Pid) -> io::Result<ExitStatus> {
        loop {
            // Orphaned services end here too.
            while let Some((ended, status)) = rustix::process::wait(WaitOptions::NOHANG)? {
                if ended == pid {
                    return Ok(std::os::unix::process::ExitStatusExt::from_raw(status.as_raw()));
                }
            }
            let sent = tokio::select! {
                _ = self.child.recv() => continue,
                _ = self.terminate.recv() => Sent::TERM,
                _ = self.interrupt.recv() => Sent::TERM,
                _ = self.hangup.recv() => Sent::HUP,
            };
            self.stopping |= sent == Sent::TERM;
            // It is not reaped yet, so the pid is its own.
            rustix::process::kill_process(pid, sent)?;
        }
    }
}

/// One that lived for long is started again at once.
fn next_pause_ms(pause_ms: u64, lived: Duration) -> u64 {
    match lived >= Duration::from_millis(RESPAWN_SOON_MS) {
        true => 0,
        false => (pause_ms * 2).clamp(RESPAWN_PAUSE_FIRST_MS, RESPAWN_PAUSE_MAX_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_taken_out_of_our_own_arguments_alone() {
        let args = ["warden", "--respawn", "--rundir", "/x", "--", "--respawn"].map(OsString::from);
        assert_eq!(without_flag(args), ["--rundir", "/x", "--", "--respawn"]);
    }

    #[test]
    fn quick_deaths_are_followed_by_longer_pauses_up_to_a_bound() {
        let mut pauses = vec![0];
        for _ in 0..12 {
            pauses.push(next_pause_ms(pauses[pauses.len() - 1], Duration::ZERO));
        }
        assert_eq!((pauses[1], pauses[12]), (RESPAWN_PAUSE_FIRST_MS, RESPAWN_PAUSE_MAX_MS));
        assert_eq!(next_pause_ms(RESPAWN_PAUSE_MAX_MS, Duration::from_millis(RESPAWN_SOON_MS)), 0);
    }
}
