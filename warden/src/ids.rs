//! Names and numbers of services, and time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A service of the store's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceId {
    /// Holds the endpoints.
    Gateway,
    /// The member of the engine's own cluster of this number, from 0. Never leads.
    Member(u32),
    /// The replica of this number, from 0.
    Replica(u32),
}

impl ServiceId {
    /// The replica's number, none for all others.
    pub fn replica(self) -> Option<u32> {
        match self {
            Self::Gateway | Self::Member(_) => None,
            Self::Replica(number) => Some(number),
        }
    }

    /// The number among those of its kind.
    pub fn number(self) -> u32 {
        match self {
            Self::Gateway => 0,
            Self::Member(number) | Self::Replica(number) => number,
        }
    }

    /// The service of this role and number.
    pub fn of(role: control::Role, number: u32) -> Self {
        match role {
            control::Role::Gateway => Self::Gateway,
            control::Role::Replica => Self::Replica(number),
            control::Role::Member => Self::Member(number),
        }
    }

    /// What it is.
    pub fn role(self) -> control::Role {
        match self {
            Self::Gateway => control::Role::Gateway,
            Self::Replica(_) => control::Role::Replica,
            Self::Member(_) => control::Role::Member,
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Member(number) => write!(f, "etcd-{number}"),
            Self::Replica(number) => write!(f, "replica/{number}"),
        }
    }
}

/// What a fault is injected into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The replica that leads.
    Leader,
    /// The first replica that follows.
    Follower,
    /// This service.
    Service(ServiceId),
    /// The warden itself.
    Warden,
}

/// A text that names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a target: {0:?}; one of leader, follower, gateway, replica/N, etcd-N, warden")]
pub struct NotATarget(pub String);

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let refuse = || NotATarget(text.chars().take(64).collect());
        Ok(match text {
            "leader" => Self::Leader,
            "follower" => Self::Follower,
            "gateway" => Self::Service(ServiceId::Gateway),
            "warden" => Self::Warden,
            other => {
                let replica = other.strip_prefix("replica/").map(|number| (control::Role::Replica, number));
                let member = other.strip_prefix("etcd-").map(|number| (control::Role::Member, number));
                let (role, number) = replica.or(member).ok_or_else(refuse)?;
                Self::Service(ServiceId::of(role, number.parse().map_err(|_| refuse())?))
            }
        })
    }
}

/// A point in time: microseconds since the warden's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeUs(pub u64);

impl TimeUs {
    /// The point in time so many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Microseconds from `earlier` to here, 0 if it is later.
    pub fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The same as a duration since the warden's start.
    pub fn as_duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        assert_eq!("leader".parse(), Ok(Target::Leader));
        assert_eq!("replica/2".parse(), Ok(Target::Service(ServiceId::Replica(2))));
        assert_eq!("etcd-0".parse(), Ok(Target::Service(ServiceId::Member(0))));
        for bad in
            ["", "etcd-", "etcd/0", "replica/", "replica/-1", "replica/99999999999", "Leader", "replica"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_target_is_cut_in_the_error() {
        assert_eq!("x".repeat(1_000).parse::<Target>().unwrap_err().0.len(), 64);
    }
}
