//! What happened, as lines; their hash tells whether two runs were the same.

use twox_hash::XxHash3_64;

use crate::limits::TRACE_LINES_MAX;

/// A trace.
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the lines too if `keep`.
    pub fn new(keep: bool) -> Self {
        Self { hash: 0, lines: keep.then(Vec::new) }
    }

    /// Adds a line.
    pub fn note(&mut self, line: String) {
        self.hash = XxHash3_64::oneshot_with_seed(self.hash, line.as_bytes());
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < TRACE_LINES_MAX) {
            lines.push(line);
        }
    }

    /// The hash over all lines.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines that were kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_hash_goes_on() {
        let (mut kept, mut hashed) = (Trace::new(true), Trace::new(false));
        for line in 0..=TRACE_LINES_MAX {
            kept.note(line.to_string());
            hashed.note(line.to_string());
        }
        assert_eq!((kept.lines().len(), hashed.lines().len()), (TRACE_LINES_MAX, 0));
        let before = kept.hash();
        assert_eq!(before, hashed.hash());
        kept.note(String::new());
        assert_ne!(before, kept.hash());
    }
}
