//! The command `net_uk`.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hypervisor::{HostSpec, Profile};
use net_bench::LaneDriver;
use net_uk::bare::BareDriver;
use net_uk::events::{Events, Format};
use net_uk::keeper::{Keeper, Options};
use nic::NicSpec;

/// A network backend for Xen guests that loses no frame when its NIC driver, or it itself, dies.
#[derive(Parser)]
#[command(
    version,
    after_help = "`net_uk bench --help`: measures it beside its driver alone and a bare wire.\n\nEXIT STATUS\n  0  told to stop\n  1  could not begin or go on\n  2  usage"
)]
struct Cli {
    #[command(subcommand)]
    role: RoleArgs,
}

#[derive(Subcommand)]
enum RoleArgs {
    /// Starts and watches all others; tells events on the standard output
    Keeper(KeeperArgs),
    /// The backend itself; started by the keeper
    #[command(hide = true)]
    Shadow(HostArgs),
    /// The driver of a network card; started by the keeper
    #[command(hide = true)]
    Driver,
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
    fn spec(&self) -> HostSpec {
        let profile = self.profile.map(|profile| match profile {
            ProfileArg::Xen => Profile::Xen,
            ProfileArg::Local => Profile::Local,
        });
        let mut spec = HostSpec::detect(profile, &PathBuf::from("/run/ppvmm"));
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
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().role {
        RoleArgs::Keeper(args) => keep(args),
        RoleArgs::Shadow(args) => Ok(net_uk::shadow::run(&args.spec())?),
        RoleArgs::Driver => Ok(net_uk::driver::run()?),
    }
    .map(|()| ExitCode::SUCCESS)
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

fn keep(args: KeeperArgs) -> Result<()> {
    let format = match args.output {
        Output::Text => Format::Text,
        Output::Json => Format::Json,
    };
    let options = Options {
        nics: args.nics,
        host: args.host.spec(),
        store: args.store,
        injection: args.enable_injection,
    };
    let stop = stop_signal().context("watch for signals")?;
    Ok(Keeper::new(options, Events::new(format), stop)?.run()?)
}

/// Readable after SIGTERM or SIGINT.
fn stop_signal() -> Result<OwnedFd> {
    let (reader, writer) = std::io::pipe()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader.into())
}
