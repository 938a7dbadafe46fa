//! What the warden has still to be told of the gateway's clients, so that it can give them to the next gateway.
//!
//! It is told after the leader was, in packets of many: no request waits for it. A client that asks once and leaves, as
//! most do, is gone before it is told of, and then never is: telling of each at once cost up to half of the connections
//! per second (`tests/examples/churn.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use control::limits::CLIENTS_BATCH;
use control::{Connections, LinkError, Tether, from_service::Report};

use crate::error::Error;
use crate::limits::{ARRIVALS_MAX, DEPOSIT_DELAY};

/// See the module's text. All is bounded by the slots of the connection table.
#[derive(Debug, Default)]
pub struct Deposit {
    unsent: BTreeSet<u64>,
    /// When each of them came, in that order; some may be gone.
    arrivals: VecDeque<(Instant, u64)>,
    closed: BTreeSet<u64>,
    waits_for_room: bool,
}

impl Deposit {
    /// A client is here.
    pub fn opened(&mut self, id: u64) {
        // Of a warden that takes nothing, the arrivals of clients that left meanwhile would fill the memory.
        if self.arrivals.len() >= ARRIVALS_MAX {
            self.arrivals.retain(|(_, id)| self.unsent.contains(id));
        }
        self.unsent.insert(id);
        self.arrivals.push_back((Instant::now(), id));
    }

    /// These clients are gone.
    pub fn closed(&mut self, ids: &[u64]) {
        for id in ids {
            if !self.unsent.remove(id) {
                self.closed.insert(*id);
            }
        }
        self.forget_gone();
    }

    /// A new warden has none of these.
    pub fn begin_anew(&mut self, all: impl Iterator<Item = u64>) {
        self.closed.clear();
        self.unsent = all.collect();
        let long_ago = Instant::now().checked_sub(DEPOSIT_DELAY).unwrap_or_else(Instant::now);
        self.arrivals = self.unsent.iter().map(|id| (long_ago, *id)).collect();
    }

    /// Clients that the warden has still to be told of, as come or as gone.
    pub fn untold(&self) -> usize {
        self.unsent.len() + self.closed.len()
    }

    /// How long the gateway may sleep.
    pub fn wait(&self, otherwise: Duration) -> Duration {
        match self.arrivals.front() {
            Some((came, _)) if !self.waits_for_room => {
                DEPOSIT_DELAY.saturating_sub(came.elapsed()).min(otherwise)
            }
            _ => otherwise,
        }
    }

    fn forget_gone(&mut self) {
        while self.arrivals.front().is_some_and(|(_, id)| !self.unsent.contains(id)) {
            self.arrivals.pop_front();
        }
    }

    /// The next clients that stayed long enough.
    fn due(&self) -> Vec<u64> {
        let old = self.arrivals.iter().take_while(|(came, _)| came.elapsed() >= DEPOSIT_DELAY);
        old.map(|(_, id)| *id).filter(|id| self.unsent.contains(id)).take(CLIENTS_BATCH).collect()
    }

    /// Tells what is left to tell, as far as the warden takes it now.
    pub fn hand_over(&mut self, warden: &Tether, clients: &BTreeMap<u64, OwnedFd>) -> Result<(), Error> {
        let result = self.hand_over_some(warden, clients);
        let full = matches!(result, Err(LinkError::WouldBlock));
        if full != self.waits_for_room {
            self.waits_for_room = full;
            warden.watch_room(full)?;
        }
        match result {
            Ok(()) | Err(LinkError::WouldBlock) => {}
            // Without a warden there is nobody to tell; the next one is told everything.
            Err(LinkError::Closed) => *self = Self::default(),
            Err(error) => {
                // Such as no room for descriptors under way: the clients live all the same.
                tracing::warn!(%error, clients = self.unsent.len(), "the warden is not told of clients");
                self.unsent.clear();
                self.arrivals.clear();
            }
        }
        Ok(())
    }

    fn hand_over_some(&mut self, warden: &Tether, clients: &BTreeMap<u64, OwnedFd>) -> Result<(), LinkError> {
        while !self.closed.is_empty() {
            let ids: Vec<u64> = self.closed.iter().take(CLIENTS_BATCH).copied().collect();
            warden.report(Report::ClientsClosed(Connections { ids: ids.clone() }), &[])?;
            self.closed.retain(|id| !ids.contains(id));
        }
        loop {
            let ids = self.due();
            if ids.is_empty() {
                return Ok(());
            }
            let (known, descriptors): (Vec<u64>, Vec<BorrowedFd<'_>>) =
                ids.iter().filter_map(|id| Some((*id, clients.get(id)?.as_fd()))).unzip();
            if !known.is_empty() {
                warden.report(Report::Clients(Connections { ids: known }), &descriptors)?;
            }
            ids.iter().for_each(|id| {
                self.unsent.remove(id);
            });
            self.forget_gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_came_and_went_is_never_told_of() {
        let mut deposit = Deposit::default();
        assert_eq!(deposit.wait(DEPOSIT_DELAY * 9), DEPOSIT_DELAY * 9);
        deposit.opened(1);
        assert!(deposit.wait(DEPOSIT_DELAY * 9) <= DEPOSIT_DELAY);
        deposit.opened(2);
        deposit.closed(&[1, 9]);
        assert_eq!(deposit.unsent.iter().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(deposit.closed.iter().copied().collect::<Vec<_>>(), [9]);
        assert_eq!(deposit.arrivals.len(), 1);
        std::thread::sleep(DEPOSIT_DELAY);
        assert_eq!(deposit.due(), [2]);
        for id in 10..10 + 2 * ARRIVALS_MAX as u64 {
            deposit.opened(id);
            deposit.closed(&[id]);
        }
        assert!(deposit.arrivals.len() <= ARRIVALS_MAX && deposit.closed.len() == 1);
        deposit.begin_anew([2, 3].into_iter());
        assert!(deposit.closed.is_empty());
        assert_eq!((deposit.unsent.len(), deposit.untold()), (2, 2));
        assert_eq!(deposit.wait(DEPOSIT_DELAY), Duration::ZERO, "a new warden is told at once");
    }
}
