//! A client that connects, asks and leaves gets its answer, whoever dies meanwhile: also one that the leader had only
//! just accepted, or that was asking for its first answer, when it was killed.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use tests::Victim::{Follower, Gateway, Leader, Warden};
use tests::{PairKiller, RawClient, Stand, Victim};
use xs_protocol::MessageType;

const WORKERS: u64 = 3;

/// `PPVMM_TEST_SECONDS` makes the runs longer than in CI.
fn load_time() -> Duration {
    let seconds = std::env::var("PPVMM_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// `PPVMM_TEST_SEED` makes other pauses between the kills.
fn seed() -> u64 {
    std::env::var("PPVMM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Counts up under its own path, with a fresh client for each read and each write; gives the number of clients.
fn count_up(stand: &Stand, path: &str, stop: &AtomicBool) -> u64 {
    stand.client().write(path, "0").unwrap();
    let (mut count, mut clients) = (0_u64, 1);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            assert_eq!(stand.client().read(path).unwrap(), count.to_string(), "client {clients}");
            clients += 1;
        }
        count += 1;
        stand.client().write(path, &count.to_string()).unwrap();
        clients += 1;
    }
    clients
}

fn survive(victims: &[&[Victim]]) {
    let stand = Stand::start(&["--respawn"]);
    let (stop, until) = (AtomicBool::new(false), Instant::now() + load_time());
    let (rounds, clients) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| PairKiller::new(&stand, victims, seed()).run(&stop));
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (stand, stop) = (&stand, &stop);
                scope.spawn(move || count_up(stand, &format!("/c/{worker}"), stop))
            })
            .collect();
        while Instant::now() < until
            && !killer.is_finished()
            && !workers.iter().any(|worker| worker.is_finished())
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        let clients: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        (killer.join().unwrap(), clients)
    });
    stand.run_stock("xenstore-control", &["check"]);
    assert!(rounds > 3 && clients > 100, "{rounds} rounds, {clients} clients");
    eprintln!("{victims:?}: {rounds} rounds, {clients} clients, each of them answered");
}

#[test]
fn under_kills_of_the_leader() {
    survive(&[&[Leader]]);
}

#[test]
fn under_kills_of_the_gateway_and_of_others_beside_the_leader() {
    survive(&[&[Gateway], &[Leader, Warden], &[Leader, Follower], &[Gateway, Warden]]);
}

/// A leader without an heir gives way to one that has one.
#[test]
fn when_the_heir_of_the_leader_dies() {
    let stand = Stand::start(&[]);
    let (stop, epoch) = (AtomicBool::new(false), stand.epoch());
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| count_up(&stand, "/c", &stop));
        for _ in 0..4 {
            let leader = pid_of(&stand, "leader");
            kill_process(heir_of(leader), Signal::KILL).unwrap();
            let until = Instant::now() + Duration::from_secs(20);
            while find_pid(&stand, "leader").is_none_or(|pid| pid == leader) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(worker.join().unwrap() > 100);
    });
    assert!(stand.epoch() >= epoch + 4);
}

/// One that finds itself damaged ends by itself. It once closed what it dropped on its way out, in its heir as well:
/// clients that it had only just accepted saw their connections reset.
#[test]
fn when_the_leader_finds_itself_damaged() {
    let stand = Stand::start(&[]);
    let (stop, epoch) = (AtomicBool::new(false), stand.epoch());
    stand.client().write("/flip/this", "1").unwrap();
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|worker| {
            let (stand, stop) = (&stand, &stop);
            scope.spawn(move || count_up(stand, &format!("/c/{worker}"), stop))
        });
        for bit in 0..6 {
            let bit = bit.to_string();
            let flip = ["inject", "flip", "leader", "--path", "/flip/this", "--part", "name", "--bit", &bit];
            assert!(stand.ppvmm(&flip).status.success());
            let read = stand.client().read("/flip/this");
            stop.store(read.is_err(), Ordering::Relaxed);
            assert_eq!(read.unwrap(), "1");
            // The damaged one is rebuilt before the next one is damaged.
            let whole =
                || stand.status()["services"].as_array().unwrap().iter().all(|s| s["state"] != "starting");
            while !whole() {}
            std::thread::sleep(Duration::from_millis(300));
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| assert!(worker.join().unwrap() > 100));
    });
    assert!(stand.epoch() >= epoch + 3, "most of the flips ended a leader");
}

