//! The command `net_uk`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hypervisor::{HostSpec, Profile};
use net_bench::LaneDriver;
use net_uk::bare::BareDriver;
use net_uk::events::Format;
use net_uk::keeper::{self, Options};
use net_uk::vault;
use nic::NicSpec;

/// A network backend for Xen guests that loses no frame when its NIC driver, or it itself, dies.
#[derive(Parser)]
#[command(
    version,
    after_help = "`net_uk bench --help`: measures it beside a backend without a shadow, its driver alone and a bare wire.\n\nENVIRONMENT\n  PPVMM_LOG  what is logged, e.g. info or net_uk=debug; warnings and errors if not set\n\nEXIT STATUS\n  0  told to stop\n  1  could not begin or go on\n  2  usage"
)]
struct Cli {
    #[command(subcommand)]
    role: RoleArgs,
}

#[derive(Subcommand)]
enum RoleArgs {
    /// Starts and watches all others; tells events on the standard output
    ///
    /// This process holds all descriptors, and starts the one that watches; each of both may die, and be replaced, without
    /// a lost frame. SIGTERM, SIGINT and SIGHUP stop all in order. Commands on the standard input: "counts", and "inject
    /// PART FAULT" where that was enabled
    Keeper(KeeperArgs),
    /// Watches; started by a vault
    #[command(hide = true)]
    Keep(KeeperArgs),
    /// Holds all descriptors; started by the keeper
    #[command(hide = true)]
    Vault(KeeperArgs),
    /// The backend itself; started by the keeper
    #[command(hide = true)]
    Shadow(HostArgs),
    /// The driver of a network card; started by the keeper
    #[command(hide = true)]
    Driver,
    /// A backend of one process, to measure beside; started by the benchmark
    #[command(hide = true)]
    Plain(PlainArgs),
}

#[derive(Args)]
struct KeeperArgs {
    /// A network card: packet:INTERFACE, xdp:INTERFACE or tap:INTERFACE, with options as in packet:eth0,rx=1024,mtu=9000 or
    /// xdp:eth0,mode=native,zerocopy=on. Can be given again
    #[arg(long = "nic", value_name = "NIC")]
    nics: Vec<NicSpec>,
    /// Drivers can be told to misbehave
    #[arg(long)]
    enable_injection: bool,
    /// How events are told
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The store's socket, if it is not the usual one
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
    /// Where status, events, metrics and health are served; default: net_uk.sock in the run directory
    #[arg(long, value_name = "SOCKET")]
    listen: Option<PathBuf>,
    /// Where its locks are, and the stand-in's socket if nothing else is said
    #[arg(long, env = "PPVMM_RUNDIR", value_name = "PATH", default_value = "/run/ppvmm")]
    rundir: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
struct PlainArgs {
    /// The network card
    #[arg(long, value_name = "NIC")]
    nic: NicSpec,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
struct HostArgs {
    /// The hypervisor; found out if left out
    #[arg(long, value_enum)]
    profile: Option<ProfileArg>,
    /// The stand-in's socket, in the local profile
    #[arg(long, value_name = "PATH")]
    hv_socket: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileArg {
    /// Xen
    Xen,
    /// The stand-in
    Local,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// A JSON object in each line
    Json,
}

impl HostArgs {
    fn spec(&self, rundir: &Path) -> HostSpec {
        let profile = self.profile.map(|profile| match profile {
            ProfileArg::Xen => Profile::Xen,
            ProfileArg::Local => Profile::Local,
        });
        let mut spec = HostSpec::detect(profile, rundir);
        if let Some(socket) = &self.hv_socket {
            spec.local_socket.clone_from(socket);
        }
        spec
    }
}

fn main() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "bench") {
        return Ok(net_bench::main(words, start_driver));
    }
    let _guard = net_uk::logging::start();
    // The role is always the first.
    let arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
    match Cli::parse().role {
        RoleArgs::Keeper(args) => {
            args.check()?;
            return Ok(vault::run_first(&args.rundir, arguments, stop_signal()?)?.into());
        }
        RoleArgs::Vault(_) => return Ok(vault::run_next(arguments, stop_signal()?)?.into()),
        RoleArgs::Keep(args) => keeper::run(args.options(arguments), stop_signal()?)?,
        // The keeper says where the stand-in's socket is.
        RoleArgs::Shadow(args) => net_uk::shadow::run(&args.spec(Path::new("/run/ppvmm")))?,
        RoleArgs::Driver => net_uk::driver::run()?,
        RoleArgs::Plain(args) => {
            net_uk::shadow::plain::run(&args.host.spec(Path::new("/run/ppvmm")), &args.nic)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// For the benchmark: a driver without a shadow.
fn start_driver(spec: &NicSpec) -> Result<LaneDriver, String> {
    let start = || -> Result<LaneDriver> {
        let driver = BareDriver::start(spec)?;
        let (wake_driver, wake_shadow) = (driver.wake_driver.try_clone()?, driver.wake_shadow.try_clone()?);
        let (lane, pid) = (driver.lane.clone(), driver.pid());
        Ok(LaneDriver { lane, wake_driver, wake_shadow, pid, life: Box::new(driver) })
    };
    start().map_err(|error| format!("{error:#}"))
}

impl KeeperArgs {
    fn check(&self) -> Result<()> {
        let max = net_uk::limits::NICS_MAX;
        anyhow::ensure!(self.nics.len() <= max, "more than {max} network cards");
        Ok(())
    }

    fn options(self, arguments: Vec<OsString>) -> Options {
        let format = match self.output {
            Output::Text => Format::Text,
            Output::Json => Format::Json,
        };
        Options {
            nics: self.nics,
            host: self.host.spec(&self.rundir),
            store: self.store,
            injection: self.enable_injection,
            format,
            listen: self.listen.unwrap_or_else(|| self.rundir.join(api::NET_SOCKET_NAME)),
            arguments,
        }
    }
}

/// Readable after SIGTERM, SIGINT or SIGHUP.
fn stop_signal() -> Result<OwnedFd> {
    let (reader, writer) = std::io::pipe()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        let watched = signal_hook::low_level::pipe::register(signal, writer.try_clone()?);
        watched.context("watch for signals")?;
    }
    Ok(reader.into())
}
