//! Simulated guests as processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use serde::Deserialize;
use sim_guest::net::Mac;
use tests::{Stand, binary};

use super::args::NetArgs;
use super::peer::Veth;

/// What a guest tells at its end, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub struct GuestReport {
    /// Its number.
    pub domid: u16,
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
    backend: Seen,
}

#[derive(Clone, Debug, Deserialize)]
struct Seen {
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
}

struct Guest {
    process: Child,
    commands: ChildStdin,
    output: ChildStdout,
    connected: Arc<AtomicBool>,
    mac: Mac,
}

/// All guests.
pub struct Guests {
    guests: Vec<Guest>,
    hostile: Vec<Guest>,
}

impl Guests {
    /// Makes domains and starts them; they send as soon as they are connected.
    pub fn start(stand: &Stand, args: &NetArgs, veth: &Veth) -> anyhow::Result<Self> {
        let guests = (0..args.guests).map(|number| Guest::start(stand, args, veth, number, None));
        let numbered = (args.guests..).zip(&args.hostile);
        let hostile = numbered.map(|(number, how)| Guest::start(stand, args, veth, number, Some(how)));
        Ok(Self { guests: guests.collect::<Result<_, _>>()?, hostile: hostile.collect::<Result<_, _>>()? })
    }

    /// Their addresses.
    pub fn macs(&self) -> Vec<Mac> {
        self.guests.iter().map(|guest| guest.mac).collect()
    }

    /// Are all connected?
    pub fn all_connected(&self) -> bool {
        self.guests.iter().all(|guest| guest.connected.load(Ordering::Relaxed))
    }

    /// Has them send no more.
    pub fn stop_sending(&self) -> anyhow::Result<()> {
        for guest in &self.guests {
            writeln!(&guest.commands, "stop")?;
        }
        Ok(())
    }

    /// Ends them; gives their accounts.
    pub fn end(self) -> anyhow::Result<Vec<GuestReport>> {
        for mut guest in self.hostile {
            guest.process.kill()?;
            guest.process.wait()?;
        }
        self.guests.into_iter().map(Guest::end).collect()
    }
}

impl Guest {
    fn start(
        stand: &Stand,
        args: &NetArgs,
        veth: &Veth,
        number: u16,
        hostile: Option<&String>,
    ) -> anyhow::Result<Self> {
        let mac = Mac([0x00, 0x16, 0x3e, 0x77, 0, u8::try_from(number + 1).context("that many guests")?]);
        let mut process = Command::new(binary("sim-net-guest"))
            .arg("--hv-socket")
            .arg(stand.rundir().join("ppvmm-hv.sock"))
            .arg("--create")
            .arg(stand.socket())
            .args(["--mac", &mac.to_string(), "--peer-mac", &veth.peer_mac().to_string()])
            .args(["--rate", &args.rate.to_string(), "--flow", &(u64::from(number) + 1).to_string()])
            .args(["--size-min", &args.size_min.to_string(), "--size-max", &args.size_max.to_string()])
            .args(hostile.iter().flat_map(|how| ["--hostile", how.as_str()]))
            .args(["--linger-ms", "100", "-o", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("sim-net-guest")?;
        let commands = process.stdin.take().context("its standard input")?;
        let output = process.stdout.take().context("its standard output")?;
        let connected = Arc::new(AtomicBool::new(false));
        let errors = BufReader::new(process.stderr.take().context("its standard error")?);
        let heard = Arc::clone(&connected);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                if line.ends_with("Connected") {
                    heard.store(true, Ordering::Relaxed);
                }
                if line.contains("failed") || line.contains("panicked") {
                    eprintln!("{line}");
                }
            }
        });
        Ok(Self { process, commands, output, connected, mac })
    }

    fn end(mut self) -> anyhow::Result<GuestReport> {
        drop(self.commands);
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        let status = self.process.wait()?;
        let last = text.lines().last().unwrap_or_default();
        let report = serde_json::from_str(&text).or_else(|_| serde_json::from_str(last));
        let report: GuestReport = report.with_context(|| format!("a guest's account: {text}"))?;
        ensure!(status.success(), "guest {}: the backend broke its interface: {text}", report.domid);
        Ok(report)
    }
}
