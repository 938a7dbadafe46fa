//! What a vault holds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::wire::Deposit;

/// A deposit with its descriptors.
#[derive(Debug, Default)]
pub struct Holding {
    deposit: Deposit,
    descriptors: Vec<OwnedFd>,
}

impl Holding {
    /// Before the first keeper: the desk, where its commands come from, and the locks.
    pub fn first(descriptors: [(&str, OwnedFd); 4]) -> Self {
        let (names, descriptors) =
            descriptors.into_iter().map(|(name, descriptor)| (name.to_owned(), descriptor)).unzip();
        Self { deposit: Deposit { names, ..Deposit::default() }, descriptors }
    }

    /// Takes a newer deposit instead. False for one that is not newer, or has not as many descriptors as names.
    pub fn replace(&mut self, deposit: Deposit, descriptors: Vec<OwnedFd>) -> bool {
        let whole = deposit.names.len() == descriptors.len();
        let newer = deposit.sequence > self.deposit.sequence;
        if whole && newer {
            *self = Self { deposit, descriptors };
        }
        whole && newer
    }

    /// Number of the deposit; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.deposit.sequence
    }

    /// The deposit, to be given to the next keeper.
    pub fn deposit(&self) -> &Deposit {
        &self.deposit
    }

    /// The descriptors, in the order of their names.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }

    /// A duplicate of a descriptor.
    pub fn copy_of(&self, name: &str) -> Option<OwnedFd> {
        let at = self.deposit.names.iter().position(|known| known == name)?;
        self.descriptors[at].try_clone().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::uplink::eventfd;
    use crate::wire::names;

    fn deposit(sequence: u64, names: &[&str]) -> (Deposit, Vec<OwnedFd>) {
        let descriptors = names.iter().map(|_| eventfd().unwrap()).collect();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        (Deposit { sequence, names, ..Deposit::default() }, descriptors)
    }

    #[test]
    fn the_newest_whole_deposit_is_held_whoever_sends_another() {
        let first = [names::DESK, names::COMMANDS, names::LOCK, names::PARTS];
        let mut holding = Holding::first(first.map(|name| (name, eventfd().unwrap())));
        assert!(holding.sequence() == 0 && holding.copy_of(names::DESK).is_some());
        let (newest, descriptors) = deposit(7, &["a", "b"]);
        assert!(holding.replace(newest.clone(), descriptors));
        let (older, descriptors) = deposit(7, &["c"]);
        assert!(!holding.replace(older, descriptors));
        let (torn, _) = deposit(8, &["a"]);
        assert!(!holding.replace(torn, vec![]));
        assert_eq!((holding.deposit(), holding.descriptors().len()), (&newest, 2));
        assert!(holding.copy_of("b").is_some() && holding.copy_of(names::DESK).is_none());
    }
}
