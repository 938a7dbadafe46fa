//! A service that does what the warden orders and no work.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use control::{
    Begin, FromService, Lead, Leading, Link, LinkError, Noted, Ready, SnapshotTaken, ToService,
    from_service::Report, names, to_service::Order,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use xs_shm::{Board, ReplicaStatus};

const HEARTBEAT_MS: u32 = 20;

struct Fake {
    warden: Link,
    begin: Begin,
    board: Option<Board>,
    status: ReplicaStatus,
    gateway: Option<Link>,
}

/// Serves until it is told to stop. Never returns.
pub fn serve() -> ! {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let warden = Link::from_fd(stdin);
    let packet = warden.receive::<ToService>().unwrap();
    let Some(Order::Begin(begin)) = packet.message.order else { panic!("no Begin") };
    let mut fake = Fake { warden, begin, board: None, status: ReplicaStatus::default(), gateway: None };
    fake.begin(packet.descriptors);
    loop {
        fake.turn();
    }
}

fn is_for(variable: &str, replica: u32) -> bool {
    std::env::var(variable).is_ok_and(|number| number == replica.to_string())
}

fn is_replica() -> bool {
    std::env::var("FAKE_ROLE").is_ok_and(|role| role == "replica")
}

impl Fake {
    fn begin(&mut self, descriptors: Vec<OwnedFd>) {
        if let Some(ms) = std::env::var("FAKE_SLOW_START_MS").ok().and_then(|ms| ms.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        let mut told = self.begin.names.join(",");
        for (name, descriptor) in self.begin.names.clone().iter().zip(descriptors) {
            match name.as_str() {
                names::BOARD if is_replica() => self.board = Some(Board::open(descriptor).unwrap()),
                names::SNAPSHOT => {
                    let mut content = [0; 64];
                    let length = rustix::io::pread(&descriptor, &mut content, 0).unwrap();
                    let index = self.begin.snapshot.as_ref().unwrap().index;
                    told +=
                        &format!("; snapshot {index} holds {}", String::from_utf8_lossy(&content[..length]));
                }
                _ => {}
            }
        }
        self.note("begun", told);
        self.let_replica_0_lead_first();
        if !is_replica() && !self.begin.names.contains(&"evtchn.0".to_owned()) {
            let keep = Begin { names: vec!["evtchn.0".into()], ..Begin::default() };
            let handle = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            self.report(Report::Keep(keep), &[handle.as_fd()]);
        }
        let applied = if is_for("FAKE_AHEAD_REPLICA", self.begin.replica) { 100 } else { 1 };
        self.status.applied = applied;
        self.publish();
        let heartbeat_ms = if is_replica() { HEARTBEAT_MS } else { 0 };
        self.report(Report::Ready(Ready { applied, heartbeat_ms }), &[]);
    }

    /// So that the tests know who leads.
    fn let_replica_0_lead_first(&self) {
        if let Some(board) = &self.board
            && self.begin.replica != 0
            && self.begin.incarnation == 1
        {
            while board.replica(0).epoch == 0 {
                std::thread::sleep(Duration::from_millis(1));
                self.end_with_the_warden();
            }
        }
    }

    /// The test's end may have killed the warden: nobody else would end this process.
    fn end_with_the_warden(&self) {
        let mut polled = [PollFd::new(&self.warden, PollFlags::empty())];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).unwrap();
        if polled[0].revents().contains(PollFlags::HUP) {
            std::process::exit(3);
        }
    }

    fn turn(&mut self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(HEARTBEAT_MS) * 1_000_000 / 2 };
        let mut polled = [PollFd::new(&self.warden, PollFlags::IN)];
        let ready = rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
        let stuck = is_for("FAKE_STUCK_REPLICA", self.begin.replica) && self.begin.incarnation == 1;
        if !stuck {
            self.publish();
        }
        if ready > 0 {
            self.obey();
        }
    }

    fn publish(&mut self) {
        self.status.heartbeat += 1;
        if let Some(board) = &self.board {
            board.words(self.begin.replica).publish(&self.status);
        }
    }

    fn obey(&mut self) {
        let mut packet = match self.warden.receive::<ToService>() {
            Ok(packet) => packet,
            Err(LinkError::Closed) => std::process::exit(3),
            Err(error) => panic!("{error}"),
        };
        match packet.message.order.unwrap() {
            Order::Begin(_) => panic!("a second Begin"),
            Order::Lead(Lead { epoch }) => self.lead(epoch, packet.descriptors.pop().unwrap()),
            Order::LeaderChanged(_) => self.link(packet.descriptors.pop().unwrap()),
            Order::TakeSnapshot(_) => self.take_snapshot(),
            Order::SnapshotKept(kept) => {
                let cursor = String::from_utf8(kept.release_cursor).unwrap();
                let detail =
                    format!("newest {}, older {}, cursor {cursor}", kept.newest_index, kept.older_index);
                self.note("told_snapshot", detail);
            }
            Order::Stop(_) => std::process::exit(0),
        }
    }

    fn lead(&mut self, epoch: u64, gateway: OwnedFd) {
        if is_for("FAKE_DEAF_REPLICA", self.begin.replica) {
            return;
        }
        let gateway = Link::from_fd(gateway);
        let hello = Noted { detail: format!("epoch {epoch}, the leader says hello"), ..Noted::default() };
        // A gateway that died meanwhile will be replaced, and the next Lead brings a link to the new one.
        let _ = gateway.send(&FromService { report: Some(Report::Noted(hello)) }, &[]);
        self.gateway = Some(gateway);
        self.status = ReplicaStatus { epoch, connections: 3, requests: 5, ..self.status };
        self.publish();
        let leading = Leading { epoch, applied: 1, takeover_us: 1, connections: 3, rings: 0 };
        self.report(Report::Leading(leading), &[]);
        if epoch == 1 && std::env::var_os("FAKE_WANT_SNAPSHOT").is_some() {
            // Not before there is a follower to ask.
            std::thread::sleep(Duration::from_millis(500));
            self.report(Report::SnapshotWanted(true), &[]);
        }
    }

    fn link(&mut self, leader: OwnedFd) {
        let leader = Link::from_fd(leader);
        if let Ok(packet) = leader.receive::<FromService>()
            && let Some(Report::Noted(hello)) = packet.message.report
        {
            self.note("linked", hello.detail);
        }
        self.gateway = Some(leader);
    }

    fn take_snapshot(&mut self) {
        let memory = rustix::fs::memfd_create("snapshot", MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(memory);
        file.write_all(b"state at 7").unwrap();
        let taken = SnapshotTaken { index: 7, length_bytes: 10, cursor: b"at 7".to_vec() };
        self.report(Report::SnapshotTaken(taken), &[file.as_fd()]);
    }

    fn note(&self, kind: &str, detail: String) {
        self.report(Report::Noted(Noted { severity: 0, kind: kind.into(), detail }), &[]);
    }

    fn report(&self, report: Report, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        match self.warden.send(&FromService { report: Some(report) }, descriptors) {
            Ok(()) => {}
            Err(LinkError::Closed) => std::process::exit(3),
            Err(error) => panic!("{error}"),
        }
    }
}
