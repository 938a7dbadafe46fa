//! Bringing the network backend up and down.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hypervisor::{HostSpec, Profile};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tonic_health::pb::health_client::HealthClient;

use crate::args::NetUp;
use crate::client::health;
use crate::exit::Failure;
use crate::limits::{DOWN_MS, LOOK_EVERY_MS};
use crate::net::{connect, status_of};
use crate::up::{append, binary, create_rundir, lives, tail};

/// Its events, a JSON object in each line.
const EVENTS: &str = "net_uk.events";
const LOG: &str = "net_uk.log";
/// Where the store serves in a run directory.
const STORE_SOCKET: &str = "socket";

/// Starts it if it does not run, and waits until it serves.
///
/// # Errors
/// [`Failure::NotServing`], or what else went wrong.
pub async fn up(rundir: &Path, args: &NetUp) -> anyhow::Result<String> {
    let rundir = create_rundir(rundir)?;
    let socket = rundir.join(api::NET_SOCKET_NAME);
    let end = Instant::now() + Duration::from_secs(args.start.timeout_s);
    // One that answers and does not serve yet is waited for.
    let runs = connect(&socket).await.is_ok();
    let mut first = if runs { None } else { Some(start(&rundir, args)?) };
    while !serves(&socket).await {
        if let Some(status) = first.as_mut().and_then(|first| first.try_wait().transpose()).transpose()? {
            bail!("net_uk ended with {status}:\n{}", tail(&rundir.join(LOG)));
        }
        if Instant::now() > end {
            let log = rundir.join(LOG);
            return Err(Failure::NotServing(format!("not served in time; see {}", log.display())).into());
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    match first {
        Some(_) => Ok(format!("net_uk is up in {}: {}", rundir.display(), args.nics.join(", "))),
        None => Ok(format!("net_uk is already up in {}", rundir.display())),
    }
}

/// The process that is started becomes the first vault; all the others come from it, and none of them needs us.
fn start(rundir: &Path, args: &NetUp) -> anyhow::Result<Child> {
    let program = binary(args.start.bindir.as_deref(), "net_uk")?;
    let profile = HostSpec::detect(args.start.profile.map(Profile::from), rundir).profile;
    let store = args.store.clone().unwrap_or_else(|| store_of(rundir, profile));
    let mut command = Command::new(&program);
    command.args(["keeper", "-o", "json", "--profile", profile.name()]);
    command.arg("--rundir").arg(rundir).arg("--store").arg(store);
    command.args(args.nics.iter().flat_map(|nic| ["--nic", nic]));
    if args.start.enable_injection {
        command.arg("--enable-injection");
    }
    command.stdin(Stdio::null()).stdout(append(&rundir.join(EVENTS))?).stderr(append(&rundir.join(LOG))?);
    command.process_group(0).spawn().with_context(|| program.display().to_string())
}

/// The store of this run directory, or the usual one of a Xen host if there is none.
fn store_of(rundir: &Path, profile: Profile) -> PathBuf {
    let own = rundir.join(STORE_SOCKET);
    if profile == Profile::Xen && !own.exists() { "/run/xenstored/socket".into() } else { own }
}

async fn serves(socket: &Path) -> bool {
    let Ok(channel) = connect(socket).await else { return false };
    health(&mut HealthClient::new(channel), "").await.is_ok_and(|health| health == "SERVING")
}

/// Stops it, and waits until all its processes are gone.
///
/// # Errors
/// [`Failure::NoNet`], or what else went wrong.
pub async fn down(socket: &Path) -> anyhow::Result<String> {
    let end = Instant::now() + Duration::from_millis(DOWN_MS);
    let processes = loop {
        let processes = status_of(socket).await?.processes;
        let keeper = processes.iter().find(|process| process.name == "keeper");
        let pid = keeper.and_then(|keeper| i32::try_from(keeper.pid).ok()).and_then(Pid::from_raw);
        match rustix::process::kill_process(pid.context("no keeper is told of")?, Signal::TERM) {
            Ok(()) => break processes,
            // It died just now: the next one is asked.
            Err(Errno::SRCH) if Instant::now() < end => {}
            Err(error) => return Err(error).context("the keeper"),
        }
    };
    while let Some(left) = processes.iter().find(|process| process.pid != 0 && lives(process.pid)) {
        if Instant::now() > end {
            bail!("{} (pid {}) is still there", left.name, left.pid);
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    Ok("net_uk is down".to_owned())
}
