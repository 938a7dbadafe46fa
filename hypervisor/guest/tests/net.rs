//! The interface with a store: its keys, its backend's states, its traffic as a process, and how it misbehaves.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "each test file uses a part")]
mod echo;
#[allow(dead_code, reason = "each test file uses a part")]
mod model;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use echo::Echo;
use hypervisor::{GrantRef, Port};
use model::{Lab, Store};
use serde_json::{Value, json};
use sim_guest::limits::{COMMAND_BYTES_MAX, SEND_BATCH, TX_FRAME_BYTES_MAX};
use sim_guest::net::ring::REQ_PROD_OFFSET;
use sim_guest::net::traffic::{Sender, SenderOptions};
use sim_guest::net::{Broken, Hostile, Mac, NetDriver, NetOptions, Netfront, Sent, TxFrame};
use sim_guest::{Class, Error, Frontends, Guest};

/// The tests may run on a machine that has no time for them.
const PATIENCE: Duration = Duration::from_secs(120);
const VIF: &str = "device/vif/0";
const BACKEND: &str = "/backend/vif/1/0";

struct Net {
    lab: Lab,
    store: Store,
}

impl Net {
    fn start(features: &[(&str, &str)]) -> Self {
        let lab = Lab::start();
        let store = Store::start(&lab.socket, lab.domid);
        for (key, value) in features {
            store.set(&format!("{BACKEND}/{key}"), value.as_bytes());
        }
        for (key, value) in
            [("backend-id", "0"), ("mac", "00:16:3e:00:00:01"), ("state", "1"), ("backend", BACKEND)]
        {
            store.set(&format!("{VIF}/{key}"), value.as_bytes());
        }
        Self { lab, store }
    }

    fn full() -> Self {
        Self::start(&[("feature-rx-copy", "1"), ("feature-sg", "1"), ("feature-gso-tcpv4", "1")])
    }

    fn options(&self) -> NetOptions {
        NetOptions::new(self.lab.socket.clone(), self.lab.domid)
    }

    fn state(&self, state: &str) {
        self.store.set(&format!("{BACKEND}/state"), state.as_bytes());
    }

    fn get(&self, key: &str) -> Option<String> {
        self.store.get(&format!("{VIF}/{key}")).map(|value| String::from_utf8(value).unwrap())
    }

    fn number(&self, key: &str) -> u32 {
        self.get(key).unwrap_or_else(|| panic!("{key} is missing")).parse().unwrap()
    }

    fn echo(&self) -> Echo {
        let [tx, rx] = ["tx-ring-ref", "rx-ring-ref"].map(|key| GrantRef(self.number(key)));
        Echo::connect(&self.lab.socket, self.lab.domid, tx, rx, Port(self.number("event-channel")))
    }

    fn guest(&self, options: NetOptions) -> Simulated {
        let mut guest = Guest::attach(&self.lab.socket, self.lab.domid).unwrap();
        let frontends = Frontends::start(&mut guest, vec![Class::Vif]).unwrap();
        Simulated { guest, frontends, driver: NetDriver::new(options) }
    }

    /// A guest and its backend, both connected.
    fn pair(&self, options: NetOptions) -> (Simulated, Echo) {
        let mut guest = self.guest(options);
        self.state("2");
        guest.sees(2).unwrap();
        let echo = self.echo();
        self.state("4");
        guest.sees(4).unwrap();
        (guest, echo)
    }
}

struct Simulated {
    guest: Guest,
    frontends: Frontends,
    driver: NetDriver,
}

impl Simulated {
    /// Serves events until one says that the backend is in this state.
    fn sees(&mut self, state: u8) -> Result<(), Error> {
        let before = self.events();
        loop {
            let event = self.guest.next_event(PATIENCE)?.expect("an event of the store");
            self.frontends.handle_with(&mut self.guest, &event, &mut self.driver)?;
            let seen = self.driver.seen(VIF).is_some_and(|seen| seen.states.last() == Some(&state));
            if seen && (state != 4 || self.events() != before) {
                return Ok(());
            }
        }
    }

    fn events(&self) -> u64 {
        self.driver.seen(VIF).map_or(0, |seen| seen.events)
    }

    fn front(&mut self) -> &mut Netfront {
        self.driver.front(VIF).unwrap()
    }

    fn receive(&mut self) -> usize {
        let mut received = 0;
        self.front().handle_events(&mut |_, _| received += 1).unwrap();
        received
    }
}

