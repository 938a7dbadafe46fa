//! Reading the newest snapshot, or the one before it if that is damaged.
//!
//! ```text
//!   Manifest -> Chunk(newest, 0) .. -> whole
//!      ^             | not whole, manifest as before     -> Chunk(previous, 0) .. -> whole, or Corrupt
//!      +-------------+ a leader has replaced it meanwhile
//! ```

use xs_consensus::Cursor;

use crate::call::{Found, Op, Request};
use crate::keys::Keys;
use crate::manifest::{Manifest, Saved};

/// A snapshot that is being read.
#[derive(Debug, Default)]
pub(super) struct Load {
    manifest: Option<Manifest>,
    of_previous: bool,
    bytes: Vec<u8>,
    next: usize,
}

/// What an answer has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    Nothing,
    Whole(Cursor, Vec<u8>),
    Damaged,
}

impl Load {
    pub fn request(&self, keys: &Keys) -> Request {
        let mut then = vec![Op::get(keys.latest())];
        if let Some(saved) = self.saved()
            && self.next < saved.chunks()
        {
            then.push(Op::get(keys.chunk(saved.index, self.next)));
        }
        Request::Txn { compare: Vec::new(), then, otherwise: Vec::new() }
    }

    pub fn hear(&mut self, found: &[Found]) -> Step {
        let Some(kv) = found.first().and_then(|found| found.kvs.first()) else { return Step::Nothing };
        let Some(manifest) = Manifest::decode(&kv.value) else { return Step::Damaged };
        if self.manifest.as_ref() != Some(&manifest) {
            *self = Self { manifest: Some(manifest), ..Self::default() };
            return Step::More;
        }
        let Some(saved) = self.saved().cloned() else { return Step::Damaged };
        if self.next < saved.chunks() {
            let Some(chunk) = found.get(1).and_then(|found| found.kvs.first()) else {
                return self.damaged();
            };
            self.bytes.extend_from_slice(&chunk.value);
            self.next += 1;
            if self.next < saved.chunks() {
                return Step::More;
            }
        }
        match saved.verify(&self.bytes) {
            Some(cursor) => Step::Whole(cursor, std::mem::take(&mut self.bytes)),
            None => self.damaged(),
        }
    }

    fn saved(&self) -> Option<&Saved> {
        let manifest = self.manifest.as_ref()?;
        if self.of_previous { manifest.previous.as_ref() } else { Some(&manifest.newest) }
    }

    fn damaged(&mut self) -> Step {
        let has_previous = self.manifest.as_ref().is_some_and(|manifest| manifest.previous.is_some());
        if self.of_previous || !has_previous {
            return Step::Damaged;
        }
        (self.of_previous, self.next) = (true, 0);
        self.bytes.clear();
        Step::More
    }
}
