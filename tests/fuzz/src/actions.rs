//! Sequences of sensible requests, and three replicas that deliver, restart and come from snapshots at different times.

use xs_protocol::{DomId, MessageType as T};
use xs_store::{ConnId, Entry, EntryRef, Peer, Store};

use crate::bytes::Bytes;
use crate::limits::STEPS_MAX;
use crate::shell::{GUEST, Shell, TOOLS};

const PATHS: [&str; 16] = [
    "/",
    "/a",
    "/a/b",
    "/a/b/c/d",
    "x",
    "x/y",
    "x/y/z",
    "/local/domain/3",
    "/local/domain/3/x",
    "/local/domain/3/x/y",
    "/local/domain/4",
    "/local/domain/4/n",
    "/tool",
    "@releaseDomain",
    "@introduceDomain",
    "/local/domain/",
];
const VALUES: [&str; 5] = ["", "1", "2", "value", "\0\0"];
const PERMS: [&str; 8] = ["n0", "n3", "b3", "n3\0r4", "n0\0b3", "r3\0w4\0n0", "b0\0r32757", "n4\0b3"];
const OTHER: ConnId = ConnId(900);
const REQUESTS: [T; 14] = [
    T::READ,
    T::DIRECTORY,
    T::GET_PERMS,
    T::WRITE,
    T::WRITE,
    T::MKDIR,
    T::RM,
    T::SET_PERMS,
    T::WATCH,
    T::UNWATCH,
    T::TRANSACTION_START,
    T::TRANSACTION_END,
    T::RESET_WATCHES,
    T::DIRECTORY_PART,
];

/// A second replica, fed from the log.
struct Follower {
    store: Store,
    applied: usize,
}

/// Requests of tools and two guests with domains that come and go; the replicas stay the same.
pub fn actions(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut shell = Shell::new();
    let mut follower = Follower { store: Store::new(xs_store::Config::default()), applied: 0 };
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        match bytes.below(20) {
            0 => happen(&mut shell, &mut bytes),
            1 => follower.catch_up(&shell),
            2 => {
                follower.catch_up(&shell);
                let snapshot = follower.store.snapshot(shell.index).expect("undamaged");
                (_, follower.store) = Store::from_snapshot(&snapshot).expect("our own snapshot");
            }
            3 => {
                let conn = bytes.pick(&[TOOLS, GUEST, OTHER]);
                let behind = u64::from(bytes.byte() % 8);
                follower.store.trim(conn, follower.store.last_ordinal(conn).saturating_sub(behind));
            }
            4 => manage(&mut shell, &mut bytes),
            _ => ask(&mut shell, &mut bytes),
        }
    }
    follower.catch_up(&shell);
    assert_eq!(follower.store.digest(), shell.store.digest());
    for (conn, _) in shell.store.connections() {
        assert_eq!(follower.store.last_ordinal(conn), shell.store.last_ordinal(conn));
        assert_eq!(follower.store.last_seq(conn), shell.store.last_seq(conn));
    }
    shell.check();
    shell.check_snapshot();
}

impl Follower {
    fn catch_up(&mut self, shell: &Shell) {
        let mut effects = Vec::new();
        for (at, bytes) in shell.log.iter().enumerate().skip(self.applied) {
            let entry = EntryRef::decode(bytes).expect("it was decoded before");
            self.store.apply(at as u64 + 1, entry, &mut effects);
        }
        self.applied = shell.log.len();
    }
}

fn ask(shell: &mut Shell, bytes: &mut Bytes<'_>) {
    let conn = bytes.pick(&[TOOLS, GUEST, GUEST, OTHER]);
    let kind = bytes.pick(&REQUESTS);
    let tx_id = if matches!(kind, T::TRANSACTION_START) { 0 } else { u32::from(bytes.byte() % 4) };
    let path = bytes.pick(&PATHS);
    let payload = match kind {
        T::WRITE => format!("{path}\0{}", bytes.pick(&VALUES)),
        T::SET_PERMS => format!("{path}\0{}\0", bytes.pick(&PERMS)),
        T::WATCH | T::UNWATCH => format!("{path}\0t{}\0", bytes.below(3)),
        T::TRANSACTION_START | T::RESET_WATCHES => "\0".to_owned(),
        T::TRANSACTION_END => bytes.pick(&["T\0", "T\0", "T\0", "F\0"]).to_owned(),
        T::DIRECTORY_PART => format!("{path}\0{}\0", bytes.below(9)),
        _ => format!("{path}\0"),
    };
    shell.request(conn, kind, tx_id, payload.as_bytes());
}

fn manage(shell: &mut Shell, bytes: &mut Bytes<'_>) {
    let domid = bytes.pick(&[3, 4]);
    let (kind, payload) = match bytes.below(6) {
        0 => (T::INTRODUCE, format!("{domid}\x001\x007\0")),
        1 => (T::RELEASE, format!("{domid}\0")),
        2 => (T::RESUME, format!("{domid}\0")),
        3 => (T::SET_TARGET, format!("{domid}\x00{}\0", 7 - domid)),
        4 => (T::SET_QUOTA, format!("{domid}\0nodes\0{}\0", bytes.below(12))),
        _ => (T::SET_FEATURE, format!("{domid}\0{}\0", bytes.below(16))),
    };
    shell.request(TOOLS, kind, 0, payload.as_bytes());
}

/// Things that happen by themselves.
fn happen(shell: &mut Shell, bytes: &mut Bytes<'_>) {
    let domid = DomId(bytes.pick(&[3, 4]));
    let conn = if domid == DomId(3) { GUEST } else { OTHER };
    let known = shell.store.is_connected(conn);
    let entry = match bytes.below(6) {
        0 => Entry::DomainShutdown { domid },
        1 => Entry::DomainGone { domid },
        2 => Entry::DiscardEvents { conn, up_to: shell.store.last_ordinal(conn) },
        3 if known => Entry::Disconnect { conn },
        4 if known => Entry::Reset { conn },
        _ if shell.store.domain(domid).is_none_or(|domain| !domain.introduced) && !known => {
            Entry::Connect { conn, peer: Peer::Domain(domid) }
        }
        _ => Entry::Noop,
    };
    shell.apply(&entry);
}