#[test]
fn keys_are_those_that_linux_writes() {
    let net = Net::full();
    let mut guest = net.guest(net.options());
    net.state("1");
    guest.sees(1).unwrap();
    assert_eq!(net.get("tx-ring-ref"), None);
    net.state("2");
    guest.sees(2).unwrap();
    assert_eq!(net.get("state").unwrap(), "4");
    for key in [
        "request-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
    ] {
        assert_eq!(net.get(key).unwrap(), "1", "{key}");
    }
    for key in ["tx-ring-ref", "rx-ring-ref", "event-channel"] {
        net.number(key);
    }
    for key in ["multi-queue-num-queues", "event-channel-tx", "queue-0/tx-ring-ref"] {
        assert_eq!(net.get(key), None, "{key}");
    }
    assert_eq!(guest.front().mac(), Mac([0, 0x16, 0x3e, 0, 0, 1]));
}

#[test]
fn queues_and_split_channels_have_keys_of_their_own() {
    let net = Net::start(&[
        ("feature-rx-copy", "1"),
        ("multi-queue-max-queues", "2"),
        ("feature-split-event-channels", "1"),
    ]);
    let options = NetOptions { queues: 4, split_event_channels: true, ..net.options() };
    let mut guest = net.guest(options);
    net.state("2");
    guest.sees(2).unwrap();
    assert_eq!(net.number("multi-queue-num-queues"), 2);
    assert_eq!(guest.front().queue_count(), 2);
    let mut numbers = vec![];
    for queue in ["queue-0", "queue-1"] {
        let ports = ["event-channel-tx", "event-channel-rx"].map(|key| net.number(&format!("{queue}/{key}")));
        let rings = ["tx-ring-ref", "rx-ring-ref"].map(|key| net.number(&format!("{queue}/{key}")));
        numbers.extend(ports.map(|port| ("port", port)));
        numbers.extend(rings.map(|ring| ("ring", ring)));
    }
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count, "all differ");
    for key in ["tx-ring-ref", "event-channel", "queue-0/event-channel", "queue-2/tx-ring-ref"] {
        assert_eq!(net.get(key), None, "{key}");
    }
}

#[test]
fn one_queue_of_many_keeps_the_plain_keys() {
    let net = Net::start(&[("feature-rx-copy", "1"), ("multi-queue-max-queues", "4")]);
    let mut guest = net.guest(net.options());
    net.state("2");
    guest.sees(2).unwrap();
    assert_eq!(net.number("multi-queue-num-queues"), 1);
    net.number("tx-ring-ref");
}

#[test]
fn a_backend_that_cannot_copy_is_given_up() {
    let net = Net::start(&[("feature-sg", "1")]);
    let mut guest = net.guest(net.options());
    net.state("2");
    assert!(matches!(guest.sees(2), Err(Error::NoRxCopy)));
    assert_eq!(net.get("state").unwrap(), "1");
}

#[test]
fn changes_of_the_backends_state_are_counted() {
    let net = Net::full();
    let (mut guest, _echo) = net.pair(net.options());
    let seen = guest.driver.seen(VIF).unwrap().clone();
    assert_eq!((seen.changes, seen.events), (1, 1));
    net.state("4");
    guest.sees(4).unwrap();
    let seen = guest.driver.seen(VIF).unwrap().clone();
    assert_eq!((seen.changes, seen.events), (1, 2));
    net.state("5");
    guest.sees(5).unwrap();
    assert_eq!(net.get("state").unwrap(), "6");
    let seen = guest.driver.seen(VIF).unwrap();
    assert_eq!((seen.changes, seen.states.last()), (2, Some(&5)));
    assert!(guest.driver.front(VIF).is_none(), "its rings are gone");
    assert_eq!(guest.driver.stats().next().unwrap().1.mac, "00:16:3e:00:00:01");
}

#[test]
fn a_breach_takes_the_interface_out_of_use() {
    let net = Net::full();
    let (mut guest, mut echo) = net.pair(net.options());
    echo.tx_response(0, 0);
    echo.notify();
    guest.receive();
    assert_eq!(guest.front().broken(), Some(Broken::TxTooManyResponses));
    assert_eq!(guest.front().send(0, &TxFrame::plain(&[1; 60])).unwrap(), Sent::Dropped);
    echo.send(&[1; 60], None, 0);
    echo.notify();
    assert_eq!(guest.receive(), 0);
    let stats = guest.front().stats();
    let json: Value = serde_json::to_value(&stats).unwrap();
    assert_eq!((&json["broken"], &json["tx_refused"]), (&"tx-too-many-responses".into(), &1.into()));
}

#[test]
fn rings_are_looked_at_only_after_an_event() {
    let net = Net::full();
    let (mut guest, mut echo) = net.pair(net.options());
    guest.receive();
    echo.send(&[1; 60], None, 0);
    assert_eq!(guest.receive(), 0, "the backend forgot to notify");
    echo.notify();
    assert_eq!(guest.receive(), 1);
    let before = guest.front().stats().spurious_events;
    echo.notify();
    assert_eq!(guest.receive(), 0);
    assert_eq!(guest.front().stats().spurious_events, before + 1);
}

