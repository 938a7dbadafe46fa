//! The states in the store: what a backend does next, as a pure function of what is the case.
//!
//! ```text
//!    toolstack makes the device
//!                |
//!                v          Offer          Connect, then Switch(Connected)
//!         +--------------+   front is up   +----------+  front is Connected  +-----------+
//!         | Initialising |---------------->| InitWait |--------------------->| Connected |
//!         +--------------+                 +----------+                      +-----------+
//!                                           ^   ^  | the keys are refused          |
//!                       Offer: front begins |   |  |                               | front is Closing, or
//!                       anew                |   |  v                               | toolstack detaches
//!                                  +--------+ +---------+                          |
//!                                  | Closed |<| Closing |<-------------------------+
//!                                  +--------+ +---------+        Disconnect first
//!                                       |       front is Closed or gone
//!                                       v
//!                             Remove, if not online or front is gone
//! ```
//!
//! The function looks at levels and not at changes, so a backend that died between any two actions goes on where it was:
//! the caller does what [`next`] says, reads the store again, and asks again, until the answer is `None`.
//!
//! # Recovery
//! A successor of a backend that died finds its own state in the store. If that is Connected, the guest uses the device
//! and knows nothing of the death. A frontend that sees its backend leave Connected gives up its rings, and a guest loses
//! its network. So while [`Life::Recovering`] meets Connected, the answer is never one that writes a state: only
//! [`Action::Connect`], or [`Action::Abandon`] if the frontend itself has left Connected meanwhile; the caller is then
//! [`Life::Fresh`], and the device is closed or offered as always.

/// A state in the store (`enum xenbus_state` in `xen/include/public/io/xenbus.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of xenbus.h")]
pub enum XenbusState {
    Unknown,
    Initialising,
    InitWait,
    Initialised,
    Connected,
    Closing,
    Closed,
    Reconfiguring,
    Reconfigured,
}

impl XenbusState {
    /// Each with its number.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The number in the store.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The state of what is in the store; what is no number of a state is unknown.
    pub fn parse(value: &[u8]) -> Self {
        let [digit @ b'0'..=b'9'] = value else { return Self::Unknown };
        Self::ALL.get(usize::from(digit - b'0')).copied().unwrap_or(Self::Unknown)
    }
}

/// Whether a script has to put the interface in place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hotplug {
    /// No script is used.
    NotNeeded,
    /// `hotplug-status` is not there yet.
    Pending,
    /// `hotplug-status` is `connected`.
    Done,
}

/// What this process has of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Nothing.
    Down,
    /// Rings and event channels.
    Up,
    /// Nothing, and the last [`Action::Connect`] failed, or a ring was at fault. To try again, say [`Link::Down`].
    Refused,
}

/// Whether the state in the store is this process' own work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// It is, or has been taken over.
    Fresh,
    /// It is a dead predecessor's. This ends with [`Action::Abandon`], or when the link is up.
    Recovering,
}

/// What is the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Situation {
    /// The frontend's state; `None` only if its directory is certainly not there.
    pub frontend: Option<XenbusState>,
    /// The backend's state in the store; `None` only if its directory is certainly not there.
    pub own: Option<XenbusState>,
    /// Is the device to exist (`online` is 1)?
    pub online: bool,
    /// The script's state.
    pub hotplug: Hotplug,
    /// What this process has.
    pub link: Link,
    /// What this process is.
    pub life: Life,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write the keys of the [offer](crate::features::Offer), and after them, or in one transaction, state InitWait.
    Offer,
    /// Read the frontend's keys, map its rings, bind its event channels. The link is up afterwards, or refused.
    Connect,
    /// Write this state.
    Switch(XenbusState),
    /// Unmap and unbind what there is, drop what waits for this guest. The link is down afterwards.
    Disconnect,
    /// The device that was to be recovered is no longer in use: be fresh.
    Abandon,
    /// Forget the device. Nothing is written: the toolstack removes the directories.
    Remove,
}

/// What to do next; `None`: wait for a change in the store.
pub fn next(situation: &Situation) -> Option<Action> {
    let Some(own) = situation.own else { return Some(or_disconnect(situation, Action::Remove)) };
    if situation.life == Life::Recovering && own == XenbusState::Connected {
        return recover(situation);
    }
    match situation.frontend {
        None => close(situation, own).or(Some(Action::Remove)),
        Some(XenbusState::Initialising) if situation.online => begin(situation, own),
        Some(XenbusState::Initialising) => close(situation, own),
        Some(XenbusState::Connected) => connect(situation, own),
        Some(XenbusState::Closing) => closing(situation, own),
        Some(XenbusState::Closed) => {
            close(situation, own).or_else(|| (!situation.online).then_some(Action::Remove))
        }
        // Not used by frontends of networks, or not readable.
        Some(_) => None,
    }
}

fn recover(situation: &Situation) -> Option<Action> {
    match (situation.frontend, situation.link) {
        (Some(XenbusState::Connected), Link::Down) => Some(Action::Connect),
        (None | Some(XenbusState::Initialising | XenbusState::Closing | XenbusState::Closed), _) => {
            Some(Action::Abandon)
        }
        // Connected, or what cannot be read: it may be Connected for all we know.
        _ => None,
    }
}

fn or_disconnect(situation: &Situation, action: Action) -> Action {
    if situation.link == Link::Down { action } else { Action::Disconnect }
}

/// The frontend is at its beginning, and waits for InitWait. It is not led there by way of Closing and Closed, for it
/// would take them for an order to close.
fn begin(situation: &Situation, own: XenbusState) -> Option<Action> {
    match (own, situation.link) {
        (XenbusState::InitWait, Link::Down) | (XenbusState::Unknown, _) => None,
        _ => Some(or_disconnect(situation, Action::Offer)),
    }
}

fn connect(situation: &Situation, own: XenbusState) -> Option<Action> {
    match (own, situation.link) {
        // It cannot have seen an offer of ours, but it has seen one.
        (XenbusState::Initialising, _) if situation.online => Some(or_disconnect(situation, Action::Offer)),
        (XenbusState::InitWait | XenbusState::Connected, Link::Down) => Some(Action::Connect),
        (XenbusState::InitWait, Link::Up) => {
            (situation.hotplug != Hotplug::Pending).then_some(Action::Switch(XenbusState::Connected))
        }
        (XenbusState::InitWait, Link::Refused) if situation.life == Life::Fresh => {
            Some(Action::Switch(XenbusState::Closing))
        }
        // All is well; or it is the frontend's turn, which has been told to close.
        _ => None,
    }
}

fn closing(situation: &Situation, own: XenbusState) -> Option<Action> {
    match (own, situation.link) {
        (XenbusState::Closing | XenbusState::Closed | XenbusState::Unknown, Link::Down) => None,
        _ => Some(or_disconnect(situation, Action::Switch(XenbusState::Closing))),
    }
}

fn close(situation: &Situation, own: XenbusState) -> Option<Action> {
    match (own, situation.link) {
        (XenbusState::Closed, Link::Down) => None,
        _ => Some(or_disconnect(situation, Action::Switch(XenbusState::Closed))),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
