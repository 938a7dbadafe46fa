//! The broker's state: domains, handles, ports. No I/O.
//!
//! ```text
//!              alloc                 bind_interdomain by `remote`
//!   (no port) ------> Unbound{remote} ---------------------------> Interdomain{remote, port}
//!       ^                |    ^                                        |
//!       |  close         |    +------- peer closes its port -----------+
//!       +----------------+---------------- close ----------------------+
//! ```
//!
//! A port that the toolstack allocated (the store's) has no owner until a handle of its domain claims it, and loses
//! the owner, not its binding, when that handle goes.

use std::collections::BTreeMap;

use crate::limits::{DOMAINS_MAX, DOMID_FIRST_RESERVED, HANDLES_MAX, PORTS_MAX};
use crate::{DomId, DomainState, Port, Refusal, Virq};

/// Number of an event channel handle; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// What follows for event pages from a change of the state, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Events of this port go to that port from now on, or to nobody.
    Route(HandleId, Port, Option<(HandleId, Port)>),
    /// The port becomes pending.
    Raise(HandleId, Port),
    /// The port is gone from this handle.
    Close(HandleId, Port),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding {
    Unbound { remote: DomId },
    Interdomain { remote: DomId, port: Port },
    Virq(Virq),
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    owner: Option<HandleId>,
    /// Allocated by the toolstack: outlives its owner.
    lasting: bool,
    binding: Binding,
}

#[derive(Debug)]
struct Domain {
    state: DomainState,
    ports: BTreeMap<Port, Channel>,
}

/// A change in a domain's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It shuts down for this reason.
    Shutdown(u8),
    /// It goes on after a shutdown.
    Resume,
    /// It is being destroyed: its ports close.
    Dying,
    /// It is gone.
    Gone,
}

/// The state.
#[derive(Debug)]
pub struct Machine {
    domains: BTreeMap<DomId, Domain>,
    handles: BTreeMap<HandleId, DomId>,
    next_handle: u64,
    next_domid: u16,
    effects: Vec<Effect>,
}

