//! A pair of connected interfaces in a network namespace of this thread, a peer at its far end, and driver processes.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::cast_possible_truncation, reason = "constants, and lengths of frames")]

pub mod rig;

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::Region;
use lane::{Consumer, FrameMeta, Lane, Producer};
use nic::{Held, NicError, NicSpec};

pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const HEADER_BYTES: usize = 14;

/// Enters a fresh network namespace with the connected interfaces `near` and `far`. False, with a loud message, if that is
/// not permitted here.
pub fn enter_namespace() -> bool {
    // SAFETY: only this thread changes its namespace, and it shares no file system state that matters.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if entered != 0 {
        eprintln!("SKIPPED: no permission for a network namespace: {}", std::io::Error::last_os_error());
        return false;
    }
    // Nothing but the frames of the test.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let made = make_pair("");
    if !made {
        eprintln!("SKIPPED: no veth interfaces here");
    }
    made
}

/// Makes the connected interfaces `near` and `far`, with these options of `ip link add` for both, and waits until they work.
/// False if that cannot be.
pub fn make_pair(options: &str) -> bool {
    let made = ip(&format!("link add near {options} type veth peer name far {options}"))
        && ip("link set near up")
        && ip("link set far up");
    if made {
        wait_until_up("near");
        wait_until_up("far");
    }
    made
}

