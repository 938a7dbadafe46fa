//! The broker as a process of its own, with hosts and guests around it.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hypervisor::limits::{CLIENTS_MAX, DOMAINS_MAX, MESSAGE_BYTES_MAX, PORTS_MAX};
use hypervisor::local::{Access, Broker, LocalEvents, NewDomain};
use hypervisor::{
    CopyDirection, DomId, Error, EventChannels, GrantCopy, GrantRef, GrantStatus, Host, HostSpec, Port,
    Profile, Refusal, Region, Virq,
};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Resource, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(10);

struct Lab {
    broker: Child,
    spec: HostSpec,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_ppvmm-hv")))
    }

    fn start_by(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = HostSpec::detect(Some(Profile::Local), dir.path());
        let broker = command
            .arg("--socket")
            .arg(&spec.local_socket)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lab = Self { broker, spec, _dir: dir };
        until(|| Broker::connect(&lab.spec.local_socket).is_ok());
        lab
    }

    fn broker(&self) -> Broker {
        Broker::connect(&self.spec.local_socket).unwrap()
    }

    fn guest(&self) -> (DomId, LocalEvents) {
        let domid = self.broker().create_domain(NewDomain::default()).unwrap();
        let mut events = LocalEvents::open(self.broker(), domid).unwrap();
        let port = self.broker().store_port(domid).unwrap();
        events.claim(port).unwrap();
        assert_eq!(drain(&mut events), [port], "a claimed port is pending at first");
        (domid, events)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.broker.kill().ok();
        self.broker.wait().ok();
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes and unmasks all that is pending.
fn drain(events: &mut dyn EventChannels) -> Vec<Port> {
    let mut ports = vec![];
    while let Some(port) = events.pending().unwrap() {
        ports.push(port);
        events.unmask(port).unwrap();
    }
    ports
}

fn is_readable(events: &dyn EventChannels) -> bool {
    wait(events, 0)
}

fn wait(events: &dyn EventChannels, timeout_s: i64) -> bool {
    let fd = events.wait_fd();
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&rustix::time::Timespec { tv_sec: timeout_s, tv_nsec: 0 })).unwrap()
        == 1
}

fn duplicates(events: &dyn EventChannels) -> Vec<OwnedFd> {
    events.handles().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect()
}

#[test]
fn events_go_both_ways_and_the_page_is_shared() {
    let lab = Lab::start();
    let (domid, mut guest) = lab.guest();
    let mut host = Host::open(&lab.spec).unwrap();
    let store_port = lab.broker().store_port(domid).unwrap();
    let port = host.events.bind_interdomain(domid, store_port).unwrap();
    assert_eq!(drain(&mut *host.events), [port], "a fresh port is pending");
    assert!(!is_readable(&*host.events));

    guest.notify(store_port).unwrap();
    assert!(is_readable(&*host.events));
    assert_eq!(drain(&mut *host.events), [port]);
    host.events.notify(port).unwrap();
    assert!(is_readable(&guest));
    assert_eq!(drain(&mut guest), [store_port]);

    let (theirs, ours) =
        (lab.broker().map_store_page(domid).unwrap(), host.pages.map_guest(domid, 0xdead).unwrap());
    theirs.write(17, b"hello");
    let mut seen = [0; 5];
    ours.read(17, &mut seen);
    assert_eq!(&seen, b"hello");
}

#[test]
fn a_taken_port_stays_masked_until_unmasked() {
    let lab = Lab::start();
    let (domid, mut guest) = lab.guest();
    let mut host = Host::open(&lab.spec).unwrap();
    let port = host.events.bind_interdomain(domid, Port(1)).unwrap();
    assert_eq!(host.events.pending().unwrap(), Some(port));
    guest.notify(Port(1)).unwrap();
    assert_eq!(host.events.pending().unwrap(), None);
    assert!(!is_readable(&*host.events));
    host.events.unmask(port).unwrap();
    assert!(is_readable(&*host.events));
    assert_eq!(host.events.pending().unwrap(), Some(port));
}

#[test]
fn the_descriptor_stays_readable_until_all_is_taken() {
    let lab = Lab::start();
    let mut host = Host::open(&lab.spec).unwrap();
    let guests: Vec<_> = (0..3).map(|_| lab.guest()).collect();
    for (domid, _) in &guests {
        host.events.bind_interdomain(*domid, Port(1)).unwrap();
    }
    for _ in 0..3 {
        assert!(is_readable(&*host.events));
        assert!(host.events.pending().unwrap().is_some());
    }
    assert_eq!(host.events.pending().unwrap(), None);
    assert!(!is_readable(&*host.events));
}

