//! What the leader does about damage in its own copy of the store.
//!
//! ```text
//!   a read, or the look before a request is logged ---> damage ---> mended by the others' copies: look again
//!   the scrubber -----------------------------------------^    \--> no majority: EIO
//!                                                               \-> beyond mending: the process ends, a follower leads
//! ```

use std::time::Instant;

use control::Severity;
use sanity::pace::Pace;
use xs_protocol::HEADER_BYTES;
use xs_store::Damage;

use super::conn::Conn;
use super::court::Mended;
use super::leader::Leader;
use crate::error::Error;
use crate::limits::{MENDS_IN_A_ROW_MAX, SCRUBBED_PER_S_LEADER};
use crate::service::note;

/// Repairs so far, and the scrubber's pace.
pub struct Repairs {
    pace: Pace,
    began: Instant,
    last: Option<Damage>,
    in_a_row: u32,
    /// Requests answered at the last damage.
    answered: u64,
}

impl Repairs {
    pub fn new() -> Self {
        Self {
            pace: Pace::new(SCRUBBED_PER_S_LEADER),
            began: Instant::now(),
            last: None,
            in_a_row: 0,
            answered: 0,
        }
    }
}

impl Leader {
    /// Damage was met before anything about the first received request left. True if it is mended and the request is to
    /// be looked at again; else the request is answered with EIO, because nobody knows what is right.
    pub(super) fn after_damage(
        &mut self,
        conn: &mut Conn,
        payload_bytes: usize,
        damage: Damage,
    ) -> Result<(), Error> {
        if !self.mend(damage)? {
            conn.stage_eio();
            conn.slot.commit(HEADER_BYTES + payload_bytes, 1, None);
            self.status.requests += 1;
        }
        Ok(())
    }

    /// Verifies some more of the store.
    pub(super) fn scrub(&mut self) -> Result<(), Error> {
        let now_ms = u64::try_from(self.repairs.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.repairs.pace.due(now_ms);
        let (checked, damage) = self.machine.scrub(due);
        self.status.scrubbed += checked as u64;
        damage.map_or(Ok(()), |damage| self.mend(damage).map(drop))
    }

    /// True if the node is right again. An error ends the process, which is how what cannot be mended is put right.
    fn mend(&mut self, damage: Damage) -> Result<bool, Error> {
        let began = Instant::now();
        self.status.damages += 1;
        tracing::error!(path = %damage.path, part = %damage.part, "damage in memory");
        note(&self.warden, Severity::Error, "corruption_detected", damage.to_string())?;
        // What was mended and is damaged again before anybody was answered is not damaged by a flipped bit.
        let again =
            self.repairs.last.as_ref() == Some(&damage) && self.repairs.answered == self.status.requests;
        self.repairs.in_a_row = if again { self.repairs.in_a_row + 1 } else { 0 };
        self.repairs.answered = self.status.requests;
        if self.repairs.in_a_row >= MENDS_IN_A_ROW_MAX {
            return Err(damage.into());
        }
        let mended = self.machine.mend(&damage);
        let took_us = began.elapsed().as_micros();
        match mended {
            Mended::Yes => {
                self.status.mended += 1;
                let detail = format!("{damage}, mended from a majority's copy in {took_us} us");
                note(&self.warden, Severity::Warning, "corruption_mended", detail)?;
                self.repairs.last = Some(damage);
                Ok(true)
            }
            Mended::NoMajority => {
                let detail =
                    format!("{damage}: no majority knows what is right; requests for it are refused");
                note(&self.warden, Severity::Error, "corruption_unresolved", detail)?;
                self.repairs.last = None;
                Ok(false)
            }
            Mended::EndReplica => Err(damage.into()),
        }
    }
}