/// As [`enter_namespace`]. False also where the kernel has no `AF_XDP`.
pub fn enter_namespace_with_xdp() -> bool {
    if !enter_namespace() {
        return false;
    }
    match Held::open(&NicSpec::xdp("near")) {
        Ok(_) => true,
        Err(NicError::Xdp { what, .. }) => {
            eprintln!("SKIPPED: no AF_XDP here: {what}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Until its queue is set up, an interface swallows frames.
pub fn wait_until_up(interface: &str) {
    wait_for("the link", || {
        let show = Command::new("ip").args(["-o", "link", "show", interface]).output().unwrap();
        let text = String::from_utf8_lossy(&show.stdout).into_owned();
        (text.contains("state UP") || text.contains("state UNKNOWN")) && !text.contains("qdisc noop ")
    });
}

pub fn ip(words: &str) -> bool {
    run("ip", words)
}

pub fn run(program: &str, words: &str) -> bool {
    Command::new(program)
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Has the kernel compute checksums, and so cut segments, before frames reach an interface.
pub fn without_checksums(interface: &str) {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    ethtool(interface, ETHTOOL_STXCSUM, 0);
}

/// Has the kernel put VLAN tags into frames before they reach an interface.
pub fn without_tags(interface: &str) {
    const ETHTOOL_SFLAGS: u32 = 0x26;
    ethtool(interface, ETHTOOL_SFLAGS, 0);
}

/// A command of ethtool with a number; gives the number that it leaves.
pub fn ethtool(interface: &str, command: u32, value: u32) -> u32 {
    let peer = Peer::new(interface);
    let mut value = [command, value];
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: value.as_mut_ptr().cast() },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request and the value it points to live until the call returns.
    let done = unsafe { libc::ioctl(peer.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel wrote to it behind the compiler's back.
    unsafe { (&raw const value[1]).read_volatile() }
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that follow from a number: any change shows.
pub fn frame_of(seq: u64) -> Vec<u8> {
    let length = 60 + (seq.wrapping_mul(0x9e37_79b9) >> 7) as usize % 1400;
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend(ETHERTYPE);
    frame.extend(seq.to_be_bytes());
    let mut random = fastrand::Rng::with_seed(seq);
    frame.resize(length, 0);
    random.fill(&mut frame[HEADER_BYTES + 8..]);
    frame
}

/// What arrived: every number once and in order, or not.
#[derive(Debug, Default)]
pub struct Ledger {
    next: u64,
    pub received: u64,
    pub duplicates: u64,
    pub reordered: u64,
    pub damaged: u64,
    seen: HashSet<u64>,
}

impl Ledger {
    pub fn take(&mut self, frame: &[u8]) {
        if frame.len() < HEADER_BYTES + 8 || frame[12..14] != ETHERTYPE {
            return;
        }
        let seq = u64::from_be_bytes(frame[14..22].try_into().unwrap());
        if frame != frame_of(seq) {
            self.damaged += 1;
        } else if !self.seen.insert(seq) {
            self.duplicates += 1;
        } else {
            self.received += 1;
            self.reordered += u64::from(seq < self.next);
            self.next = self.next.max(seq + 1);
        }
    }

    pub fn lost(&self, sent: u64) -> u64 {
        sent - self.received
    }

    pub fn assert_perfect(&self, sent: u64, what: &str) {
        let found = (self.lost(sent), self.duplicates, self.reordered, self.damaged);
        assert_eq!(found, (0, 0, 0, 0), "{what}: lost, duplicated, reordered, damaged of {sent}");
    }
}

/// A plain packet socket at the far end.
pub struct Peer {
    socket: OwnedFd,
}

impl Peer {
    pub fn new(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes no pointers.
        let fd =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
        assert!(fd >= 0);
        // SAFETY: a new descriptor that nobody else knows.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for (level, name, value) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 256 << 20),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 16 << 20),
            (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
        ] {
            // SAFETY: the pointer is valid for four bytes.
            let set = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
            assert_eq!(set, 0);
        }
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: a string that ends with 0.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer is valid for the size of the address.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0);
        Self { socket }
    }

    /// One whose frames go over the interface's queue with the number of the processor that sends.
    pub fn by_processor(interface: &str) -> Self {
        let peer = Self::new(interface);
        let value: libc::c_int = 1;
        let pointer = (&raw const value).cast();
        let (fd, name) = (peer.socket.as_raw_fd(), libc::PACKET_QDISC_BYPASS);
        // SAFETY: the pointer is valid for four bytes.
        let set = unsafe { libc::setsockopt(fd, libc::SOL_PACKET, name, pointer, 4) };
        assert_eq!(set, 0);
        peer
    }

    pub fn send(&self, frame: &[u8]) {
        loop {
            // SAFETY: the pointer is valid for the length of the frame.
            let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if sent == frame.len().cast_signed() {
                return;
            }
            // The other interface's backlog is full.
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Takes all frames that came.
    pub fn drain(&self, ledger: &mut Ledger) {
        let mut bytes = [0; 70_000];
        while let Some(frame) = self.receive(&mut bytes) {
            ledger.take(frame);
        }
    }

    /// The next frame, if there is one.
    pub fn receive<'a>(&self, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        // SAFETY: the pointer is valid for the length of the buffer.
        let length = unsafe {
            libc::recv(self.socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
        };
        (length >= 0).then(|| &bytes[..length as usize])
    }
}

/// The stable side: a held network card and a lane.
pub struct Stand {
    pub held: Held,
    pub lane: Lane,
    pub tx: Producer,
    pub rx: Consumer,
    /// Where frames came from.
    pub sources: HashSet<u16>,
}

impl Stand {
    pub fn new(spec: &str, slots: u32) -> Self {
        let spec: NicSpec = spec.parse().unwrap();
        let held = Held::open_waiting(&spec).unwrap();
        let region = Arc::new(Region::create("lane", Lane::bytes(slots, slots)).unwrap());
        let lane = Lane::create(region, slots, slots).unwrap();
        let (tx, rx) = (lane.tx().producer().unwrap(), lane.rx().consumer().unwrap());
        Self { held, lane, tx, rx, sources: HashSet::new() }
    }

    /// Puts frame `seq` into the lane. False: no room.
    pub fn send(&mut self, seq: u64) -> bool {
        let meta = FrameMeta { source: 1, seq: seq as u32, ..FrameMeta::default() };
        self.tx.push(&frame_of(seq), &meta).unwrap()
    }

    /// Takes all frames out of the lane.
    pub fn receive(&mut self, ledger: &mut Ledger) {
        while let Some(frame) = self.rx.peek().unwrap() {
            self.sources.insert(frame.meta().source);
            if !frame.is_void() {
                ledger.take(&self.rx.bytes_of(&frame));
            }
            self.rx.release(&frame);
        }
    }

    /// Frames for which the kernel's ring had no room, since this was asked last.
    pub fn dropped(&self) -> u64 {
        if let Held::Xdp(held) = &self.held {
            return held.fds().into_iter().skip(6).map(dropped_by).sum();
        }
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&stats) as u32;
        let fd = self.held.fds()[0].as_raw_fd();
        let pointer = (&raw mut stats).cast();
        // SAFETY: the pointer is valid for `length` bytes.
        let got = unsafe {
            libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, pointer, &raw mut length)
        };
        assert_eq!(got, 0);
        stats.tp_drops.into()
    }

    /// Starts a driver process.
    pub fn driver(&self, die: Option<(nic::Step, u32)>) -> Driver {
        let mut command = Command::new(driver_program());
        command.arg(self.held.spec().to_string()).stdin(Stdio::null());
        let inherited: Vec<OwnedFd> = std::iter::once(self.lane.region().as_fd())
            .chain(self.held.fds())
            .map(|fd| rustix::io::dup(fd).unwrap())
            .collect();
        for fd in &inherited {
            command.arg(fd.as_raw_fd().to_string());
        }
        if let Some((step, count)) = die {
            command.args(["die", &format!("{step:?}"), &count.to_string()]);
        }
        Driver(command.spawn().expect("cargo builds the example before the tests"))
    }
}

/// Frames for which a socket of `AF_XDP` had no room.
fn dropped_by(socket: std::os::fd::BorrowedFd<'_>) -> u64 {
    let mut words = [0u64; 6];
    let mut length = size_of_val(&words) as u32;
    let (fd, pointer) = (socket.as_raw_fd(), (&raw mut words).cast());
    // SAFETY: the pointer is valid for `length` bytes.
    let got = unsafe { libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_STATISTICS, pointer, &raw mut length) };
    assert_eq!(got, 0);
    words[0] + words[3]
}

/// Has this thread run on one processor only.
pub fn run_on(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

fn driver_program() -> std::path::PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/nic_driver")
}

/// A driver process; killed and waited for in the end.
pub struct Driver(Child);

impl Driver {
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.kill();
    }
}
