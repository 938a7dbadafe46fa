//! A question of one replica to the others, and their answers: how a damaged node is looked up elsewhere.
//!
//! ```text
//!   asker                                    others
//!     ask(text): text, then number  -------->  question(): a number not seen before
//!     answers(number)               <--------  answer(number, bytes): bytes, then number
//! ```
//!
//! One question at a time; only the leader asks. Layout, version 1: the question (number u64, entry u64, length u64,
//! text), then for each replica an answer (number u64, length u64, bytes).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{
    ANSWER_BYTES_MAX, ANSWER_PLACE_BYTES, CONSULT_BYTES, QUESTION_BYTES_MAX, QUESTION_PLACE_BYTES,
    REPLICAS_MAX,
};
use hypervisor::{Region, RegionError};

/// A question as another replica reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number, by which it is answered; never 0.
    pub number: u64,
    /// The log entry whose state is asked about: it must have been applied for the answer.
    pub entry: u64,
    /// What is asked.
    pub text: Vec<u8>,
}

/// The place where replicas ask and answer.
#[derive(Clone, Debug)]
pub struct Consult {
    region: Arc<Region>,
}

impl Consult {
    /// Opens the region, of at least [`CONSULT_BYTES`]; zeroed memory holds no question.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn open(fd: OwnedFd) -> Result<Self, RegionError> {
        Ok(Self { region: Arc::new(Region::open(fd, CONSULT_BYTES)?) })
    }

    /// Asks; gives the question's number. None if the text is longer than [`QUESTION_BYTES_MAX`].
    pub fn ask(&self, entry: u64, text: &[u8]) -> Option<u64> {
        if text.len() > QUESTION_BYTES_MAX {
            return None;
        }
        let number = self.word(0).load(Ordering::Acquire).wrapping_add(1).max(1);
        self.word(8).store(entry, Ordering::Release);
        self.word(16).store(text.len() as u64, Ordering::Release);
        self.region.write(24, text);
        self.word(0).store(number, Ordering::Release);
        Some(number)
    }

    /// The question, unless it is the one with number `seen`.
    pub fn question(&self, seen: u64) -> Option<Question> {
        let number = self.word(0).load(Ordering::Acquire);
        if number == seen || number == 0 {
            return None;
        }
        let length = usize::try_from(self.word(16).load(Ordering::Acquire)).unwrap_or(usize::MAX);
        let mut text = vec![0; length.min(QUESTION_BYTES_MAX)];
        self.region.read(24, &mut text);
        let entry = self.word(8).load(Ordering::Acquire);
        // Asked anew meanwhile: read it when it is whole.
        (self.word(0).load(Ordering::Acquire) == number).then_some(Question { number, entry, text })
    }

    /// Answers as `replica`. False if the answer is longer than [`ANSWER_BYTES_MAX`].
    pub fn answer(&self, replica: u32, number: u64, bytes: &[u8]) -> bool {
        if bytes.len() > ANSWER_BYTES_MAX {
            return false;
        }
        let place = answer_place(replica);
        self.word(place).store(0, Ordering::Release);
        self.word(place + 8).store(bytes.len() as u64, Ordering::Release);
        self.region.write(place + 16, bytes);
        self.word(place).store(number, Ordering::Release);
        true
    }

    /// The answer of `replica` to a question; none yet if it gave none.
    pub fn answer_of(&self, replica: u32, number: u64) -> Option<Vec<u8>> {
        let place = answer_place(replica);
        if self.word(place).load(Ordering::Acquire) != number {
            return None;
        }
        let length = usize::try_from(self.word(place + 8).load(Ordering::Acquire)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(ANSWER_BYTES_MAX)];
        self.region.read(place + 16, &mut bytes);
        Some(bytes)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(offset)
    }
}

fn answer_place(replica: u32) -> usize {
    assert!(replica < REPLICAS_MAX, "replica {replica} has no place for answers");
    QUESTION_PLACE_BYTES + replica as usize * ANSWER_PLACE_BYTES
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_question_is_asked_and_answered() {
        let region = Region::create("consult", CONSULT_BYTES).unwrap();
        let open = || Consult::open(region.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let (asker, other) = (open(), open());
        assert_eq!(other.question(0), None);
        let number = asker.ask(9, b"/a/b").unwrap();
        assert_eq!(other.question(0), Some(Question { number, entry: 9, text: b"/a/b".to_vec() }));
        assert_eq!(other.question(number), None);
        assert_eq!(asker.answer_of(2, number), None);
        assert!(other.answer(2, number, b"copy"));
        assert_eq!(asker.answer_of(2, number).as_deref(), Some(&b"copy"[..]));
        let next = asker.ask(10, b"/c").unwrap();
        assert_eq!(asker.answer_of(2, next), None);
    }

    #[test]
    fn the_bounds_are_reached_and_kept() {
        let region = Region::create("consult", CONSULT_BYTES).unwrap();
        let consult = Consult::open(region.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let number = consult.ask(1, &[b'x'; QUESTION_BYTES_MAX]).unwrap();
        assert_eq!(consult.ask(1, &[b'x'; QUESTION_BYTES_MAX + 1]), None);
        assert!(consult.answer(REPLICAS_MAX - 1, number, &[1; ANSWER_BYTES_MAX]));
        assert!(!consult.answer(REPLICAS_MAX - 1, number, &[1; ANSWER_BYTES_MAX + 1]));
        assert_eq!(consult.answer_of(REPLICAS_MAX - 1, number), Some(vec![1; ANSWER_BYTES_MAX]));
    }
}