#[test]
fn no_notification_is_lost_between_two_threads() {
    const ROUNDS: u32 = 50_000;
    let lab = Lab::start();
    let (domid, mut guest) = lab.guest();
    let mut host = Host::open(&lab.spec).unwrap();
    host.events.bind_interdomain(domid, Port(1)).unwrap();
    let (theirs, ours) =
        (lab.broker().map_store_page(domid).unwrap(), host.pages.map_guest(domid, 0).unwrap());
    let notifier = std::thread::spawn(move || {
        for round in 1..=ROUNDS {
            theirs.store_u32(0, round);
            guest.notify(Port(1)).unwrap();
        }
    });
    let mut seen = 0;
    while seen < ROUNDS {
        while let Some(port) = host.events.pending().unwrap() {
            host.events.unmask(port).unwrap();
            seen = ours.load_u32(0);
        }
        if seen < ROUNDS {
            assert!(wait(&*host.events, 5), "a notification was lost at {seen}");
        }
    }
    notifier.join().unwrap();
}

#[test]
fn binding_works_again_after_the_peer_closed() {
    let lab = Lab::start();
    let (domid, mut guest) = lab.guest();
    let mut host = Host::open(&lab.spec).unwrap();
    let port = host.events.bind_interdomain(domid, Port(1)).unwrap();
    let refused = host.events.bind_interdomain(domid, Port(1));
    assert!(matches!(refused, Err(Error::Refused(Refusal::PortState))));
    host.events.unbind(port).unwrap();
    guest.notify(Port(1)).unwrap();
    assert!(matches!(host.events.notify(port), Err(Error::Refused(Refusal::NoPort))));
    let again = host.events.bind_interdomain(domid, Port(1)).unwrap();
    assert_eq!(drain(&mut *host.events), [again]);
    drop(host);
    let mut next = Host::open(&lab.spec).unwrap();
    // The broker learns of the hang-up a moment later.
    until(|| next.events.bind_interdomain(domid, Port(1)).is_ok());
}

#[test]
fn own_page_and_port_are_those_of_domain_0() {
    let lab = Lab::start();
    let mut kernel = LocalEvents::open(lab.broker(), DomId::DOM0).unwrap();
    kernel.claim(Port(1)).unwrap();
    let mut host = Host::open(&lab.spec).unwrap();
    let (page, remote_port) = host.pages.map_own().unwrap();
    let port = host.events.bind_interdomain(DomId::DOM0, remote_port).unwrap();
    drain(&mut kernel);
    host.events.notify(port).unwrap();
    assert_eq!(drain(&mut kernel), [remote_port]);
    page.store_u32(2048, 7);
    assert_eq!(lab.broker().map_store_page(DomId::DOM0).unwrap().load_u32(2048), 7);
}

#[test]
fn changes_of_state_raise_the_virq() {
    let lab = Lab::start();
    let broker = lab.broker();
    let mut host = Host::open(&lab.spec).unwrap();
    let virq = host.events.bind_virq(Virq::DomExc).unwrap();
    let domid = broker.create_domain(NewDomain::default()).unwrap();
    let state = host.domains.get(domid).unwrap().unwrap();
    assert!(!state.shutdown && !state.dying && state.handle != [0; 16]);

    broker.shutdown(domid, 3).unwrap();
    assert_eq!(drain(&mut *host.events), [virq]);
    assert_eq!(host.domains.get(domid).unwrap().unwrap().shutdown_reason, Some(3));
    broker.set_dying(domid).unwrap();
    assert_eq!(drain(&mut *host.events), [virq]);
    assert!(host.pages.map_guest(domid, 0).is_ok());
    broker.destroy(domid).unwrap();
    assert!(host.pages.map_guest(domid, 0).unwrap_err().is_no_domain());
    assert_eq!(drain(&mut *host.events), [virq]);
    assert_eq!(host.domains.get(domid).unwrap(), None);

    let again = broker.create_domain(NewDomain { domid: Some(domid), handle: None }).unwrap();
    assert_eq!(again, domid);
    assert_ne!(host.domains.get(domid).unwrap().unwrap().handle, state.handle);
    assert_eq!(host.domains.list().unwrap().len(), 2);
}

