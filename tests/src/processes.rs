//! What a stand's processes are and use.

use std::collections::BTreeMap;

use xs_protocol::MessageType;

use crate::Stand;

impl Stand {
    /// The store's processes by their ids (warden, gateway, replicas), with the broker.
    pub fn processes(&self) -> Vec<u32> {
        let parents = parents();
        let [store, broker] = self.children();
        let mut found = vec![store, broker];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        found
    }

    /// Memory of all processes in KiB; what they share counts once (`Pss` of `smaps_rollup`).
    pub fn pss_kib(&self) -> u64 {
        self.processes().into_iter().map(pss_kib).sum()
    }

    /// The leader's accounts hold.
    ///
    /// # Panics
    /// If they do not.
    pub fn check(&self) {
        let answer = self.client().request(MessageType::CONTROL, 0, b"check\0").expect("CONTROL check");
        assert_eq!(String::from_utf8_lossy(&answer), "OK\0");
    }

    /// What a domain uses of a quota, as CONTROL tells it.
    ///
    /// # Panics
    /// If it tells nothing.
    pub fn usage(&self, domid: hypervisor::DomId, quota: &str) -> u64 {
        let command = format!("quota\0{domid}\0");
        let answer =
            self.client().request(MessageType::CONTROL, 0, command.as_bytes()).expect("CONTROL quota");
        let text = String::from_utf8_lossy(&answer).into_owned();
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == quota));
        let number = line.and_then(|line| line.split(':').nth(1)?.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {quota} in {text}"))
    }
}

fn parents() -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, parent(pid)?))).collect()
}

/// The fourth field of `stat`; the second one is in parentheses and may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// A process that is gone uses nothing.
fn pss_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
