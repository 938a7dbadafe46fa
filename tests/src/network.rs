//! Networks of tests' own.

use std::process::Command;

/// A command that runs another one in a network of its own.
pub fn in_own_network() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net");
    command
}

/// Without the right to make virtual interfaces there is nothing to test, which is said.
pub fn may_make_interfaces() -> bool {
    let link = ["ip", "link", "add", "ppvmm0", "type", "veth", "peer", "name", "ppvmm1"];
    let may = in_own_network().args(link).output().is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("no rights to make virtual interfaces: not tested");
    }
    may
}
