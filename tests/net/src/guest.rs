//! A simulated guest as a process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use serde::Deserialize;
use sim_guest::net::Mac;

use crate::error::{Error, Result, system};
use crate::limits::ANSWER_WAIT;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct GuestOptions<'a> {
    /// The program `sim-net-guest`.
    pub program: &'a Path,
    /// The hypervisor's stand-in.
    pub hv_socket: &'a Path,
    /// The store.
    pub store: &'a Path,
    /// Its address.
    pub mac: Mac,
    /// To whom it sends.
    pub peer_mac: Mac,
    /// Frames a second; 0 is as many as the rings take.
    pub rate: u64,
    /// Number of its flow.
    pub flow: u64,
    /// Bytes of the smallest and of the largest frame.
    pub sizes: (usize, usize),
    /// Further arguments.
    pub more: &'a [&'a str],
}

/// What a guest tells, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub struct GuestReport {
    /// Its number.
    pub domid: u16,
    /// When, by the clock that all processes share.
    pub at_ns: u64,
    /// What it sent.
    pub sent: Sent,
    /// What it received.
    pub received: Received,
    /// Its interfaces.
    interfaces: BTreeMap<String, Interface>,
}

impl GuestReport {
    /// Changes of the backend's state that the guest saw beyond the first connection.
    pub fn state_changes(&self) -> u64 {
        self.interfaces.values().map(|interface| interface.backend.changes.saturating_sub(1)).sum()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Interface {
    backend: Backend,
}

#[derive(Clone, Debug, Deserialize)]
struct Backend {
    changes: u64,
}

/// What was sent.
#[derive(Clone, Debug, Deserialize)]
pub struct Sent {
    /// Frames put on rings.
    pub frames: u64,
    /// Frames that the interface dropped.
    pub dropped: u64,
}

/// What was received.
#[derive(Clone, Debug, Deserialize)]
pub struct Received {
    /// Different frames.
    pub received: u64,
    /// Frames that came again.
    pub duplicated: u64,
    /// Frames that came late.
    pub reordered: u64,
    /// Frames that were changed.
    pub corrupt: u64,
    /// The longest time without a frame.
    pub longest_gap_ns: u64,
    /// By who sent them.
    #[serde(default)]
    pub flows: Vec<Flow>,
}

/// What came of one flow.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// Its number.
    pub flow: u64,
    /// Different frames.
    pub received: u64,
}

impl Received {
    /// Different frames of a flow.
    pub fn of_flow(&self, flow: u64) -> u64 {
        self.flows.iter().find(|known| known.flow == flow).map_or(0, |known| known.received)
    }
}

/// A simulated guest; killed with the value, unless it was ended.
pub struct Guest {
    process: Child,
    commands: Option<ChildStdin>,
    reports: Receiver<String>,
    connected: Arc<AtomicBool>,
    mac: Mac,
}

impl Guest {
    /// Makes a domain with an interface and starts it.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn start(options: GuestOptions<'_>) -> Result<Self> {
        let (least, most) = options.sizes;
        let mut process = Command::new(options.program)
            .arg("--hv-socket")
            .arg(options.hv_socket)
            .arg("--create")
            .arg(options.store)
            .args(["--mac", &options.mac.to_string(), "--peer-mac", &options.peer_mac.to_string()])
            .args(["--rate", &options.rate.to_string(), "--flow", &options.flow.to_string()])
            .args(["--size-min", &least.to_string(), "--size-max", &most.to_string()])
            .args(options.more)
            .args(["--linger-ms", "100", "-o", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system("start sim-net-guest"))?;
        let (Some(output), Some(errors)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(Error::Guest { what: "has no pipes", text: String::new() });
        };
        let (sender, reports) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let connected = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&connected);
        std::thread::spawn(move || listen(BufReader::new(errors), &heard));
        let commands = process.stdin.take();
        Ok(Self { process, commands, reports, connected, mac: options.mac })
    }

    /// Its address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Is its interface connected?
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Gives it a command: `start`, `stop`.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn command(&mut self, command: &str) -> Result<()> {
        let Some(commands) = &mut self.commands else { return Ok(()) };
        writeln!(commands, "{command}").map_err(system("command a guest"))
    }

    /// Its account so far.
    ///
    /// # Errors
    /// [`Error::Guest`] if it says nothing.
    pub fn report(&mut self) -> Result<GuestReport> {
        self.command("report")?;
        parse(&self.reports.recv_timeout(ANSWER_WAIT).unwrap_or_default())
    }

    /// Ends it; gives its account.
    ///
    /// # Errors
    /// [`Error::Guest`] if it says nothing, or if the backend broke its interface.
    pub fn end(mut self) -> Result<GuestReport> {
        drop(self.commands.take());
        let text = self.reports.recv_timeout(ANSWER_WAIT).unwrap_or_default();
        let status = self.process.wait().map_err(system("wait for a guest"))?;
        if !status.success() {
            return Err(Error::Guest { what: "says that the backend broke its interface", text });
        }
        parse(&text)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Neither fails for one that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parse(text: &str) -> Result<GuestReport> {
    let report = serde_json::from_str(text);
    report.map_err(|_| Error::Guest { what: "gives no account", text: text.to_owned() })
}

fn listen(errors: impl BufRead, connected: &AtomicBool) {
    for line in errors.lines().map_while(std::result::Result::ok) {
        if line.ends_with("Connected") {
            connected.store(true, Ordering::Relaxed);
        }
        if line.contains("failed") || line.contains("panicked") {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_after_the_first_connection_count() {
        let text = r#"{"domid":1,"at_ns":5,"sent":{"frames":1,"dropped":0},
            "received":{"received":1,"duplicated":0,"reordered":0,"corrupt":0,"longest_gap_ns":7},
            "interfaces":{"device/vif/0":{"backend":{"changes":3}}}}"#;
        assert_eq!(parse(text).unwrap().state_changes(), 2);
        assert!(matches!(parse(""), Err(Error::Guest { .. })));
    }
}
