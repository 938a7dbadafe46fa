//! `xs_uk`: a replicated xenstore, in place of xenstored.
//!
//! Started by a user it is the store's warden and starts itself again in the roles of gateway and replicas. As
//! `xs_uk bench` it measures itself beside the stock daemons.
#![forbid(unsafe_code)]

mod args;
mod attention;
mod background;
mod deposit;
mod endpoints;
mod engine;
mod error;
mod fairness;
mod gateway;
mod limits;
mod log_limit;
mod member;
mod poller;
mod replica;
mod service;
mod snapshot;
mod standalone;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Args, Role};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "bench") {
        return xs_bench::main(words);
    }
    let args = Args::parse();
    if let Err(error) = args.config() {
        complain(&error);
        return ExitCode::from(2);
    }
    if args.role.is_none() && !args.no_fork {
        return finish(background::start(&args));
    }
    start_log(&args);
    die_of_panics();
    if args.role.is_none() && args.respawn {
        return match background::keep_running() {
            Ok(code) => code,
            Err(error) => finish(Err(error)),
        };
    }
    finish(run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    warden::raise_descriptor_limit();
    match args.role {
        None => standalone::run(args),
        Some(Role::Gateway) => Ok(gateway::run()?),
        Some(Role::Member) => Ok(member::run(&args.engine.member(&args.rundir))?),
        Some(Role::Replica) => {
            let own_ring = !args.no_domain_init;
            let options = replica::ReplicaOptions {
                host: args.host(),
                config: args.config()?,
                own_ring,
                watch_event_timeout_s: args.watch_event_timeout_s()?,
                engine: args.engine.clone(),
                rundir: args.rundir.clone(),
                replicas: args.replicas,
            };
            Ok(replica::run(options)?)
        }
    }
}

fn start_log(args: &Args) {
    let filter = EnvFilter::try_from_env("PPVMM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let file =
        args.trace_file.as_ref().map(|path| std::fs::File::options().create(true).append(true).open(path));
    match file {
        Some(Ok(file)) => builder.with_ansi(false).with_writer(std::sync::Mutex::new(file)).init(),
        other => {
            builder.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init();
            if let Some(Err(error)) = other {
                tracing::warn!(%error, "the trace file cannot be opened");
            }
        }
    }
}

/// A broken invariant ends the process on the spot. Unwinding would drop what a successor takes over: a leader's clients are
/// closed by whoever drops them.
fn die_of_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            complain(&format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn complain(what: &dyn std::fmt::Display) {
    use std::io::Write;
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "xs_uk: {what}");
}
