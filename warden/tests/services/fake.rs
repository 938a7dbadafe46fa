//! A service that does what the warden orders and no work.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use control::{
    Begin, FromService, Lead, Leading, Link, Noted, Ready, Role, SnapshotTaken, Tether, from_service::Report,
    names, to_service::Order,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use xs_shm::{Board, ReplicaStatus};

const HEARTBEAT_MS: u32 = 20;

/// Nobody comes for the services of a test that failed.
const ORPHANED_MAX: Duration = Duration::from_secs(60);

struct Fake {
    warden: Tether,
    begin: Begin,
    orphaned: Option<Instant>,
    board: Option<Board>,
    status: ReplicaStatus,
    gateway: Option<Link>,
    began: Instant,
}

/// Serves until it is told to stop. Never returns.
pub fn serve() -> ! {
    let role = match std::env::var("FAKE_ROLE").unwrap().as_str() {
        "replica" => Role::Replica,
        "member" => Role::Member,
        _ => Role::Gateway,
    };
    // The warden was killed before it had written this process down.
    let Ok(warden) = Tether::start(role) else { std::process::exit(4) };
    let begin = warden.first_order().clone();
    let descriptors = warden.copies().unwrap();
    let mut fake = Fake {
        warden,
        begin,
        orphaned: None,
        board: None,
        status: ReplicaStatus::default(),
        gateway: None,
        began: Instant::now(),
    };
    fake.begin(descriptors);
    loop {
        fake.turn();
    }
}

fn is_for(variable: &str, replica: u32) -> bool {
    std::env::var(variable).is_ok_and(|number| number == replica.to_string())
}

fn is_replica() -> bool {
    is_for_role("replica")
}

fn is_for_role(name: &str) -> bool {
    std::env::var("FAKE_ROLE").is_ok_and(|role| role == name)
}

/// What a wrapper runs: the faults are for it.
fn harmless_child() -> u32 {
    let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = child.id();
    std::thread::spawn(move || {
        let mut child = child;
        let _ = child.wait();
        std::process::exit(5);
    });
    pid
}

impl Fake {
    fn begin(&mut self, descriptors: Vec<(String, OwnedFd)>) {
        if let Some(ms) = std::env::var("FAKE_SLOW_START_MS").ok().and_then(|ms| ms.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        let mut told = self.begin.names.join(",");
        for (name, descriptor) in descriptors {
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
        if is_for_role("gateway") && !self.begin.names.contains(&"evtchn.0".to_owned()) {
            let handle = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            // A warden that is gone meanwhile is told in the next hello.
            let _ = self.warden.keep(&["evtchn.0".into()], &[handle.as_fd()]);
        }
        let applied = if is_for("FAKE_AHEAD_REPLICA", self.begin.replica) { 100 } else { 1 };
        self.status.applied = applied;
        self.publish();
        let heartbeat_ms = if is_replica() { HEARTBEAT_MS } else { 0 };
        let pid = if is_for_role("member") { harmless_child() } else { 0 };
        self.report(Report::Ready(Ready { applied, heartbeat_ms, pid }), &[]);
    }

    /// So that the tests know who leads.
    fn let_replica_0_lead_first(&self) {
        if let Some(board) = &self.board
            && self.begin.replica != 0
            && self.begin.incarnation == 1
        {
            let began = Instant::now();
            while board.replica(0).epoch == 0 {
                std::thread::sleep(Duration::from_millis(1));
                assert!(began.elapsed() < ORPHANED_MAX);
            }
        }
    }

    /// The test's end may have killed the warden: nobody else would end this process.
    fn end_if_forgotten(&mut self) {
        match (self.warden.is_linked(), self.orphaned) {
            (true, _) => self.orphaned = None,
            (false, None) => self.orphaned = Some(Instant::now()),
            (false, Some(since)) if since.elapsed() > ORPHANED_MAX => std::process::exit(3),
            (false, Some(_)) => {}
        }
    }

    fn turn(&mut self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(HEARTBEAT_MS) * 1_000_000 / 2 };
        let mut polled = [PollFd::new(&self.warden, PollFlags::IN)];
        let ready = rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
        let loops = is_for("FAKE_LOOPING_REPLICA", self.begin.replica) && self.begin.incarnation == 1;
        // It has led for a moment. Whatever becomes of the test, it does not loop for ever.
        while loops && self.status.epoch > 0 && self.began.elapsed() < ORPHANED_MAX {
            std::hint::spin_loop();
        }
        let stuck = is_for("FAKE_STUCK_REPLICA", self.begin.replica) && self.begin.incarnation == 1;
        if !stuck {
            self.publish();
        }
        if ready > 0 {
            self.obey();
        }
        self.end_if_forgotten();
    }

    fn publish(&mut self) {
        self.status.heartbeat += 1;
        if let Some(board) = &self.board {
            board.words(self.begin.replica).publish(&self.status);
        }
    }

    fn obey(&mut self) {
        let Some(mut packet) = self.warden.order().unwrap() else { return };
        match packet.message.order.unwrap() {
            Order::Begin(_) | Order::Hold(_) | Order::Locate(_) => panic!("not for this service"),
            Order::Adopted(_) => self.note("welcomed", String::new()),
            Order::Clients(clients) => {
                assert_eq!(clients.ids.len(), packet.descriptors.len());
                self.note("clients_given", format!("{:?}", clients.ids));
            }
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
        self.report(Report::Noted(Noted { kind: kind.into(), detail, ..Noted::default() }), &[]);
    }

    fn report(&self, report: Report, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        // Whatever a new warden must know is told in the next hello.
        let _ = self.warden.report(report, descriptors);
    }
}
