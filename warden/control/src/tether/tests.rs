//! A tether between two wardens that this test plays.

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::*;
use crate::{Leading, SnapshotTaken};

struct Rig {
    tether: Tether,
    warden: Link,
    listener: Option<OwnedFd>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (warden, theirs) = Link::pair().unwrap();
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        let begin = Begin {
            replica: 2,
            incarnation: 7,
            names: vec!["log".into()],
            adopt_path: dir.path().join("a").to_str().unwrap().into(),
            ..Begin::default()
        };
        warden.send(&ToService { order: Some(Order::Begin(begin)) }, &[pipe.as_fd()]).unwrap();
        let tether = Tether::begin(Role::Replica, theirs).unwrap();
        Self { tether, warden, listener: None, dir }
    }

    fn listen(&mut self) {
        let path = self.dir.path().join("a");
        let _ = std::fs::remove_file(&path);
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 4).unwrap();
        self.listener = Some(socket);
    }

    /// Lets the tether work until it has an order for its service or a warden was reached.
    fn turn(&mut self) -> Option<Order> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            let mut polled = [PollFd::new(&self.tether, PollFlags::IN)];
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            rustix::event::poll(&mut polled, Some(&wait)).unwrap();
            let was_linked = self.tether.is_linked();
            let packet = self.tether.order().unwrap();
            if packet.is_some() || (!was_linked && self.tether.is_linked()) {
                return packet.and_then(|packet| packet.message.order);
            }
        }
        panic!("the tether found no warden");
    }

    fn accept(&mut self) -> Packet<FromService> {
        self.warden = Link::from_fd(rustix::net::accept(self.listener.as_ref().unwrap()).unwrap());
        assert_eq!(self.warden.peer().unwrap(), std::process::id());
        self.warden.receive().unwrap()
    }

    fn lose_warden(&mut self) {
        self.warden = Link::pair().unwrap().0;
    }
}

fn hello_of(packet: Packet<FromService>) -> (Hello, Vec<OwnedFd>) {
    match packet.message.report {
        Some(Report::Hello(hello)) => (hello, packet.descriptors),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_finds_each_next_warden_and_tells_it_everything() {
    let mut rig = Rig::new();
    let ready = Ready { applied: 5, heartbeat_ms: 20, pid: 0 };
    rig.tether.report(Report::Ready(ready), &[]).unwrap();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    rig.tether.keep(&["evtchn.0".into()], &[pipe.as_fd()]).unwrap();
    for round in 0..3 {
        rig.lose_warden();
        if round == 0 {
            // Nobody is there at first.
            std::thread::sleep(Duration::from_millis(20));
            assert!(rig.tether.order().unwrap().is_none());
            assert!(matches!(rig.tether.report(Report::SnapshotWanted(true), &[]), Err(LinkError::Closed)));
            rig.tether.report(Report::Leading(Leading { epoch: 3, ..Leading::default() }), &[]).unwrap_err();
        }
        rig.listen();
        rig.turn();
        let (hello, descriptors) = hello_of(rig.accept());
        let kept = hello.kept.clone().unwrap();
        assert_eq!((kept.replica, kept.incarnation, hello.role()), (2, 7, Role::Replica));
        assert_eq!((kept.names, descriptors.len()), (vec!["evtchn.0".to_owned(), "log".into()], 2));
        assert_eq!((hello.ready, hello.leads_epoch), (Some(ready), 3));
        rig.warden.send(&ToService { order: Some(Order::Adopted(true)) }, &[]).unwrap();
        assert_eq!(rig.turn(), Some(Order::Adopted(true)));
    }
}

#[test]
fn a_warden_that_dies_while_it_adopts_is_followed_by_the_next() {
    let mut rig = Rig::new();
    rig.lose_warden();
    rig.listen();
    for _ in 0..4 {
        rig.turn();
        hello_of(rig.accept());
        rig.lose_warden();
    }
    let since = rig.tether.lost.as_ref().unwrap();
    assert!(since.pause > Duration::from_millis(SEEK_FIRST_MS), "the pace slows down");
    assert!(since.pause <= Duration::from_millis(SEEK_MAX_MS));
}

#[test]
fn what_is_to_be_held_takes_the_place_of_older_snapshots() {
    let mut rig = Rig::new();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let hold = |index| Begin {
        names: vec![names::SNAPSHOT.into()],
        snapshot: Some(SnapshotTaken { index, ..SnapshotTaken::default() }),
        ..Begin::default()
    };
    for index in [8, 9] {
        rig.warden.send(&ToService { order: Some(Order::Hold(hold(index))) }, &[pipe.as_fd()]).unwrap();
    }
    rig.warden.send(&ToService { order: Some(Order::Stop(true)) }, &[]).unwrap();
    assert_eq!(rig.turn(), Some(Order::Stop(true)));
    assert_eq!(rig.tether.first_order().snapshot.as_ref().unwrap().index, 9);
    assert_eq!(rig.tether.copies().unwrap().len(), 2);
    assert_eq!(rig.tether.first_order().incarnation, 7);
}
