//! The same scenario on every daemon: a domain's life.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hypervisor::DomId;
use peers::{Binaries, Daemon, DomainState, Kind, Ours, Peer};
use tempfile::TempDir;
use xs_protocol::{HEADER_BYTES, Header, MessageType as T};

struct Client(UnixStream);

impl Client {
    fn connect(daemon: &dyn Daemon) -> Self {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(stream)
    }

    fn receive(&mut self) -> (T, Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        self.0.read_exact(&mut bytes).unwrap();
        let header = Header::parse(&bytes).unwrap();
        let mut payload = vec![0; header.len as usize];
        self.0.read_exact(&mut payload).unwrap();
        (header.kind, payload)
    }

    fn request(&mut self, kind: T, payload: &[u8]) -> (T, Vec<u8>) {
        let length = u32::try_from(payload.len()).unwrap();
        let words: Vec<u8> = [kind.0, 1, 0, length].into_iter().flat_map(u32::to_ne_bytes).collect();
        self.0.write_all(&[&words, payload].concat()).unwrap();
        self.receive()
    }

    fn ok(&mut self, kind: T, payload: &[u8]) -> Vec<u8> {
        let (answer, payload) = self.request(kind, payload);
        assert_eq!(answer, kind, "{payload:?}");
        payload
    }
}

/// Made, introduced, talks over its ring, shuts down, dies: each step is seen by the daemon.
fn a_domains_life(daemon: &mut dyn Daemon) {
    let domid = DomId(7);
    let mut client = Client::connect(daemon);
    client.ok(T::WATCH, b"@releaseDomain\0token\0");
    client.receive();
    let port = daemon.create_domain(domid).unwrap();
    assert!(daemon.create_domain(domid).is_err(), "it is there already");
    client.ok(T::WRITE, b"/local/domain/7\0");
    client.ok(T::SET_PERMS, b"/local/domain/7\0n7\0");
    client.ok(T::INTRODUCE, format!("7\x001\x00{port}\x00").as_bytes());
    let mut guest = daemon.attach(domid).unwrap();
    guest.watch("data", "seen").unwrap();
    assert!(guest.next_event(Duration::from_secs(5)).unwrap().is_some());
    guest.write("data/x", &[b'v'; 1500]).unwrap();
    assert_eq!(guest.read("data/x").unwrap().len(), 1500);
    let event = guest.next_event(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!((event.path.as_str(), event.token.as_str()), ("data/x", "seen"));
    assert_eq!(client.ok(T::READ, b"/local/domain/7/data/x\0").len(), 1500);
    daemon.set_state(domid, DomainState::Shutdown).unwrap();
    assert_eq!(client.receive(), (T::WATCH_EVENT, b"@releaseDomain\0token\0".to_vec()));
    assert_eq!(client.ok(T::IS_DOMAIN_INTRODUCED, b"7\0"), b"T\0");
    daemon.set_state(domid, DomainState::Dying).unwrap();
    assert_eq!(client.receive(), (T::WATCH_EVENT, b"@releaseDomain\0token\0".to_vec()));
    assert_eq!(client.ok(T::IS_DOMAIN_INTRODUCED, b"7\0"), b"F\0");
    daemon.set_state(domid, DomainState::Gone).unwrap();
    assert!(daemon.set_state(domid, DomainState::Dying).is_err(), "it is gone");
    let port = daemon.create_domain(domid).unwrap();
    client.ok(T::INTRODUCE, format!("7\x001\x00{port}\x00").as_bytes());
    let mut guest = daemon.attach(domid).unwrap();
    assert!(guest.wait_introduced(Duration::from_secs(5)).unwrap());
    assert!(!daemon.pids().is_empty());
}

#[test]
fn xenstored() {
    let dir = TempDir::new().unwrap();
    a_domains_life(&mut Peer::start(Kind::Xenstored, dir.path(), &[]).unwrap());
}

#[test]
fn oxenstored() {
    let dir = TempDir::new().unwrap();
    a_domains_life(&mut Peer::start(Kind::Oxenstored, dir.path(), &[]).unwrap());
}

#[test]
fn ours() {
    let dir = TempDir::new().unwrap();
    a_domains_life(&mut Ours::start(&Binaries::beside_us().unwrap(), dir.path(), &[]).unwrap());
}

#[test]
fn a_daemon_that_does_not_start_tells_why() {
    let dir = TempDir::new().unwrap();
    let error = Peer::start(Kind::Xenstored, dir.path(), &["stray"]).err().unwrap();
    assert!(error.to_string().contains("ended"), "{error}");
}
