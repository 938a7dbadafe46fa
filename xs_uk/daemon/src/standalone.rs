//! `xs_uk` by itself: the warden of its own gateway and replicas.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use hypervisor::Profile;
use warden::{Handle, RunDir, Warden, WardenSpec};

use crate::args::Args;
use crate::background;

/// Runs until it is told to stop.
pub fn run(args: &Args) -> anyhow::Result<()> {
    background::detach_if_asked()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let warden = Warden::new(spec(args)?)?;
        let told = tokio::spawn(tell_when_serving(warden.handle(), args.clone()));
        let result = warden.run().await;
        told.abort();
        if let Some(path) = &args.pid_file {
            // It may never have been written.
            let _ = std::fs::remove_file(path);
        }
        Ok(result?)
    })
}

fn spec(args: &Args) -> anyhow::Result<WardenSpec> {
    let rundir = RunDir::take(&args.rundir)?;
    let mut args = args.clone();
    args.engine.group_id = rundir.group_id()?;
    let args = &args;
    let socket = args.socket_path();
    let program = std::env::current_exe().context("own path")?;
    let host = args.host();
    let mut group = warden::store_group(
        rundir.path(),
        &program,
        &child_args(args),
        args.replicas,
        args.engine.own_members(),
        &socket,
    );
    group.log = args.engine.log_name();
    for service in group.replicas.iter_mut().chain([&mut group.gateway]) {
        service.env.push(("PPVMM_PROFILE".into(), host.profile.name().into()));
    }
    Ok(WardenSpec {
        rundir,
        group,
        profile: if host.profile == Profile::Xen { "dom0".into() } else { "local".into() },
        injection: args.enable_injection,
        grpc_listen: None,
        metrics_listen: None,
    })
}

/// What children need of our own command line: all but the flags that are about the process as a whole.
fn child_args(args: &Args) -> Vec<OsString> {
    let mut list: Vec<OsString> = Vec::new();
    let numbers = [
        ("--entry-nb", args.entry_nb),
        ("--entry-size", args.entry_size),
        ("--watch-nb", args.watch_nb),
        ("--transaction", args.transaction),
        ("--perm-nb", args.perm_nb),
        ("--path-max", args.path_max),
    ];
    for (flag, value) in numbers {
        if let Some(value) = value {
            list.extend([flag.into(), value.to_string().into()]);
        }
    }
    let assignments =
        [("--quota", &args.quota), ("--quota-soft", &args.quota_soft), ("--timeout", &args.timeout)];
    for (flag, values) in assignments {
        for value in values {
            list.extend([OsString::from(flag), value.into()]);
        }
    }
    let switches = [("--keep-orphans", args.keep_orphans), ("--no-domain-init", args.no_domain_init)];
    list.extend(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| OsString::from(flag)));
    list.extend(args.engine.to_args());
    list.extend(["--master-domid".into(), args.master_domid.to_string().into()]);
    list.extend(["--priv-domid".into(), args.priv_domid.to_string().into()]);
    for (flag, path) in [("--hv-socket", &args.hv_socket), ("--trace-file", &args.trace_file)] {
        if let Some(path) = path {
            list.extend([OsString::from(flag), path.into()]);
        }
    }
    list
}

/// As stock xenstored does once clients can come: pid file, systemd, the waiting parent.
async fn tell_when_serving(mut handle: Handle, args: Args) {
    if !handle.wait_serving().await {
        return;
    }
    if let Some(path) = &args.pid_file
        && let Err(error) = write_pid(path)
    {
        tracing::error!(path = %path.display(), %error, "cannot write the pid file");
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "nobody to notify");
    }
    background::release_parent();
    tracing::info!(socket = %args.socket_path().display(), "serving");
}

fn write_pid(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_child_gets_the_same_configuration() {
        let line = "xs_uk -N -E 5 -Q memory=7 -q memory=6 -w watch-event=3 -K -D -m 2 -p 0 --hv-socket /x/hv";
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let child: Vec<OsString> =
            ["xs_uk", "--role", "replica"].iter().map(OsString::from).chain(child_args(&args)).collect();
        let child = Args::try_parse_from(child).unwrap();
        assert_eq!(child.config().unwrap(), args.config().unwrap());
        assert_eq!(child.watch_event_timeout_s(), Ok(3));
        assert!(child.no_domain_init);
        assert_eq!(child.hv_socket, args.hv_socket);
    }
}
