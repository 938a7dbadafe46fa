//! The broker of the local profile: stands for the hypervisor.
//!
//! `ppvmm-hv --socket PATH` serves; `ppvmm-hv --socket PATH list|create|destroy DOMID|shutdown DOMID REASON` asks a
//! running one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hypervisor::local::server::Server;
use hypervisor::local::{Broker, NewDomain};
use hypervisor::{DomId, DomainState};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "usage: ppvmm-hv --socket PATH [list | create [DOMID] | shutdown DOMID REASON | dying DOMID | destroy DOMID]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ppvmm-hv: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let (flag, socket, command) = match arguments {
        [flag, socket, command @ ..] => (flag.as_str(), PathBuf::from(socket), command),
        _ => return Err(USAGE.to_owned()),
    };
    if flag != "--socket" {
        return Err(USAGE.to_owned());
    }
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let outcome = if command.is_empty() { serve(&socket) } else { ask(&socket, &command)? };
    outcome.map_err(|error| error.to_string())
}

fn serve(socket: &Path) -> hypervisor::Result<()> {
    raise_descriptor_limit();
    let mut server = Server::bind(socket)?;
    eprintln!("ppvmm-hv: serving on {}", socket.display());
    server.run().map(|never| match never {})
}

/// A domain with a guest takes five descriptors. With less than that the broker refuses, it does not fail.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The outer error is bad usage.
fn ask(socket: &Path, command: &[&str]) -> Result<hypervisor::Result<()>, String> {
    let broker = Broker::connect(socket).map_err(|error| error.to_string())?;
    Ok(match command {
        ["list"] => broker.list().map(|domains| domains.iter().for_each(print)),
        ["create"] => broker.create_domain(NewDomain::default()).map(|domid| say(&domid.to_string())),
        ["create", domid] => {
            let new = NewDomain { domid: Some(parse(domid)?), handle: None };
            broker.create_domain(new).map(|domid| say(&domid.to_string()))
        }
        ["shutdown", domid, reason] => {
            broker.shutdown(parse(domid)?, reason.parse().map_err(|_| USAGE.to_owned())?)
        }
        ["dying", domid] => broker.set_dying(parse(domid)?),
        ["destroy", domid] => broker.destroy(parse(domid)?),
        _ => return Err(USAGE.to_owned()),
    })
}

fn parse(domid: &str) -> Result<DomId, String> {
    domid.parse().map(DomId).map_err(|_| format!("not a domid: {domid}"))
}

fn print(state: &DomainState) {
    let life = match (state.dying, state.shutdown_reason) {
        (true, _) => "dying".to_owned(),
        (false, Some(reason)) => format!("shutdown({reason})"),
        (false, None) => "running".to_owned(),
    };
    say(&format!("{}\t{life}", state.domid));
}

/// The answer to a command goes to standard output.
fn say(line: &str) {
    use std::io::Write;
    // A reader that went away wants no more of it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
