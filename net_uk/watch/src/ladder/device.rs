//! Trouble of a NIC under a driver that lives.

use super::member::probe_delay_ns;
use super::types::Rung;
use crate::TimeNs;
use crate::detector::DeviceReport;
use crate::limits::{LINK_DOWN_BOUND_NS, RING_FULL_BOUND_NS, TROUBLE_FORGET_NS};

#[derive(Clone, Copy, Debug)]
struct Trouble {
    what: DeviceReport,
    act_at: TimeNs,
}

/// What is to be done about trouble that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    Climb(Rung),
    GiveUp,
    Probe,
}

/// The trouble of one NIC and what was tried about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    trouble: Option<Trouble>,
    ended_at: Option<TimeNs>,
    tried: usize,
    given_up: bool,
    probes: u32,
}

impl Device {
    pub fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// When something is to be done.
    pub fn act_at(&self) -> Option<TimeNs> {
        self.trouble.map(|trouble| trouble.act_at)
    }

    /// Takes note of trouble. True if it begins.
    pub fn begin(&mut self, now: TimeNs, what: DeviceReport) -> bool {
        if let Some(trouble) = &mut self.trouble {
            trouble.what = what;
            return false;
        }
        if self.ended_at.is_some_and(|at| now.since_ns(at) > TROUBLE_FORGET_NS) {
            *self = Self::default();
        }
        let bound_ns = match what {
            DeviceReport::LinkDown => LINK_DOWN_BOUND_NS,
            DeviceReport::RingFull | DeviceReport::Fine => RING_FULL_BOUND_NS,
        };
        self.trouble = Some(Trouble { what, act_at: now.plus_ns(bound_ns) });
        true
    }

    /// The trouble is over, or the driver that told it is. True if there was any.
    pub fn end(&mut self, now: TimeNs) -> bool {
        let ended = self.trouble.take().is_some();
        if ended {
            self.ended_at = Some(now);
            self.given_up = false;
        }
        ended
    }

    /// What to do at [`Device::act_at`].
    pub fn remedy(&mut self, now: TimeNs) -> Option<Remedy> {
        let trouble = self.trouble.as_mut().filter(|trouble| now >= trouble.act_at)?;
        let rungs: &[Rung] = match trouble.what {
            // The cable may be out: that is no reason to disturb other NICs.
            DeviceReport::LinkDown => &[Rung::ResetDevice, Rung::ResetDevice],
            DeviceReport::RingFull | DeviceReport::Fine => {
                &[Rung::Restart, Rung::ResetDevice, Rung::ResetDevice, Rung::RestartAll]
            }
        };
        if let Some(rung) = rungs.get(self.tried) {
            self.tried += 1;
            return Some(Remedy::Climb(*rung));
        }
        if self.given_up {
            return Some(Remedy::Probe);
        }
        trouble.act_at = now.plus_ns(probe_delay_ns(self.probes));
        self.probes = self.probes.saturating_add(1);
        self.given_up = true;
        Some(Remedy::GiveUp)
    }
}
