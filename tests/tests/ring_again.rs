//! What keeps a new leader from a guest's ring for a moment does not take the ring from the guest.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use hypervisor::DomId;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use sim_guest::Guest;
use tests::Stand;
use xs_protocol::MessageType;

const WAIT: Duration = Duration::from_secs(20);

fn pid_of(stand: &Stand, name: &str) -> Pid {
    let status = stand.status();
    let services = status["services"].as_array().unwrap();
    let service = services.iter().find(|service| service["name"] == name || service["role"] == name).unwrap();
    Pid::from_raw(i32::try_from(service["pid"].as_u64().unwrap()).unwrap()).unwrap()
}

fn descriptors(pid: Pid) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count() as u64
}

/// Leaves the next leader `fewer` descriptors than a leader has. Gives it and its limit before if it serves, but could
/// not map a ring.
fn take_over_with(stand: &Stand, fewer: u64) -> Option<(Pid, Rlimit)> {
    let (leader, next) = (pid_of(stand, "leader"), pid_of(stand, "replica/1"));
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let few = Rlimit { current: Some(descriptors(leader) - fewer), maximum };
    let before = prlimit(Some(next), Resource::Nofile, few).unwrap();
    kill_process(leader, Signal::KILL).unwrap();
    let began = Instant::now();
    while !stand.logs().contains("epoch=2 recover_us") {
        assert!(began.elapsed() < WAIT, "nobody leads");
        if stand.epoch() > 2 {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Lines are written behind the leader's back.
    std::thread::sleep(Duration::from_millis(300));
    stand.logs().contains("cannot map the ring again").then_some((next, before))
}

/// A guest whose ring a new leader cannot map, because that takes a descriptor for a moment; and that leader.
fn unmapped() -> (Stand, DomId, Guest, (Pid, Rlimit)) {
    // What a leader has open varies by one or two at times.
    for fewer in (0..8).cycle().take(40) {
        let stand = Stand::start(&[]);
        let (domid, mut guest) = stand.guest();
        guest.write("data/x", b"1").unwrap();
        // The toolstack's connection ends.
        std::thread::sleep(Duration::from_millis(50));
        if let Some(leader) = take_over_with(&stand, fewer) {
            return (stand, domid, guest, leader);
        }
    }
    panic!("a new leader maps its rings or does not lead");
}

fn use_ring(guest: &mut Guest) {
    guest.set_reply_timeout(WAIT);
    guest.write("data/x", b"2").unwrap();
    assert_eq!(guest.read("data/x").unwrap(), b"2");
}

#[test]
fn a_ring_that_cannot_be_mapped_at_once_is_mapped_later() {
    let (_stand, _, mut guest, (leader, limit)) = unmapped();
    guest.set_reply_timeout(Duration::from_millis(300));
    assert!(guest.read("data/x").is_err(), "nobody has the ring");
    prlimit(Some(leader), Resource::Nofile, limit).unwrap();
    use_ring(&mut guest);
}

#[test]
fn a_ring_that_cannot_be_mapped_for_long_is_given_up() {
    let (stand, domid, guest, (leader, limit)) = unmapped();
    drop(guest);
    let began = Instant::now();
    while !stand.logs().contains("it is given up") {
        assert!(began.elapsed() < 2 * WAIT, "tried for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    prlimit(Some(leader), Resource::Nofile, limit).unwrap();
    let release = format!("{domid}\0");
    stand.client().request(MessageType::RELEASE, 0, release.as_bytes()).unwrap();
    stand.introduce(domid);
    let answer = stand.attach(domid).read("data/x");
    // Its nodes went with the RELEASE; silence would be a time-out.
    assert!(matches!(answer, Err(sim_guest::Error::Store(_))), "{answer:?}");
}