#[test]
fn what_the_backend_does_not_take_is_not_sent() {
    let net = Net::start(&[("feature-rx-copy", "1")]);
    let (mut guest, mut echo) = net.pair(net.options());
    let large = sim_guest::net::wire::Gso { size: 1, kind: sim_guest::net::wire::GsoKind::TcpV4 };
    let front = guest.front();
    assert_eq!(front.send(0, &TxFrame::plain(&[1; 4097])).unwrap(), Sent::Dropped);
    assert_eq!(front.send(0, &TxFrame::large(&[1; 60], large)).unwrap(), Sent::Dropped);
    assert_eq!(front.send(0, &TxFrame::plain(&[1; 4096])).unwrap(), Sent::Queued);
    assert!(echo.step());
    let net = Net::full();
    let (mut guest, _echo) = net.pair(net.options());
    let front = guest.front();
    assert_eq!(front.send(0, &TxFrame::plain(&vec![1; TX_FRAME_BYTES_MAX + 1])).unwrap(), Sent::Dropped);
    assert_eq!(front.send(0, &TxFrame::plain(&vec![1; TX_FRAME_BYTES_MAX])).unwrap(), Sent::Queued);
}

#[test]
fn a_sender_goes_in_batches_until_the_ring_is_full() {
    let net = Net::full();
    let (mut guest, mut echo) = net.pair(net.options());
    let options =
        SenderOptions { to: Mac([2; 6]), from: None, flow: 9, load: "0:60-60".parse().unwrap(), seed: 1 };
    let mut sender = Sender::new(options);
    assert!(sender.step(guest.front()).unwrap());
    assert_eq!(sender.report().frames, SEND_BATCH as u64);
    while sender.step(guest.front()).unwrap() {}
    assert_eq!((sender.report().frames, sender.report().full), (237, 1));
    echo.step();
    let mut receiver = sim_guest::net::traffic::Receiver::default();
    guest
        .front()
        .handle_events(&mut |_, frame| {
            receiver.take(frame.bytes, u64::MAX);
        })
        .unwrap();
    let report = receiver.report();
    assert_eq!((report.received, report.lost, report.flows[0].flow), (237, 0, 9));
}

fn hostile(hostile: Hostile) -> (Net, Simulated, Echo) {
    let net = Net::full();
    let mut options = net.options();
    hostile.prepare(&mut options);
    let (guest, echo) = net.pair(options);
    (net, guest, echo)
}

#[test]
fn never_take_leaves_responses_and_frames() {
    let (_net, mut guest, mut echo) = hostile(Hostile::NeverTake);
    while guest.front().send(0, &TxFrame::plain(&[1; 60])).unwrap() == Sent::Queued {}
    echo.step();
    while echo.buffers() > 0 {
        echo.send(&[1; 60], None, 0);
    }
    echo.notify();
    assert_eq!(guest.receive(), 0);
    assert_eq!(guest.front().send(0, &TxFrame::plain(&[1; 60])).unwrap(), Sent::Full);
    assert_eq!(echo.buffers(), 0);
}

#[test]
fn post_nothing_posts_nothing() {
    let (_net, mut guest, mut echo) = hostile(Hostile::PostNothing);
    guest.front().send(0, &TxFrame::plain(&[1; 60])).unwrap();
    echo.step();
    assert_eq!((echo.buffers(), echo.dropped), (0, 1));
}

#[test]
fn corrupt_indices_are_impossible_ones() {
    let (_net, mut guest, echo) = hostile(Hostile::CorruptIndices);
    let mut random = fastrand::Rng::with_seed(1);
    let mut impossible = 0;
    for _ in 0..100 {
        Hostile::CorruptIndices.act(guest.front(), &mut random).unwrap();
        impossible += u32::from(echo.waiting() > 256) + u32::from(echo.buffers() > 256);
    }
    assert!(impossible > 50, "{impossible}");
}

#[test]
fn a_random_ring_has_requests_without_sense() {
    let (_net, mut guest, mut echo) = hostile(Hostile::RandomRing);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..100 {
        Hostile::RandomRing.act(guest.front(), &mut random).unwrap();
        echo.step();
    }
    assert!(echo.senseless > 0, "{}", echo.senseless);
    assert!(echo.tx.load_u32(REQ_PROD_OFFSET) > 200);
}

#[test]
fn an_event_storm_never_ends() {
    let (_net, mut guest, mut echo) = hostile(Hostile::EventStorm);
    let mut random = fastrand::Rng::with_seed(1);
    echo.step();
    for _ in 0..10 {
        Hostile::EventStorm.act(guest.front(), &mut random).unwrap();
        assert_eq!(echo.events(), 1, "an event for nothing");
    }
    assert_eq!(echo.waiting(), 0);
}

