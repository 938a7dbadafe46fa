//! CONTROL commands that ask for something outside of the store.

use std::fmt::Write;

use xs_store::Quota;

use super::leader::Leader;

impl Leader {
    /// Does what a command of a privileged client asks for. The client has its answer already, as with the stock daemon.
    pub(super) fn control(&mut self, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["print", text] => tracing::info!(%text, "print"),
            ["memreport", path] => {
                if let Err(error) = std::fs::write(path, self.memory_report()) {
                    tracing::warn!(%path, %error, "memreport");
                }
            }
            ["memreport"] => tracing::info!(report = %self.memory_report(), "memreport"),
            _ => tracing::info!(command = ?words, "not supported: the log is chosen by PPVMM_LOG"),
        }
    }

    /// A domain over its soft quota of memory is warned of once, and again after it was below it.
    pub(super) fn look_at_soft_quota(&mut self) {
        let store = &self.machine.store;
        for (domid, _) in store.domains() {
            let (usage, quotas) = (store.usage(domid), store.quotas(domid));
            let soft_bytes = u64::from(quotas.soft_memory_bytes);
            let over = domid.0 != 0 && soft_bytes != 0 && usage.memory_bytes > soft_bytes;
            if !over {
                self.over_soft_quota.remove(&domid);
            } else if self.over_soft_quota.insert(domid) && self.log_limit.allow("soft_quota") {
                tracing::warn!(%domid, memory_bytes = usage.memory_bytes, soft_bytes, "soft quota of memory exceeded");
            }
        }
    }

    /// What each domain holds, in lines for people.
    fn memory_report(&self) -> String {
        let store = &self.machine.store;
        let mut text =
            format!("log: {} bytes in use\nconnections: {}\n", self.machine.used_bytes(), self.conns.len());
        for (domid, _) in store.domains() {
            let (usage, quotas) = (store.usage(domid), store.quotas(domid));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "domain {domid}: {} nodes, {} watches, {} transactions, {} bytes of {}, {} bytes to deliver",
                usage.nodes,
                usage.watches,
                usage.transactions,
                usage.memory_bytes,
                quotas.get(Quota::Memory),
                usage.outbox_bytes
            );
        }
        text
    }
}
