//! What the warden has still to be told of the gateway's clients, so that it can give them to the next gateway.
//!
//! It is told in packets of many, as far as it takes them: no request waits for it. The leader gives the gateway only
//! clients that stay, so nothing here is for those that ask once and leave, as most do.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::limits::CLIENTS_BATCH;
use control::{Connections, LinkError, Tether, from_service::Report};

use crate::error::Error;

/// See the module's text. All is bounded by the slots of the connection table.
#[derive(Debug, Default)]
pub struct Deposit {
    unsent: BTreeSet<u64>,
    closed: BTreeSet<u64>,
    waits_for_room: bool,
}

impl Deposit {
    /// A client is here.
    pub fn opened(&mut self, id: u64) {
        self.unsent.insert(id);
    }

    /// These clients are gone. The warden may have got one from somebody else too, so it is told in any case.
    pub fn closed(&mut self, ids: &[u64]) {
        for id in ids {
            self.unsent.remove(id);
            self.closed.insert(*id);
        }
    }

    /// A new warden has none of these.
    pub fn begin_anew(&mut self, all: impl Iterator<Item = u64>) {
        self.closed.clear();
        self.unsent = all.collect();
    }

    /// Clients that the warden has still to be told of, as come or as gone.
    pub fn untold(&self) -> usize {
        self.unsent.len() + self.closed.len()
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
        while !self.unsent.is_empty() {
            let ids: Vec<u64> = self.unsent.iter().take(CLIENTS_BATCH).copied().collect();
            let (known, descriptors): (Vec<u64>, Vec<BorrowedFd<'_>>) =
                ids.iter().filter_map(|id| Some((*id, clients.get(id)?.as_fd()))).unzip();
            if !known.is_empty() {
                warden.report(Report::Clients(Connections { ids: known }), &descriptors)?;
            }
            self.unsent.retain(|id| !ids.contains(id));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_left_is_not_told_of_but_its_end_is() {
        let mut deposit = Deposit::default();
        [1, 2].into_iter().for_each(|id| deposit.opened(id));
        deposit.closed(&[1, 9]);
        assert_eq!(deposit.unsent.iter().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(deposit.closed.iter().copied().collect::<Vec<_>>(), [1, 9]);
        deposit.begin_anew([2, 3].into_iter());
        assert!(deposit.closed.is_empty());
        assert_eq!((deposit.unsent.len(), deposit.untold()), (2, 2));
    }
}
