//! The keeper's side of the vaults.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::{Link, LinkError};
use net_watch::TimeNs;
use net_watch::detector::Verdict;

use crate::desk::Desk;
use crate::error::Error;
use crate::events::nanos;
use crate::limits::{VAULT_AGAIN, VAULTS, VAULTS_LOOK};
use crate::process::{Late, Watched, start_role};
use crate::vault::wire::{Bid, Deposit, Process, ToKeeper, ToVault, Told};
use crate::wire::names;

/// A vault that lives, as far as is known.
pub struct Seat {
    /// Its process.
    pub process: Watched,
    /// The way to it.
    pub link: Link,
    /// It has something that is held.
    given: bool,
    own: Option<std::process::Child>,
}

/// The vaults by their numbers.
#[derive(Default)]
pub struct Vaults {
    seats: [Option<Seat>; VAULTS],
    /// When each was started last, or was to be.
    tried_at: [Option<TimeNs>; VAULTS],
    sequence: u64,
    looked_at: TimeNs,
}

impl Vaults {
    /// None yet, of the keeper with this number.
    pub fn new(generation: u64) -> Self {
        Self { sequence: generation << 32, ..Self::default() }
    }

    /// A vault that another keeper started, or that started this one. False for one that is gone.
    pub fn adopt(&mut self, process: &Process, link: OwnedFd, now: TimeNs) -> bool {
        let number = usize::try_from(process.number).unwrap_or(VAULTS);
        if let Some(seat) = self.seats.get_mut(number)
            && let Some(process) = Watched::other(process.pid, process.start_ticks, now)
        {
            *seat = Some(Seat { process, link: Link::from_fd(link), given: true, own: None });
            return true;
        }
        false
    }

    /// Starts a vault. It holds nothing, and ends with its link, until a deposit is made.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(&mut self, number: usize, arguments: &[OsString], now: TimeNs) -> Result<&Seat, Error> {
        self.tried_at[number] = Some(now);
        let (own, ours) = start_role(|command| command.arg("vault").args(arguments))?;
        ours.set_nonblocking(true)?;
        let process = Watched::child(&own, now)?;
        Ok(self.seats[number].insert(Seat { process, link: ours, given: false, own: Some(own) }))
    }

    /// Numbers of those that are not there. One that was tried just now waits: it could not be started, or died at once.
    pub fn missing(&self, now: TimeNs) -> Vec<usize> {
        let waits = |at: TimeNs| now.since_ns(at) < nanos(VAULT_AGAIN);
        let is_missing =
            |number: &usize| self.seats[*number].is_none() && !self.tried_at[*number].is_some_and(waits);
        (0..VAULTS).filter(is_missing).collect()
    }

    /// Those that are there.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Seat)> {
        self.seats.iter().enumerate().filter_map(|(number, seat)| Some((number, seat.as_ref()?)))
    }

    /// Their links, for a deposit.
    pub fn descriptors(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.present().map(|(number, seat)| (format!("{}{number}", names::VAULT), seat.link.as_fd()))
    }

    /// Their processes, for a deposit.
    pub fn record(&self) -> Vec<Process> {
        self.present().map(|(number, seat)| seat.record(number)).collect()
    }

    /// The number of the next deposit.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Has all vaults hold this. What the kernel queues for one is as good as held: it takes that before it gives anything
    /// to a next keeper. One that takes nothing is killed.
    ///
    /// A vault that holds nothing yet comes last: so whoever holds something is known to all others that do.
    pub fn deposit(&self, deposit: &Deposit, descriptors: &[BorrowedFd<'_>]) {
        let (old, new): (Vec<_>, Vec<_>) = self.present().partition(|(_, seat)| seat.given);
        for (number, seat) in old.into_iter().chain(new) {
            let deposit = Deposit { vault: u32::try_from(number).unwrap_or(u32::MAX), ..deposit.clone() };
            match seat.link.send(&ToVault { told: Some(Told::Deposit(deposit)) }, descriptors) {
                Ok(()) | Err(LinkError::Closed) => {}
                Err(error) => {
                    tracing::warn!(number, %error, "a vault takes nothing");
                    seat.process.kill();
                }
            }
        }
    }

    /// All that live have something now.
    pub fn set_given(&mut self) {
        self.seats.iter_mut().flatten().for_each(|seat| seat.given = true);
    }

    /// Looks at all. Those that are found dead are killed; gives their numbers, and why.
    pub fn look(&mut self, now: TimeNs, late: Late, desk: &Desk) -> Vec<(usize, String)> {
        if now.since_ns(self.looked_at) < nanos(VAULTS_LOOK) {
            return vec![];
        }
        self.looked_at = now;
        let mut condemned = vec![];
        for (number, seat) in self.seats.iter_mut().enumerate() {
            let Some(seat) = seat else { continue };
            if let Verdict::Dead { since, cause } = seat.process.judge(now, late, desk.vault_beats(number))
                && !std::mem::replace(&mut seat.process.condemned, true)
            {
                seat.process.kill();
                condemned.push((number, format!("{cause:?} after {} us", now.since_ns(since) / 1000)));
            }
        }
        condemned
    }

    /// Whether a vault says that all is to be stopped.
    pub fn hear_stop(&mut self, number: usize) -> bool {
        let Some(Some(seat)) = self.seats.get(number) else { return false };
        loop {
            match seat.link.receive::<ToKeeper>() {
                Ok(packet) if matches!(packet.message.bid, Some(Bid::Stop(_))) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes a vault out that is gone.
    pub fn bury(&mut self, number: usize) -> Option<Seat> {
        let mut seat = self.seats.get_mut(number)?.take_if(|seat| seat.process.is_gone())?;
        if let Some(own) = &mut seat.own {
            let _ = own.try_wait();
        }
        Some(seat)
    }

    /// Tells all that no keeper is to follow once all is stopped.
    pub fn tell_stop(&self) {
        for (_, seat) in self.present() {
            let _ = seat.link.send(&ToVault { told: Some(Told::Stop(true)) }, &[]);
        }
    }
}

impl Seat {
    fn record(&self, number: usize) -> Process {
        Process { number: number as u64, pid: self.process.pid, start_ticks: self.process.start_ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_cannot_be_started_is_tried_again_after_a_pause() {
        let mut vaults = Vaults::new(1);
        let (begun, again) = (TimeNs(5), TimeNs(5).plus_ns(nanos(VAULT_AGAIN)));
        assert_eq!(vaults.missing(begun), [0, 1]);
        // No program takes such an argument.
        assert!(vaults.start(1, &["\0".into()], begun).is_err());
        assert_eq!(vaults.missing(begun), [0]);
        assert_eq!(vaults.missing(TimeNs(again.0 - 1)), [0]);
        assert_eq!(vaults.missing(again), [0, 1]);
    }
}