#[test]
fn an_adopted_handle_keeps_ports_masks_and_events() {
    let lab = Lab::start();
    let (domid, mut guest) = lab.guest();
    let mut host = Host::open(&lab.spec).unwrap();
    let port = host.events.bind_interdomain(domid, Port(1)).unwrap();
    let virq = host.events.bind_virq(Virq::DomExc).unwrap();
    // The former holder dies between taking the event and serving it.
    assert_eq!(host.events.pending().unwrap(), Some(port));
    let kept = duplicates(&*host.events);
    drop(host);
    guest.notify(Port(1)).unwrap();

    let mut host = Host::adopt(&lab.spec, kept).unwrap();
    host.events.unmask(port).unwrap();
    host.events.unmask(virq).unwrap();
    assert_eq!(drain(&mut *host.events), [port]);
    host.events.notify(port).unwrap();
    assert_eq!(drain(&mut guest), [Port(1)]);
    lab.broker().shutdown(domid, 0).unwrap();
    assert_eq!(drain(&mut *host.events), [virq]);
}

#[test]
fn what_is_no_handle_is_not_adopted() {
    let lab = Lab::start();
    let host = Host::open(&lab.spec).unwrap();
    let mut two = duplicates(&*host.events);
    two.pop();
    assert!(matches!(Host::adopt(&lab.spec, two), Err(Error::Adopt(_))));
    let mut turned = duplicates(&*host.events);
    turned.reverse();
    assert!(matches!(Host::adopt(&lab.spec, turned), Err(Error::Adopt(_))));
    let mut swapped = duplicates(&*host.events);
    swapped.swap(0, 1);
    assert!(matches!(Host::adopt(&lab.spec, swapped), Err(Error::Adopt(_))));
}

/// Run by the test below in a process of its own: binds, hands its handle to its parent as inherited descriptors and
/// is killed.
#[test]
fn two_processes_hand_a_handle_over() {
    const SOCKET: &str = "HV_TEST_CHILD_SOCKET";
    if let Some(socket) = std::env::var_os(SOCKET) {
        return child(PathBuf::from(socket));
    }
    let lab = Lab::start();
    let (domid, mut guest) = lab.guest();
    assert_eq!(domid, DomId(1));
    let host = Host::open(&lab.spec).unwrap();
    let kept = duplicates(&*host.events);
    // Adopted at first by a process that binds and then dies: the descriptors are passed by number.
    let numbers: Vec<String> = kept.iter().map(inheritable).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "two_processes_hand_a_handle_over", "--nocapture"])
        .env(SOCKET, &lab.spec.local_socket)
        .env("HV_TEST_CHILD_FDS", numbers.join(","))
        .spawn()
        .unwrap();
    drop(host);
    // The child notifies the guest once it has bound.
    until(|| guest.pending().unwrap() == Some(Port(1)));
    guest.unmask(Port(1)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    guest.notify(Port(1)).unwrap();

    let mut host = Host::adopt(&lab.spec, kept).unwrap();
    let port = Port(2);
    host.events.unmask(port).unwrap();
    assert_eq!(drain(&mut *host.events), [port]);
    host.events.notify(port).unwrap();
    assert_eq!(drain(&mut guest), [Port(1)]);
}

fn inheritable(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    fd.as_raw_fd().to_string()
}

fn child(socket: PathBuf) {
    use std::os::fd::FromRawFd;
    let numbers = std::env::var("HV_TEST_CHILD_FDS").unwrap();
    let fds = numbers
        .split(',')
        // SAFETY: the parent left these descriptors open for this process alone.
        .map(|number| unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) })
        .collect();
    let spec = HostSpec { profile: Profile::Local, local_socket: socket };
    let mut host = Host::adopt(&spec, fds).unwrap();
    let port = host.events.bind_interdomain(DomId(1), Port(1)).unwrap();
    assert_eq!(port, Port(2));
    assert_eq!(host.events.pending().unwrap(), Some(port));
    host.events.notify(port).unwrap();
    std::thread::sleep(PATIENCE);
}

#[test]
fn ports_out_of_range_are_refused() {
    let lab = Lab::start();
    let mut host = Host::open(&lab.spec).unwrap();
    for port in [Port(PORTS_MAX), Port(u32::MAX)] {
        assert!(matches!(host.events.notify(port), Err(Error::PortRange { .. })));
        assert!(matches!(host.events.unmask(port), Err(Error::PortRange { .. })));
        assert!(host.events.unbind(port).is_err());
    }
    assert!(host.events.bind_interdomain(DomId(9), Port(1)).unwrap_err().is_no_domain());
}

#[test]
fn the_bound_on_domains_is_reached_over_the_wire() {
    let lab = Lab::start();
    let broker = lab.broker();
    for _ in 1..DOMAINS_MAX {
        broker.create_domain(NewDomain::default()).unwrap();
    }
    let refused = broker.create_domain(NewDomain::default());
    assert!(matches!(refused, Err(Error::Refused(Refusal::Limit))));
    assert_eq!(broker.list().unwrap().len(), DOMAINS_MAX);
}