/// Port of the store's connection in every domain: the first, as the toolstack allocates it first.
pub const STORE_PORT: Port = Port(1);

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Domain 0 alone.
    pub fn new() -> Self {
        let domains = BTreeMap::from([(DomId::DOM0, Domain::new(DomId::DOM0, [0; 16]))]);
        Self { domains, handles: BTreeMap::new(), next_handle: 1, next_domid: 1, effects: vec![] }
    }

    /// Takes what is to be done since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A domain's state.
    pub fn get(&self, domid: DomId) -> Option<DomainState> {
        self.domains.get(&domid).map(|domain| domain.state)
    }

    /// All domains' states.
    pub fn list(&self) -> Vec<DomainState> {
        self.domains.values().map(|domain| domain.state).collect()
    }

    /// Which domid a new domain would get.
    ///
    /// # Errors
    /// [`Refusal::BadDomid`], [`Refusal::Limit`].
    pub fn free_domid(&self, wanted: Option<DomId>) -> Result<DomId, Refusal> {
        if self.domains.len() >= DOMAINS_MAX {
            return Err(Refusal::Limit);
        }
        let usable = |domid: &DomId| {
            domid.0 > 0 && domid.0 < DOMID_FIRST_RESERVED && !self.domains.contains_key(domid)
        };
        match wanted {
            Some(domid) => Some(domid).filter(usable).ok_or(Refusal::BadDomid),
            None => (self.next_domid..DOMID_FIRST_RESERVED)
                .chain(1..self.next_domid)
                .map(DomId)
                .find(usable)
                .ok_or(Refusal::Limit),
        }
    }

    /// Makes a domain whose store port waits for domain 0.
    ///
    /// # Errors
    /// As [`Self::free_domid`].
    pub fn create(&mut self, wanted: Option<DomId>, handle: [u8; 16]) -> Result<DomId, Refusal> {
        let domid = self.free_domid(wanted)?;
        if wanted.is_none() {
            self.next_domid = if domid.0 + 1 < DOMID_FIRST_RESERVED { domid.0 + 1 } else { 1 };
        }
        self.domains.insert(domid, Domain::new(domid, handle));
        Ok(domid)
    }

    /// Changes a domain's state and tells whoever bound the virq.
    ///
    /// # Errors
    /// [`Refusal::NoDomain`]; [`Refusal::Denied`] for domain 0.
    pub fn change(&mut self, domid: DomId, life: Life) -> Result<(), Refusal> {
        if domid == DomId::DOM0 {
            return Err(Refusal::Denied);
        }
        let state = &mut self.domains.get_mut(&domid).ok_or(Refusal::NoDomain)?.state;
        match life {
            Life::Shutdown(reason) => (state.shutdown, state.shutdown_reason) = (true, Some(reason)),
            Life::Resume => (state.shutdown, state.shutdown_reason) = (false, None),
            Life::Dying => {
                state.dying = true;
                self.close_all(domid);
            }
            Life::Gone => {
                self.close_all(domid);
                self.domains.remove(&domid);
                self.handles.retain(|_, owner| *owner != domid);
            }
        }
        self.raise_virq(Virq::DomExc);
        Ok(())
    }

    /// Makes a handle.
    ///
    /// # Errors
    /// [`Refusal::NoDomain`], [`Refusal::Limit`].
    pub fn open(&mut self, domid: DomId) -> Result<HandleId, Refusal> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(Refusal::Limit);
        }
        self.living(domid)?;
        let handle = HandleId(self.next_handle);
        self.next_handle += 1;
        self.handles.insert(handle, domid);
        Ok(handle)
    }

    /// The last holder of a handle is gone.
    pub fn close(&mut self, handle: HandleId) {
        let Some(domid) = self.handles.remove(&handle) else { return };
        for port in self.ports_of(domid, |channel| channel.owner == Some(handle)) {
            self.leave_port(domid, port);
        }
    }

    /// Binds a new port of the handle's domain to `remote_port`.
    ///
    /// # Errors
    /// [`Refusal::NoHandle`], [`Refusal::NoDomain`], [`Refusal::NoPort`], [`Refusal::PortState`] if the port does not
    /// wait for us, [`Refusal::Limit`].
    pub fn bind_interdomain(
        &mut self,
        handle: HandleId,
        remote: DomId,
        remote_port: Port,
    ) -> Result<Port, Refusal> {
        let domid = self.domid_of(handle)?;
        let theirs = self.living(remote)?.ports.get(&remote_port).ok_or(Refusal::NoPort)?;
        if theirs.binding != (Binding::Unbound { remote: domid }) {
            return Err(Refusal::PortState);
        }
        let binding = Binding::Interdomain { remote, port: remote_port };
        let port = self.allocate(domid, Channel { owner: Some(handle), lasting: false, binding })?;
        if let Some(theirs) = self.channel_mut(remote, remote_port) {
            theirs.binding = Binding::Interdomain { remote: domid, port };
        }
        self.route(domid, port);
        self.route(remote, remote_port);
        // Events may have been lost while nobody was bound.
        self.effects.push(Effect::Raise(handle, port));
        Ok(port)
    }

    /// Allocates a port for `remote` to bind to.
    ///
    /// # Errors
    /// [`Refusal::NoHandle`], [`Refusal::NoDomain`], [`Refusal::Limit`].
    pub fn bind_unbound(&mut self, handle: HandleId, remote: DomId) -> Result<Port, Refusal> {
        let domid = self.domid_of(handle)?;
        self.living(remote)?;
        let binding = Binding::Unbound { remote };
        let port = self.allocate(domid, Channel { owner: Some(handle), lasting: false, binding })?;
        self.route(domid, port);
        Ok(port)
    }

    /// Binds a virq. Only domain 0 gets any.
    ///
    /// # Errors
    /// [`Refusal::NoHandle`], [`Refusal::Denied`], [`Refusal::Taken`], [`Refusal::Limit`].
    pub fn bind_virq(&mut self, handle: HandleId, virq: Virq) -> Result<Port, Refusal> {
        let domid = self.domid_of(handle)?;
        if domid != DomId::DOM0 {
            return Err(Refusal::Denied);
        }
        if self.virq_channel(virq).is_some() {
            return Err(Refusal::Taken);
        }
        let binding = Binding::Virq(virq);
        let port = self.allocate(domid, Channel { owner: Some(handle), lasting: false, binding })?;
        self.route(domid, port);
        Ok(port)
    }

    /// Makes the handle the owner of a port that its domain has already.
    ///
    /// # Errors
    /// [`Refusal::NoHandle`], [`Refusal::NoPort`], [`Refusal::Taken`].
    pub fn claim(&mut self, handle: HandleId, port: Port) -> Result<(), Refusal> {
        let domid = self.domid_of(handle)?;
        let channel = self.channel_mut(domid, port).ok_or(Refusal::NoPort)?;
        if channel.owner.is_some_and(|owner| owner != handle) {
            return Err(Refusal::Taken);
        }
        channel.owner = Some(handle);
        self.route(domid, port);
        if let Some((remote, peer)) = self.peer(domid, port) {
            self.route(remote, peer);
        }
        // Events may have been lost while nobody was listening.
        self.effects.push(Effect::Raise(handle, port));
        Ok(())
    }

    /// Closes a port of the handle.
    ///
    /// # Errors
    /// [`Refusal::NoHandle`], [`Refusal::NoPort`].
    pub fn unbind(&mut self, handle: HandleId, port: Port) -> Result<(), Refusal> {
        let domid = self.domid_of(handle)?;
        let channel = self.channel_mut(domid, port).ok_or(Refusal::NoPort)?;
        if channel.owner != Some(handle) {
            return Err(Refusal::NoPort);
        }
        self.leave_port(domid, port);
        Ok(())
    }

    /// Does the handle exist?
    pub fn is_open(&self, handle: HandleId) -> bool {
        self.handles.contains_key(&handle)
    }

    fn domid_of(&self, handle: HandleId) -> Result<DomId, Refusal> {
        self.handles.get(&handle).copied().ok_or(Refusal::NoHandle)
    }

    fn living(&self, domid: DomId) -> Result<&Domain, Refusal> {
        self.domains.get(&domid).filter(|domain| !domain.state.dying).ok_or(Refusal::NoDomain)
    }

    fn channel_mut(&mut self, domid: DomId, port: Port) -> Option<&mut Channel> {
        self.domains.get_mut(&domid)?.ports.get_mut(&port)
    }

    fn ports_of(&self, domid: DomId, pick: impl Fn(&Channel) -> bool) -> Vec<Port> {
        let ports = self.domains.get(&domid).map(|domain| &domain.ports);
        ports.into_iter().flatten().filter(|(_, channel)| pick(channel)).map(|(port, _)| *port).collect()
    }

    fn allocate(&mut self, domid: DomId, channel: Channel) -> Result<Port, Refusal> {
        self.living(domid)?;
        let domain = self.domains.get_mut(&domid).ok_or(Refusal::NoDomain)?;
        let port =
            (1..PORTS_MAX).map(Port).find(|port| !domain.ports.contains_key(port)).ok_or(Refusal::Limit)?;
        domain.ports.insert(port, channel);
        Ok(port)
    }

    fn peer(&self, domid: DomId, port: Port) -> Option<(DomId, Port)> {
        match self.domains.get(&domid)?.ports.get(&port)?.binding {
            Binding::Interdomain { remote, port } => Some((remote, port)),
            Binding::Unbound { .. } | Binding::Virq(_) => None,
        }
    }

    fn owner(&self, domid: DomId, port: Port) -> Option<HandleId> {
        self.domains.get(&domid)?.ports.get(&port)?.owner
    }

    fn route(&mut self, domid: DomId, port: Port) {
        let Some(owner) = self.owner(domid, port) else { return };
        let to = self
            .peer(domid, port)
            .and_then(|(remote, peer)| self.owner(remote, peer).map(|handle| (handle, peer)));
        self.effects.push(Effect::Route(owner, port, to));
    }

    /// The owner leaves the port: a lasting one stays bound, any other is closed.
    fn leave_port(&mut self, domid: DomId, port: Port) {
        let lasting = self.channel_mut(domid, port).is_some_and(|channel| channel.lasting);
        if !lasting {
            return self.close_port(domid, port);
        }
        let owner = self.channel_mut(domid, port).and_then(|channel| channel.owner.take());
        self.effects.extend(owner.map(|handle| Effect::Close(handle, port)));
        if let Some((remote, peer)) = self.peer(domid, port) {
            self.route(remote, peer);
        }
    }

    fn close_port(&mut self, domid: DomId, port: Port) {
        let peer = self.peer(domid, port);
        let closed = self.domains.get_mut(&domid).and_then(|domain| domain.ports.remove(&port));
        let owner = closed.and_then(|channel| channel.owner);
        self.effects.extend(owner.map(|handle| Effect::Close(handle, port)));
        if let Some((remote, peer)) = peer
            && let Some(channel) = self.channel_mut(remote, peer)
        {
            channel.binding = Binding::Unbound { remote: domid };
            self.route(remote, peer);
        }
    }

    fn close_all(&mut self, domid: DomId) {
        for port in self.ports_of(domid, |_| true) {
            self.close_port(domid, port);
        }
    }

    fn virq_channel(&self, virq: Virq) -> Option<(Port, &Channel)> {
        let ports = &self.domains.get(&DomId::DOM0)?.ports;
        ports
            .iter()
            .map(|(port, channel)| (*port, channel))
            .find(|(_, channel)| channel.binding == Binding::Virq(virq))
    }

    fn raise_virq(&mut self, virq: Virq) {
        let bound = self.virq_channel(virq).and_then(|(port, channel)| Some((channel.owner?, port)));
        self.effects.extend(bound.map(|(handle, port)| Effect::Raise(handle, port)));
    }
}

impl Domain {
    fn new(domid: DomId, handle: [u8; 16]) -> Self {
        let binding = Binding::Unbound { remote: DomId::DOM0 };
        let store = Channel { owner: None, lasting: true, binding };
        let state = DomainState { domid, shutdown: false, shutdown_reason: None, dying: false, handle };
        Self { state, ports: BTreeMap::from([(STORE_PORT, store)]) }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
