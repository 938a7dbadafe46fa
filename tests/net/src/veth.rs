//! The wire: two virtual interfaces.

use std::os::unix::process::CommandExt;
use std::process::Command;

use sim_guest::net::Mac;

use crate::error::{Error, Result, system};
use crate::limits::QUEUE_FRAMES;

/// Set in a process that has a network of its own.
const OWN_NETWORK: &str = "PPVMM_OWN_NETWORK";

/// Two interfaces that are each other's wire.
pub struct Veth {
    ours: String,
    theirs: String,
}

impl Veth {
    /// Makes them; they end with the value. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// [`Error::Ip`].
    pub fn create() -> Result<Self> {
        let id = std::process::id() % 100_000;
        let (ours, theirs) = (format!("pcn{id}a"), format!("pcn{id}b"));
        ip(&["link", "add", &ours, "type", "veth", "peer", "name", &theirs])?;
        let veth = Self { ours, theirs };
        for name in [&veth.ours, &veth.theirs] {
            // Nobody else is to speak there.
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            let _ = std::fs::write(path, "1");
            ip(&["link", "set", "dev", name, "up", "txqueuelen", QUEUE_FRAMES])?;
        }
        Ok(veth)
    }

    /// A TAP device, whose other end is the interface itself.
    ///
    /// # Errors
    /// [`Error::Ip`].
    pub fn create_tap() -> Result<Self> {
        let name = format!("pcn{}t", std::process::id() % 100_000);
        ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        let tap = Self { ours: name.clone(), theirs: name };
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.ours), "1");
        ip(&["link", "set", "dev", &tap.ours, "up"])?;
        Ok(tap)
    }

    /// Makes it as slow as a wire of so many Mbit/s, gaps between frames and all that a card adds to a frame included.
    ///
    /// # Errors
    /// [`Error::Ip`].
    pub fn limit(&self, mbits: u32) -> Result<()> {
        let rate = format!("{mbits}mbit");
        for name in [&self.ours, &self.theirs] {
            // Preamble, checksum and gap are 24 bytes. Whoever sends waits before so much is in the queue.
            let bucket = ["rate", &rate, "burst", "16kb", "limit", "64mb", "overhead", "24"];
            run("tc", &[&["qdisc", "add", "dev", name, "root", "tbf"][..], &bucket].concat())?;
        }
        Ok(())
    }

    /// Switches the first end off or on: neither end has a carrier without it.
    ///
    /// # Errors
    /// [`Error::Ip`].
    pub fn set_up(&self, up: bool) -> Result<()> {
        ip(&["link", "set", "dev", &self.ours, if up { "up" } else { "down" }])
    }

    /// The end of who is measured or tested.
    pub fn ours(&self) -> &str {
        &self.ours
    }

    /// The other end.
    pub fn theirs(&self) -> &str {
        &self.theirs
    }

    /// The address of the other end.
    pub fn peer_mac(&self) -> Mac {
        Mac([0x02, 0x50, 0x50, 0, 0, 1])
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.ours]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &'static str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().map_err(system("run ip or tc"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Ip { program, arguments: arguments.join(" "), message })
}

/// Runs this program again in a network namespace of its own, with the same arguments, and does not come back; does nothing
/// in a process that has one. Without root it takes a user namespace besides.
///
/// # Errors
/// If `unshare` is not there. That namespaces are not permitted the new process tells, and ends with status 1.
pub fn in_own_network() -> Result<()> {
    if std::env::var_os(OWN_NETWORK).is_some() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let program = std::env::current_exe().map_err(system("this program's path"))?;
    let error = command.arg("--").arg(program).args(std::env::args_os().skip(1)).env(OWN_NETWORK, "1").exec();
    Err(Error::System { what: "run unshare", source: error })
}