#[test]
fn clients_over_the_bound_are_hung_up_on() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let lab = Lab::start();
    let broker = lab.broker();
    let mut crowd: Vec<_> = (1..CLIENTS_MAX).map(|_| raw_connection(&lab.spec)).collect();
    assert_eq!(broker.list().unwrap().len(), 1);
    assert_eq!(read_all(&raw_connection(&lab.spec)), 0, "one too many");
    crowd.pop();
    until(|| Broker::connect(&lab.spec.local_socket).and_then(|broker| broker.list()).is_ok());
}

#[test]
fn a_broker_without_descriptors_refuses_and_lives() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ppvmm-hv")]);
    let lab = Lab::start_by(command);
    let broker = lab.broker();
    let crowd: Vec<_> = (0..40).map(|_| raw_connection(&lab.spec)).collect();
    assert_eq!(read_all(crowd.last().unwrap()), 0, "turned away");
    let refused = broker.create_domain(NewDomain::default());
    assert!(matches!(refused, Err(Error::Refused(Refusal::Resources))));
    drop(crowd);
    until(|| broker.create_domain(NewDomain::default()).is_ok());
}

#[test]
fn clients_without_sense_are_hung_up_on() {
    let lab = Lab::start();
    let babbler = raw_connection(&lab.spec);
    rustix::io::write(&babbler, b"\xff\xff\xff").unwrap();
    assert_eq!(read_all(&babbler), 0);
    let windbag = raw_connection(&lab.spec);
    rustix::io::write(&windbag, &[0; MESSAGE_BYTES_MAX + 1]).unwrap();
    assert_eq!(read_all(&windbag), 0);
    // Nobody reads these answers, so the broker drops the client once its queue is full.
    let mute = raw_connection(&lab.spec);
    let list = [0x08, 0x01, 0x60, 0x01];
    until(|| rustix::io::write(&mute, &list).is_err());
    assert_eq!(lab.broker().list().unwrap().len(), 1);
}

fn read_all(socket: &OwnedFd) -> usize {
    rustix::io::read(socket, &mut [0; 64]).unwrap_or(0)
}

fn raw_connection(spec: &HostSpec) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(&spec.local_socket).unwrap()).unwrap();
    socket
}

#[test]
fn granted_pages_are_mapped_and_copied_until_the_domain_is_gone() {
    let lab = Lab::start();
    let (domid, _events) = lab.guest();
    let mut guest = lab.broker().guest_memory(domid).unwrap();
    let host = Host::open(&lab.spec).unwrap();
    let ring = guest.grant(DomId::DOM0, 3, Access::Write).unwrap();
    let frame = guest.grant(DomId::DOM0, 4, Access::Read).unwrap();
    let page = host.grants.map(domid, ring).unwrap();
    page.store_u32(0, 77);
    assert_eq!(guest.page(3).unwrap().load_u32(0), 77);
    assert!(host.grants.map(domid, frame).is_err(), "it is granted to read alone");

    guest.page(4).unwrap().write(100, b"hello");
    let region = Region::create("pool", 4096).unwrap();
    let copy = |gref, direction| GrantCopy::new(gref, &region, 5, direction).at_guest(100).at_region(9);
    let mut copies = [
        copy(frame, CopyDirection::FromGuest),
        copy(frame, CopyDirection::ToGuest),
        copy(GrantRef(4000), CopyDirection::FromGuest),
        copy(frame, CopyDirection::FromGuest).at_guest(4092),
        copy(ring, CopyDirection::ToGuest),
    ];
    host.grants.copy(domid, &mut copies).unwrap();
    let statuses = copies.map(|copy| copy.status);
    let expected = [
        GrantStatus::OKAY,
        GrantStatus::PERMISSION_DENIED,
        GrantStatus::BAD_GREF,
        GrantStatus::BAD_COPY_ARG,
        GrantStatus::OKAY,
    ];
    assert_eq!(statuses, expected);
    let mut bytes = [0; 5];
    guest.page(3).unwrap().read(100, &mut bytes);
    assert_eq!(&bytes, b"hello", "from one page to the region to the other page");

    lab.broker().destroy(domid).unwrap();
    let mut late = [copy(frame, CopyDirection::FromGuest)];
    assert!(host.grants.copy(domid, &mut late).is_err());
    assert_eq!(late[0].status, GrantStatus::GENERAL_ERROR);
}
