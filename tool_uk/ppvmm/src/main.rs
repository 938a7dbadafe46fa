//! The `ppvmm` binary: the warden's client.
#![forbid(unsafe_code)]

mod args;
mod client;
mod exit;
mod limits;
mod net;
mod net_up;
mod print;
mod up;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use api::v1;
use args::{Cli, Command, EventsArgs, Fault, FlipArgs, Output, Up};
use clap::Parser;
use client::Warden;
use exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    match runtime.block_on(run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// A reader such as `head` that has seen enough is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("ppvmm: {error:#}");
    exit::code_of(error)
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let rundir = cli.rundir();
    match &cli.command {
        Command::Up(up) => bring_up(&rundir, up).await,
        Command::Down => bring_down(&rundir).await,
        Command::Status { output } => status(&rundir, *output).await,
        Command::Events(args) => events(&rundir, args).await,
        Command::Metrics => say(&Warden::connect(&rundir).await?.metrics().await?),
        Command::Inject { fault, target, flip } => inject(&rundir, *fault, target, flip).await,
        Command::Net { socket, command } => {
            let socket = socket.clone().unwrap_or_else(|| rundir.join(api::NET_SOCKET_NAME));
            net::run(&rundir, &socket, command).await
        }
        Command::Health { service } => {
            say_health(service, &Warden::connect(&rundir).await?.health(service).await?)
        }
    }
}

async fn bring_up(rundir: &Path, args: &Up) -> anyhow::Result<()> {
    say(&up::up(rundir, args).await?)?;
    match args.net_up() {
        Some(net) => say(&net_up::up(rundir, &net).await?),
        None => Ok(()),
    }
}

/// The network backend first: it needs the store.
async fn bring_down(rundir: &Path) -> anyhow::Result<()> {
    match net_up::down(&rundir.join(api::NET_SOCKET_NAME)).await {
        Ok(told) => say(&told)?,
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NoNet { .. })) => {}
        Err(error) => return Err(error),
    }
    say(&up::down(rundir).await?)
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", line.trim_end())?;
    Ok(out.flush()?)
}

async fn status(rundir: &Path, output: Output) -> anyhow::Result<()> {
    let status = Warden::connect(rundir).await?.status().await?;
    match output {
        Output::Json => say(&print::status_json(&status)?),
        Output::Table => say(&print::status_table(&status, unix_ms())),
    }
}

/// The Unix time in milliseconds.
fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

async fn events(rundir: &Path, args: &EventsArgs) -> anyhow::Result<()> {
    let mut stream = Warden::connect(rundir).await?.events(args.last, args.follow).await?;
    while let Some(response) = stream.message().await? {
        // An item of a newer warden's kind is passed over.
        let Some(item) = response.item else { continue };
        match args.output {
            Output::Json => say(&print::event_json(&item)?)?,
            Output::Table => say(&print::event_line(&item))?,
        }
    }
    Ok(())
}

async fn inject(rundir: &Path, fault: Fault, target: &str, flip: &FlipArgs) -> anyhow::Result<()> {
    let fault = match fault {
        Fault::Kill => v1::Fault::Kill,
        Fault::Stop => v1::Fault::Stop,
        Fault::Cont => v1::Fault::Cont,
        Fault::Flip => v1::Fault::Flip,
    };
    let FlipArgs { path, part, bit } = flip.clone();
    let flip = (fault == v1::Fault::Flip).then_some(v1::Flip { path, part, bit });
    match Warden::connect(rundir).await?.inject(target, fault, flip).await? {
        Some(hit) => say(&format!("{} (pid {})", hit.service, hit.pid)),
        None => say("warden"),
    }
}

/// Says what a service's health is, and fails if it does not serve.
fn say_health(service: &str, health: &str) -> anyhow::Result<()> {
    say(health)?;
    if health == "SERVING" {
        return Ok(());
    }
    let name = if service.is_empty() { "the whole" } else { service };
    Err(Failure::NotServing(format!("{name} does not serve")).into())
}
