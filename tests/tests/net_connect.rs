//! A guest's network is connected even if the backend dies in the middle of connecting it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Stand, binary};

const WAIT: Duration = Duration::from_secs(20);

/// Told to end at its end.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Killed, the backend would be started again by those who watch it.
        let pid = Pid::from_child(&self.0);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.0.wait();
    }
}

fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

/// Waits for a line with these words; gives all up to it.
fn wait_for(lines: &Receiver<String>, words: &[&str]) -> Vec<String> {
    let mut seen = vec![];
    loop {
        match lines.recv_timeout(WAIT) {
            Ok(line) => seen.push(line),
            Err(_) => panic!("no line with {words:?} in {seen:#?}"),
        }
        if seen.last().is_some_and(|line| words.iter().all(|word| line.contains(word))) {
            return seen;
        }
    }
}

fn net_uk(stand: &Stand) -> (Process, Receiver<String>) {
    let mut keeper = Command::new(binary("net_uk"))
        .args(["keeper", "--profile", "local", "--enable-injection", "-o", "json", "--rundir"])
        .arg(stand.rundir())
        .arg("--store")
        .arg(stand.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let events = lines_of(keeper.stdout.take().unwrap());
    (Process(keeper), events)
}

fn guest(stand: &Stand) -> (Process, Receiver<String>) {
    let mut guest = Command::new(binary("sim-net-guest"))
        .arg("--hv-socket")
        .arg(stand.hv_socket())
        .arg("--create")
        .arg(stand.socket())
        .args(["--mac", "00:16:3e:77:00:01", "--wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = lines_of(guest.stderr.take().unwrap());
    (Process(guest), told)
}

/// It died between binding the guest's event channels and recording that: they were bound for ever, nobody knew, and the guest
/// was refused.
#[test]
fn event_channels_that_a_dead_shadow_bound_are_bound_again() {
    let stand = Stand::start(&[]);
    let (mut keeper, events) = net_uk(&stand);
    wait_for(&events, &["shadow", "ready"]);
    writeln!(keeper.0.stdin.as_mut().unwrap(), "inject shadow die:bound:1").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let (_guest, told) = guest(&stand);
    wait_for(&events, &["shadow", "ended", "Signal(9)"]);
    wait_for(&events, &["shadow", "ports_closed"]);
    wait_for(&told, &["Connected"]);
}
