//! Going to the background as stock xenstored does without `-N`: the parent ends when the store serves.
//!
//! A process cannot fork safely once it has threads, so the parent starts itself again and waits on a pipe.

use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;

use anyhow::{Context, bail};

use crate::args::Args;
use crate::limits::DAEMON_START_WAIT;

const DETACH_ENV: &str = "PPVMM_DETACH";
const READY: &[u8] = b"ready\n";

/// The parent: starts the daemon and waits until it serves.
pub fn start(args: &Args) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("own path")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--no-fork")
        .env(DETACH_ENV, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(if args.trace_file.is_some() { Stdio::null() } else { Stdio::inherit() })
        .spawn()
        .context("cannot start the daemon")?;
    let mut stdout = child.stdout.take().context("no pipe to the daemon")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = [0; READY.len()];
        let ready = stdout.read_exact(&mut said).is_ok() && said == READY;
        // The parent may have given up waiting.
        let _ = sender.send(ready);
    });
    match receiver.recv_timeout(DAEMON_START_WAIT) {
        Ok(true) => Ok(()),
        Ok(false) => bail!("the daemon ended before it served"),
        Err(_) => bail!("the daemon does not serve after {} s", DAEMON_START_WAIT.as_secs()),
    }
}

/// The parent of wardens, each of which adopts what the one before it left.
pub fn keep_running() -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("own path")?;
    let args = warden::respawn::without_flag(std::env::args_os());
    let ended = warden::respawn::keep_running(|| {
        let mut command = Command::new(&program);
        command.args(&args);
        command
    })?;
    Ok(ExitCode::from(ended.code))
}

/// The daemon: leaves the parent's session.
pub fn detach_if_asked() -> anyhow::Result<()> {
    if std::env::var_os(DETACH_ENV).is_some() {
        rustix::process::setsid().context("setsid")?;
    }
    Ok(())
}

/// The daemon: lets the parent end.
pub fn release_parent() {
    if std::env::var_os(DETACH_ENV).is_some() {
        let mut stdout = std::io::stdout();
        // A parent that is gone waits no more.
        let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
    }
}