/// More than may be left for the heir: the leader waits for room with the gateway, clients wait to be accepted.
#[test]
fn a_crowd_that_stays_is_answered_and_outlives_the_leader() {
    let stand = Stand::start(&[]);
    stand.client().write("/a", "1").unwrap();
    let signal = |name: &str, signal| {
        let pid = pid_of(&stand, name);
        kill_process(pid, signal).unwrap();
    };
    // For as long as the warden does not replace it nobody is handed over.
    signal("gateway", Signal::STOP);
    let mut crowd: Vec<_> = (0..600).map(|_| stand.client()).collect();
    crowd.iter_mut().for_each(|client| assert_eq!(client.read("/a").unwrap(), "1"));
    std::thread::sleep(Duration::from_millis(100));
    signal("leader", Signal::KILL);
    crowd.iter_mut().for_each(|client| client.write("/a", "2").unwrap());
    assert_eq!(stand.client().read("/a").unwrap(), "2");
}

/// Nobody is accepted when all slots are taken; the leader does not spin meanwhile, and one that leaves makes room.
#[test]
fn a_client_too_many_waits_until_another_one_leaves() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let stand = Stand::start(&[]);
    stand.client().write("/a", "1").unwrap();
    let mut crowd: Vec<_> = (0..SLOTS).map(|_| stand.client()).collect();
    crowd.iter_mut().for_each(|client| assert_eq!(client.read("/a").unwrap(), "1"));
    let mut late = stand.client();
    late.send(MessageType::READ, 0, b"/a\0").unwrap();
    let before = cpu_ticks(pid_of(&stand, "leader"));
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        cpu_ticks(pid_of(&stand, "leader")) - before < 30,
        "the leader is busy with a client that it cannot take"
    );
    crowd.iter_mut().take(2).for_each(|client| assert_eq!(client.read("/a").unwrap(), "1"));
    drop(crowd.pop());
    assert_eq!(late.answer().unwrap().payload, b"1");
    let gone = pid_of(&stand, "leader");
    kill_process(gone, Signal::KILL).unwrap();
    crowd.iter_mut().for_each(|client| assert_eq!(client.read("/a").unwrap(), "1"));
    assert_eq!(late.read("/a").unwrap(), "1");
}

/// A leader without a free descriptor goes on with those that it has; it does not spin meanwhile, and takes who waits when
/// there are descriptors again.
#[test]
fn a_leader_without_descriptors_accepts_again_when_there_are_some() {
    const FREE: usize = 8;
    let stand = Stand::start(&[]);
    let mut old = stand.client();
    old.write("/a", "1").unwrap();
    let (leader, epoch) = (pid_of(&stand, "leader"), stand.epoch());
    let open = std::fs::read_dir(format!("/proc/{}/fd", leader.as_raw_nonzero())).unwrap().count();
    let limit = Rlimit { current: Some((open + FREE) as u64), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(Some(leader), Resource::Nofile, limit).unwrap();
    let mut crowd: std::collections::VecDeque<_> = (0..4 * FREE).map(|_| stand.client()).collect();
    for client in &mut crowd {
        client.send(MessageType::READ, 0, b"/a\0").unwrap();
    }
    let ticks = cpu_ticks(leader);
    std::thread::sleep(Duration::from_secs(1));
    assert!(cpu_ticks(leader) - ticks < 30, "the leader is busy with clients that it cannot take");
    assert_eq!(old.read("/a").unwrap(), "1");
    let answered = answered_now(&mut crowd);
    assert!((1..=2 * FREE).contains(&answered), "{answered}");
    // Each that leaves makes room for the next one, which gets its answer.
    for _ in 0..FREE {
        drop(crowd.pop_front());
        assert_eq!(crowd[answered - 1].answer().unwrap().payload, b"1");
    }
    prlimit(Some(leader), Resource::Nofile, before).unwrap();
    for client in crowd.range_mut(answered..) {
        assert_eq!(client.answer().unwrap().payload, b"1");
    }
    assert_eq!((pid_of(&stand, "leader"), stand.epoch()), (leader, epoch));
}

/// How many of them, from the first one on, have an answer by now; takes it.
fn answered_now(crowd: &mut std::collections::VecDeque<RawClient>) -> usize {
    let soon = Duration::from_millis(100);
    crowd.iter().for_each(|client| client.set_read_timeout(soon).unwrap());
    let answered = crowd.iter_mut().map(|client| client.answer().is_ok()).take_while(|is| *is).count();
    crowd.iter().for_each(|client| client.set_read_timeout(tests::limits::ANSWER_WAIT).unwrap());
    answered
}

/// Slots for sockets; of the other clients of a stand (its first look whether the store answers) none is left.
const SLOTS: usize = 4096;

fn pid_of(stand: &Stand, name: &str) -> Pid {
    find_pid(stand, name).unwrap()
}

fn find_pid(stand: &Stand, name: &str) -> Option<Pid> {
    let status = stand.status();
    let service = status["services"].as_array()?.iter().find(|service| service["role"] == name)?;
    Pid::from_raw(i32::try_from(service["pid"].as_u64()?).ok()?)
}

/// The only child of a replica.
fn heir_of(replica: Pid) -> Pid {
    let pid = replica.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap()).unwrap()
}

/// Hundredths of a second that a process has run.
fn cpu_ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