#[test]
fn huge_chains_are_longer_than_any_backend_takes() {
    let (_net, mut guest, mut echo) = hostile(Hostile::HugeChains);
    let mut random = fastrand::Rng::with_seed(1);
    Hostile::HugeChains.act(guest.front(), &mut random).unwrap();
    assert!(echo.waiting() > 18);
    echo.step();
    assert_eq!((echo.senseless, echo.frames.len()), (1, 0));
}

fn spawn(net: &Net, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sim-net-guest"))
        .args(["--hv-socket", net.lab.socket.to_str().unwrap(), "--domid", &net.lab.domid.to_string()])
        .args(["--peer-mac", "00:16:3e:00:00:02", "-o", "json", "--linger-ms", "50"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// As the model's, for processes that may be given little time.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn connect(net: &Net) -> Echo {
    net.state("2");
    until("the frontend", || net.get("state").as_deref() == Some("4"));
    let echo = net.echo();
    net.state("4");
    echo
}

fn tell(child: &mut Child, command: &[u8]) {
    child.stdin.as_mut().unwrap().write_all(command).unwrap();
}

/// Serves a process until its account satisfies `done`.
fn serve(child: &mut Child, echo: &mut Echo, mut done: impl FnMut(&Value) -> bool) {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    until("the traffic", || {
        echo.step();
        let mut line = String::new();
        tell(child, b"report\n");
        output.read_line(&mut line).unwrap();
        done(&serde_json::from_str(&line).unwrap())
    });
    child.stdout = Some(output.into_inner());
}

/// It sent, sends no more, and all came back.
fn is_quiet(report: &Value) -> bool {
    report["sent"]["frames"] != 0
        && report["is_sending"] == false
        && report["received"]["received"] == report["sent"]["frames"]
}

fn finish(mut child: Child) -> (Option<i32>, Value) {
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
    (output.status.code(), serde_json::from_str(&last).unwrap())
}

#[test]
fn the_process_sends_until_told_to_stop_and_tells_its_account() {
    let net = Net::full();
    let mut child =
        spawn(&net, &["--rate", "5000", "--size-max", "20000", "--splits", "random", "--seed", "5"]);
    let mut echo = connect(&net);
    serve(&mut child, &mut echo, |report| report["received"]["received"].as_u64() > Some(500));
    tell(&mut child, &[b'x'; COMMAND_BYTES_MAX + 1]);
    tell(&mut child, b"\nstop\n");
    serve(&mut child, &mut echo, is_quiet);
    let (code, report) = finish(child);
    assert_eq!(code, Some(0), "{report}");
    for fault in ["lost", "duplicated", "reordered", "corrupt", "foreign", "too_old"] {
        assert_eq!(report["received"][fault], 0, "{fault}");
    }
    let interface = &report["interfaces"][VIF];
    assert_eq!((&interface["broken"], &interface["tx_in_flight"]), (&Value::Null, &0.into()));
    assert_eq!((&interface["backend"]["changes"], &interface["rx"]["bad"]), (&1.into(), &json!({})));
    assert!(interface["rx"]["large"].as_u64() > Some(0));
    assert_eq!(net.get("state").unwrap(), "4");
}

#[test]
fn the_process_sends_as_fast_as_the_ring_takes_for_a_time() {
    let net = Net::full();
    let mut child = spawn(&net, &["--rate", "0", "--seconds", "0.3"]);
    let mut echo = connect(&net);
    serve(&mut child, &mut echo, is_quiet);
    let (code, report) = finish(child);
    assert_eq!(code, Some(0));
    assert_eq!(report["received"]["lost"], 0);
}

#[test]
fn the_process_says_by_its_status_that_the_backend_broke_it() {
    let net = Net::full();
    let mut child = spawn(&net, &["--wait"]);
    let mut echo = connect(&net);
    echo.tx_response(0, 0);
    echo.notify();
    serve(&mut child, &mut echo, |report| !report["interfaces"][VIF]["broken"].is_null());
    let (code, report) = finish(child);
    assert_eq!(code, Some(3));
    assert_eq!(report["interfaces"][VIF]["broken"], "tx-too-many-responses");
    assert_eq!(report["sent"]["frames"], 0);
}

#[test]
fn a_hostile_process_says_what_it_was() {
    let net = Net::full();
    let child = spawn(&net, &["--hostile", "random-ring"]);
    let mut echo = connect(&net);
    until("nonsense", || {
        echo.step();
        echo.senseless > 0
    });
    let (_, report) = finish(child);
    assert_eq!(report["hostile"], "random-ring");
}
