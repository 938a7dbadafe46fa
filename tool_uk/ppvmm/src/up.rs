//! Bringing everything up and down.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hypervisor::local::Broker;
use hypervisor::{HostSpec, Profile};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Up;
use crate::client::Warden;
use crate::exit::Failure;
use crate::limits::{BROKER_MS, DOWN_MS, LOG_SHOWN_BYTES, LOOK_EVERY_MS};

const BROKER: &str = "ppvmm-hv";

struct Files {
    rundir: PathBuf,
}

impl Files {
    fn warden_log(&self) -> PathBuf {
        self.rundir.join("warden.log")
    }

    fn broker_log(&self) -> PathBuf {
        self.rundir.join("ppvmm-hv.log")
    }

    fn broker_pid(&self) -> PathBuf {
        self.rundir.join("ppvmm-hv.pid")
    }
}

/// Starts what does not run, and waits until the store is served.
pub async fn up(rundir: &Path, args: &Up) -> anyhow::Result<String> {
    args.validate()?;
    let files = Files { rundir: create_rundir(rundir)? };
    let end = Instant::now() + Duration::from_secs(args.start.timeout_s);
    if Warden::connect(&files.rundir).await.is_ok() {
        wait_serving(&files, None, end).await?;
        return Ok(format!("already up in {}", files.rundir.display()));
    }
    let host = HostSpec::detect(args.start.profile.map(Profile::from), &files.rundir);
    if host.profile == Profile::Local {
        start_broker(&files, args, &host.local_socket)?;
    }
    if args.foreground {
        let result = foreground(&files, args, host.profile).await;
        stop_broker(&files)?;
        result?;
        return Ok("down".to_owned());
    }
    let mut warden = start_warden(&files, args, host.profile)?;
    wait_serving(&files, Some(&mut warden), end).await?;
    let rundir = files.rundir.display();
    Ok(format!("up in {rundir}; for stock clients: export XENSTORED_RUNDIR={rundir}"))
}

/// Makes the run directory, for its owner alone, if it is not there.
pub fn create_rundir(rundir: &Path) -> anyhow::Result<PathBuf> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(rundir).with_context(|| rundir.display().to_string())?;
    Ok(rundir.canonicalize()?)
}

/// A program of ours: in a directory, or beside this one.
pub fn binary(directory: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    match directory {
        Some(directory) => Ok(directory.join(name)),
        None => Ok(std::env::current_exe().context("own path")?.with_file_name(name)),
    }
}

/// Opens a file to write at its end.
pub fn append(path: &Path) -> anyhow::Result<File> {
    File::options().create(true).append(true).open(path).with_context(|| path.display().to_string())
}

fn start_broker(files: &Files, args: &Up, socket: &Path) -> anyhow::Result<()> {
    if Broker::connect(socket).is_ok() {
        return Ok(());
    }
    let program = binary(args.start.bindir.as_deref(), BROKER)?;
    let log = append(&files.broker_log())?;
    let mut broker = Command::new(&program)
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| program.display().to_string())?;
    std::fs::write(files.broker_pid(), broker.id().to_string())?;
    let end = Instant::now() + Duration::from_millis(BROKER_MS);
    while Broker::connect(socket).is_err() {
        if let Some(status) = broker.try_wait()? {
            bail!("{BROKER} ended with {status}:\n{}", tail(&files.broker_log()));
        }
        if Instant::now() > end {
            bail!("{BROKER} takes no connections at {}", socket.display());
        }
        std::thread::sleep(Duration::from_millis(LOOK_EVERY_MS));
    }
    Ok(())
}

fn warden_command(files: &Files, args: &Up, profile: Profile, detached: bool) -> anyhow::Result<Command> {
    let (ours, stores) = match profile {
        Profile::Local => ("local", "local"),
        Profile::Xen => ("dom0", "xen"),
    };
    let binary = |name| binary(args.start.bindir.as_deref(), name);
    let mut command = Command::new(binary("warden")?);
    command.arg("--rundir").arg(&files.rundir).arg("--xs-uk").arg(binary("xs_uk")?);
    command.args(["--profile", ours]).env("PPVMM_PROFILE", stores);
    if detached {
        command.arg("--setsid");
    }
    if args.start.enable_injection {
        command.arg("--enable-injection");
    }
    if args.respawn {
        command.arg("--respawn");
    }
    if let Some(address) = args.grpc_listen {
        command.arg("--grpc-listen").arg(address.to_string());
    }
    if let Some(address) = args.metrics_listen {
        command.arg("--metrics-listen").arg(address.to_string());
    }
    command.arg("--members").arg(args.own_members().to_string());
    command.stdin(Stdio::null()).arg("--").args(args.engine_args()).args(&args.xs_uk_args);
    Ok(command)
}

