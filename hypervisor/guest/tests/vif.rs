//! The toolstack's nodes of an interface, against a store that writes down what it is asked.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use hypervisor::DomId;
use sim_guest::{Toolstack, Vif};
use xs_protocol::{HEADER_BYTES, Header, MessageType, XsError, message};

#[derive(Default)]
struct Nodes {
    values: BTreeMap<String, String>,
    perms: BTreeMap<String, String>,
    /// Transactions that ended well.
    commits: u32,
    conflicts: u32,
}

impl Nodes {
    fn answer(&mut self, header: &Header, payload: &[u8], out: &mut Vec<u8>) {
        let text = String::from_utf8(payload.to_vec()).unwrap();
        let (path, rest) = text.split_once('\0').unwrap();
        let below = |name: &String| name.starts_with(path);
        match header.kind {
            MessageType::TRANSACTION_START => return message::push_reply(out, header, b"7\0"),
            MessageType::TRANSACTION_END if self.conflicts > 0 => {
                self.conflicts -= 1;
                return message::push_error(out, header, XsError::EAGAIN);
            }
            MessageType::TRANSACTION_END => self.commits += u32::from(path == "T"),
            MessageType::RM if !self.perms.keys().any(below) => {
                return message::push_error(out, header, XsError::ENOENT);
            }
            MessageType::RM => {
                self.values.retain(|name, _| !name.starts_with(path));
                self.perms.retain(|name, _| !name.starts_with(path));
            }
            MessageType::MKDIR => {}
            MessageType::SET_PERMS => {
                self.perms.insert(path.to_owned(), rest.trim_end_matches('\0').replace('\0', " "));
            }
            MessageType::WRITE => {
                assert_eq!(header.tx_id, 7, "all at once");
                self.values.insert(path.to_owned(), rest.to_owned());
            }
            _ => return message::push_error(out, header, XsError::ENOSYS),
        }
        message::push_ack(out, header);
    }
}

fn store() -> (Toolstack, Arc<Mutex<Nodes>>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let nodes = Arc::new(Mutex::new(Nodes::default()));
    let theirs = Arc::clone(&nodes);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; HEADER_BYTES];
        while stream.read_exact(&mut bytes).is_ok() {
            let header = Header::parse(&bytes).unwrap();
            let mut payload = vec![0; header.len as usize];
            stream.read_exact(&mut payload).unwrap();
            let mut out = vec![];
            theirs.lock().unwrap().answer(&header, &payload, &mut out);
            stream.write_all(&out).unwrap();
        }
    });
    (Toolstack::connect(&path).unwrap(), nodes)
}

const FRONT: &str = "/local/domain/5/device/vif/1";
const BACK: &str = "/local/domain/2/backend/vif/5/1";

fn vif() -> Vif {
    Vif { backend: DomId(2), ..Vif::new(DomId(5), 1) }
}

#[test]
fn an_interface_has_the_nodes_that_libxl_makes() {
    let (mut toolstack, nodes) = store();
    nodes.lock().unwrap().conflicts = 2;
    toolstack.add_vif(&vif()).unwrap();
    let nodes = nodes.lock().unwrap();
    assert_eq!(nodes.commits, 1);
    let expected = [
        (FRONT, "backend", BACK),
        (FRONT, "backend-id", "2"),
        (FRONT, "state", "1"),
        (FRONT, "handle", "1"),
        (FRONT, "mac", "00:16:3e:00:05:01"),
        (BACK, "frontend", FRONT),
        (BACK, "frontend-id", "5"),
        (BACK, "online", "1"),
        (BACK, "state", "1"),
        (BACK, "script", "/etc/xen/scripts/vif-bridge"),
        (BACK, "mac", "00:16:3e:00:05:01"),
        (BACK, "bridge", "xenbr0"),
        (BACK, "handle", "1"),
        (BACK, "hotplug-status", "connected"),
    ];
    for (directory, key, value) in expected {
        assert_eq!(nodes.values.get(&format!("{directory}/{key}")).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(nodes.perms[FRONT], "n5 r2");
    assert_eq!(nodes.perms[BACK], "n2 r5");
}

#[test]
fn an_interface_is_closed_and_removed() {
    let (mut toolstack, nodes) = store();
    toolstack.add_vif(&vif()).unwrap();
    toolstack.close_vif(&vif()).unwrap();
    let value = |key: &str| nodes.lock().unwrap().values.get(&format!("{BACK}/{key}")).cloned();
    assert_eq!((value("online").as_deref(), value("state").as_deref()), (Some("0"), Some("5")));
    toolstack.remove_vif(&vif()).unwrap();
    assert!(nodes.lock().unwrap().values.is_empty());
    toolstack.remove_vif(&vif()).unwrap();
}
