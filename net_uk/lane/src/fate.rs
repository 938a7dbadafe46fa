//! Death of the process, for tests: after a given number of stores, the later ones do not happen.

use std::cell::Cell;

thread_local! {
    static STORES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Lets `stores` more stores of this thread happen.
pub(crate) fn die_after(stores: u64) {
    STORES_LEFT.set(Some(stores));
}

/// Lets all stores of this thread happen again. Says whether one did not.
pub(crate) fn revive() -> bool {
    STORES_LEFT.replace(None) == Some(0)
}

/// Whether the next store happens.
pub(crate) fn may_store() -> bool {
    match STORES_LEFT.get() {
        None => true,
        Some(0) => false,
        Some(left) => {
            STORES_LEFT.set(Some(left - 1));
            true
        }
    }
}