fn start_warden(files: &Files, args: &Up, profile: Profile) -> anyhow::Result<Child> {
    let log = append(&files.warden_log())?;
    warden_command(files, args, profile, true)?.stdout(log.try_clone()?).stderr(log).spawn().context("warden")
}

/// Runs the warden at the terminal. A Ctrl-C reaches it as well as us; we wait for its orderly end.
async fn foreground(files: &Files, args: &Up, profile: Profile) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut warden = warden_command(files, args, profile, false)?.spawn().context("warden")?;
    let pid = i32::try_from(warden.id()).ok().and_then(Pid::from_raw);
    let mut ended = tokio::task::spawn_blocking(move || warden.wait());
    loop {
        tokio::select! {
            status = &mut ended => {
                let status = status??;
                if status.success() { return Ok(()) }
                bail!("the warden ended with {status}");
            }
            Some(()) = interrupt.recv() => {}
            Some(()) = terminate.recv() => {
                if let Some(pid) = pid {
                    rustix::process::kill_process(pid, Signal::TERM)?;
                }
            }
        }
    }
}

async fn wait_serving(files: &Files, mut warden: Option<&mut Child>, end: Instant) -> anyhow::Result<()> {
    let progress =
        if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut seen = "no warden yet".to_owned();
    let mut connection = None;
    while Instant::now() < end {
        if let Some(status) = warden.as_mut().and_then(|warden| warden.try_wait().transpose()) {
            bail!("the warden ended with {}:\n{}", status?, tail(&files.warden_log()));
        }
        if connection.is_none() {
            connection = Warden::connect(&files.rundir).await.ok();
        }
        if let Some(connected) = &mut connection {
            if connected.health("").await.is_ok_and(|health| health == "SERVING") {
                progress.finish_and_clear();
                return Ok(());
            }
            seen = match connected.status().await {
                Ok(status) => describe(&status),
                Err(error) => error.to_string(),
            };
        }
        progress.set_message(seen.clone());
        progress.tick();
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    progress.finish_and_clear();
    Err(Failure::NotServing(format!("not served in time ({seen}); see {}", files.warden_log().display()))
        .into())
}

fn describe(status: &api::v1::StatusResponse) -> String {
    let told = status.services.iter().map(|service| {
        let state = service.state().as_str_name().trim_start_matches("STATE_").to_lowercase();
        format!("{} {}", service.name, state.replace('_', " "))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The end of a log.
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

/// Stops the warden and what it keeps, then the broker that [`up`] started.
pub async fn down(rundir: &Path) -> anyhow::Result<String> {
    let files = Files { rundir: rundir.to_owned() };
    let mut warden = match Warden::connect(rundir).await {
        Ok(warden) => warden,
        Err(error) => {
            stop_broker(&files)?;
            return Err(error);
        }
    };
    let pid = warden.status().await?.warden_pid;
    warden.down().await?;
    let end = Instant::now() + Duration::from_millis(DOWN_MS);
    while lives(pid) {
        if Instant::now() > end {
            bail!("the warden (pid {pid}) is still there");
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    stop_broker(&files)?;
    Ok("down".to_owned())
}

/// A zombie, whose parent does not care, is as good as gone.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The pid in the file may by now be another program's, so its name is looked at.
fn stop_broker(files: &Files) -> anyhow::Result<()> {
    let path = files.broker_pid();
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let name = std::fs::read_to_string(format!("/proc/{}/comm", text.trim())).unwrap_or_default();
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|_| name.trim() == BROKER) {
        rustix::process::kill_process(pid, Signal::TERM).context(BROKER)?;
    }
    std::fs::remove_file(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gone_process_does_not_live() {
        assert!(lives(std::process::id()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!lives(pid));
    }

    #[test]
    fn another_programs_pid_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { rundir: dir.path().to_owned() };
        std::fs::write(files.broker_pid(), std::process::id().to_string()).unwrap();
        stop_broker(&files).unwrap();
        assert!(!files.broker_pid().exists());
    }

    #[test]
    fn the_end_of_a_long_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "x".repeat(10_000) + "end").unwrap();
        let shown = tail(&path);
        assert_eq!(shown.len() as u64, LOG_SHOWN_BYTES);
        assert!(shown.ends_with("xend"));
    }
}
