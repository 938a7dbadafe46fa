//! Log lines that others can provoke are limited, each kind by itself.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits::{LOG_LINES_PER_WINDOW, LOG_WINDOW};

/// Counts lines by kind. Kinds are fixed names, so their number is bounded by the code.
#[derive(Default)]
pub struct LogLimit {
    windows: BTreeMap<&'static str, (Instant, u32)>,
}

impl LogLimit {
    /// May a line of this kind be written now?
    pub fn allow(&mut self, kind: &'static str) -> bool {
        let now = Instant::now();
        let (start, lines) = self.windows.entry(kind).or_insert((now, 0));
        if now.duration_since(*start) >= LOG_WINDOW {
            (*start, *lines) = (now, 0);
        }
        *lines = lines.saturating_add(1);
        *lines <= LOG_LINES_PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_bound() {
        let mut limit = LogLimit::default();
        for _ in 0..LOG_LINES_PER_WINDOW {
            assert!(limit.allow("a"));
        }
        assert!(!limit.allow("a"));
        assert!(limit.allow("b"));
    }
}
