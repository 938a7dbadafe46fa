//! The `warden` binary: brings up the store's services and keeps them alive.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use warden::limits::{MEMBERS_MAX, REPLICAS_DEFAULT, REPLICAS_MAX};
use warden::{RunDir, Warden, WardenSpec, logging, respawn, store_group};

/// Keeps the services of a dom0 alive: starts, watches, promotes and restarts them.
///
/// SIGTERM and SIGINT stop everything in order. SIGHUP is passed on to the services.
#[derive(Debug, Parser)]
#[command(version, after_help = "EXIT STATUS\n  0  stopped as asked\n  1  failed\n  2  usage")]
struct Args {
    /// Directory of the lock, the gRPC socket ppvmm.sock and, unless it is set, the store's socket.
    #[arg(long, env = "PPVMM_RUNDIR", default_value = "/run/ppvmm")]
    rundir: PathBuf,
    /// The store's socket; default RUNDIR/socket.
    #[arg(long, env = "XENSTORED_PATH")]
    store_socket: Option<PathBuf>,
    /// The store's binary; default: xs_uk beside this one.
    #[arg(long)]
    xs_uk: Option<PathBuf>,
    /// Number of the store's replicas.
    #[arg(long, default_value_t = REPLICAS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICAS_MAX)))]
    replicas: u32,
    /// Members of the store's own etcd; the arguments for the services must name the same number.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(MEMBERS_MAX)))]
    members: u32,
    /// Let `ppvmm inject` work.
    #[arg(long)]
    enable_injection: bool,
    /// Serve status, events and health at this loopback address too, such as 127.0.0.1:7878.
    #[arg(long, value_name = "ADDRESS:PORT")]
    grpc_listen: Option<SocketAddr>,
    /// Give metrics for Prometheus at this loopback address, such as 127.0.0.1:9878, path /metrics.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// What kind of host it is, for the status; found out if left out.
    #[arg(long)]
    profile: Option<Profile>,
    /// Log JSON lines also on a terminal.
    #[arg(long)]
    log_json: bool,
    /// Start the warden again when it dies, from a tiny parent process; what runs is adopted then.
    #[arg(long)]
    respawn: bool,
    /// Leave the terminal's session, so that its end does not reach the services.
    #[arg(long, hide = true)]
    setsid: bool,
    /// Arguments for every service of the store.
    #[arg(last = true)]
    xs_uk_args: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profile {
    Local,
    Dom0,
    Domains,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.setsid {
        // The child of a parent that did it leads no group either.
        rustix::process::setsid().context("setsid")?;
    }
    if args.respawn {
        let (program, rest) =
            (std::env::current_exe().context("own path")?, respawn::without_flag(std::env::args_os()));
        let ended = respawn::keep_running(|| {
            let mut command = Command::new(&program);
            command.args(&rest);
            command
        })?;
        return Ok(ExitCode::from(ended.code));
    }
    warden::raise_descriptor_limit();
    let _guard = logging::init(args.log_json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(run(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let warden = Warden::new(spec(args)?)?;
    let mut handle = warden.handle();
    tokio::spawn(async move {
        if handle.wait_serving().await
            && let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready])
        {
            tracing::warn!(%error, "the service manager was not told");
        }
    });
    Ok(warden.run().await?)
}

fn spec(args: Args) -> anyhow::Result<WardenSpec> {
    let xs_uk = match args.xs_uk {
        Some(path) => path,
        None => std::env::current_exe().context("own path")?.with_file_name("xs_uk"),
    };
    let rundir = RunDir::take(&args.rundir)?;
    let socket = args.store_socket.unwrap_or_else(|| args.rundir.join("socket"));
    let mut xs_uk_args = args.xs_uk_args;
    xs_uk_args.extend(["--group-id".into(), rundir.group_id()?.into()]);
    let group = store_group(rundir.path(), &xs_uk, &xs_uk_args, args.replicas, args.members, &socket);
    let profile = args.profile.unwrap_or_else(|| detect(rundir.path()));
    Ok(WardenSpec {
        rundir,
        group,
        profile: format!("{profile:?}").to_lowercase(),
        injection: args.enable_injection,
        grpc_listen: args.grpc_listen,
        metrics_listen: args.metrics_listen,
    })
}

fn detect(rundir: &Path) -> Profile {
    match hypervisor::HostSpec::detect(None, rundir).profile {
        hypervisor::Profile::Xen => Profile::Dom0,
        hypervisor::Profile::Local => Profile::Local,
    }
}
