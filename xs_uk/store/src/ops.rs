//! Reading and changing nodes on behalf of somebody: permissions, quotas and what changed.

use std::sync::Arc;

use xs_protocol::{
    DOMID_ANY, DomId, Header, MessageType, PAYLOAD_MAX, Path, XsError, message,
    path::{Resolved, Special},
    perms, request,
    ring::feature,
};

use crate::{
    Quota, Quotas,
    damage::{Damage, Part},
    domain::{Delta, Deltas, Domains},
    facts::{Facts, node_bytes},
    limits,
    node::{Acl, Actor, Grant, Node, OWNER_BIT, READ_BIT, WRITE_BIT},
    radix::Broken,
    tree::{Found, Tree, join},
};

/// Why an operation was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client is told this.
    Error(XsError),
    /// A quota is hit: the client is told `ENOSPC`.
    Quota(Quota),
    /// The answer would depend on something damaged: the client is told nothing.
    Damage(Box<Damage>),
}

impl From<XsError> for Refusal {
    fn from(error: XsError) -> Refusal {
        Refusal::Error(error)
    }
}

impl From<Damage> for Refusal {
    fn from(damage: Damage) -> Refusal {
        Refusal::Damage(Box::new(damage))
    }
}

impl Refusal {
    pub fn error(&self) -> XsError {
        match self {
            Refusal::Error(error) => *error,
            Refusal::Quota(_) => XsError::ENOSPC,
            Refusal::Damage(_) => XsError::EIO,
        }
    }
}

/// Permissions at some time: who may see an event about the node.
#[derive(Clone)]
pub(crate) struct View {
    pub acl: Acl,
    pub acl_generation: u64,
}

impl View {
    fn of(node: &Node) -> View {
        View { acl: Arc::clone(&node.acl), acl_generation: node.acl_generation }
    }

    pub fn readable(&self, actor: &Actor) -> bool {
        actor.bits(&self.acl, self.acl_generation) & READ_BIT != 0
    }
}

/// A change of one node, which watches report.
#[derive(Clone)]
pub(crate) struct Change {
    /// The node before, if it existed and may have had other permissions.
    pub before: Option<View>,
    /// The node after, if it exists.
    pub after: Option<View>,
    /// Its parent.
    pub parent: Option<View>,
    /// The removed node with all below it.
    pub removed: Option<Arc<Node>>,
}

impl Change {
    /// Whether somebody may be told of the change.
    pub fn visible_to(&self, actor: &Actor) -> bool {
        actor.privileged
            || [&self.before, &self.after, &self.parent]
                .into_iter()
                .flatten()
                .any(|view| view.readable(actor))
    }
}

/// Makes a client's path absolute and checks it. `quotas` are none for the privileged.
pub(crate) fn resolve<'p>(
    raw: &'p [u8],
    actor: &Actor,
    quotas: Option<&Quotas>,
    special: Special,
) -> Result<Resolved<'p>, XsError> {
    let resolved = Resolved::new(raw, actor.domid, special)?;
    if let Some(quotas) = quotas
        && quotas.exceeded(Quota::PathMax, resolved.path().quota_len() as u64)
    {
        return Err(XsError::EINVAL);
    }
    Ok(resolved)
}

/// Finds a node and checks that the actor has all `wanted` bits. A missing node is only admitted to those who
/// have some of them on its nearest ancestor.
fn demand(found: &Found<'_>, actor: &Actor, wanted: u8) -> Result<(), XsError> {
    match found {
        Found::Node { node, .. } if actor.bits(&node.acl, node.acl_generation) & wanted == wanted => Ok(()),
        Found::Node { .. } => Err(XsError::EACCES),
        Found::Missing { nearest, .. } if actor.bits(&nearest.acl, nearest.acl_generation) & wanted != 0 => {
            Err(XsError::ENOENT)
        }
        Found::Missing { .. } => Err(XsError::EACCES),
    }
}

fn readable<'t>(tree: &'t Tree, path: Path<'_>, actor: &Actor) -> Result<&'t Arc<Node>, Refusal> {
    let found = tree.look(path)?;
    demand(&found, actor, READ_BIT)?;
    match found {
        Found::Node { node, .. } => Ok(node),
        Found::Missing { .. } => Err(XsError::ENOENT.into()),
    }
}

/// Answers READ, DIRECTORY, DIRECTORY_PART or GET_PERMS. Returns the path that was read.
pub(crate) fn answer_read<'p>(
    tree: &Tree,
    actor: &Actor,
    quotas: Option<&Quotas>,
    header: &Header,
    payload: &'p [u8],
    out: &mut Vec<u8>,
) -> Result<Resolved<'p>, Refusal> {
    if header.kind == MessageType::DIRECTORY_PART {
        return directory_part(tree, actor, quotas, header, payload, out);
    }
    let special = if header.kind == MessageType::GET_PERMS { Special::Allowed } else { Special::Refused };
    let resolved = resolve(request::one(payload)?, actor, quotas, special)?;
    let node = readable(tree, resolved.path(), actor)?;
    match header.kind {
        MessageType::READ => message::push_reply(out, header, &node.value),
        MessageType::GET_PERMS => message::push_reply_with(out, header, |out| {
            for grant in node.acl.iter() {
                grant.perm.push(out);
            }
        }),
        _ => directory(node, resolved.path(), header, out)?,
    }
    Ok(resolved)
}

fn directory(node: &Node, path: Path<'_>, header: &Header, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if node.listing_bytes() > PAYLOAD_MAX {
        return Err(XsError::E2BIG.into());
    }
    let mut listed = Ok(());
    message::push_reply_with(out, header, |out| {
        let Some(children) = node.children() else { return };
        listed = children.list_from(0, |_, name| {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            true
        });
    });
    listed.map_err(|Broken| Damage::new(path.as_str(), Part::Listing).into())
}

fn directory_part<'p>(
    tree: &Tree,
    actor: &Actor,
    quotas: Option<&Quotas>,
    header: &Header,
    payload: &'p [u8],
    out: &mut Vec<u8>,
) -> Result<Resolved<'p>, Refusal> {
    let (2, [raw, offset]) = request::vector::<2>(payload) else { return Err(XsError::EINVAL.into()) };
    let resolved = resolve(raw, actor, quotas, Special::Refused)?;
    let node = readable(tree, resolved.path(), actor)?;
    // A negative offset is beyond the end, as in C, where it turns into a large number.
    let offset = usize::try_from(request::atoi(offset)).unwrap_or(usize::MAX);
    let listing_bytes = node.listing_bytes();
    let mut listed = Ok(0);
    message::push_reply_with(out, header, |out| {
        let start = out.len();
        perms::push_decimal(out, node.generation);
        out.push(0);
        let space = PAYLOAD_MAX - (out.len() - start) - 1;
        if let Some(children) = node.children()
            && offset < listing_bytes
        {
            listed = children.listing_part(offset, space, out);
        }
        if offset >= listing_bytes || listed.is_ok_and(|part| offset + part == listing_bytes) {
            out.push(0);
        }
    });
    listed.map_err(|Broken| Damage::new(resolved.path().as_str(), Part::Listing))?;
    Ok(resolved)
}

/// A tree about to be changed on behalf of somebody.
pub(crate) struct Edit<'a> {
    pub tree: &'a mut Tree,
    pub actor: &'a Actor,
    /// The actor's quotas; none for the privileged.
    pub quotas: Option<&'a Quotas>,
    pub domains: &'a Domains,
    /// What the change means for the domains' use, besides what is in `domains`.
    pub deltas: &'a mut Deltas,
    pub generation: u64,
    /// The change is done again at a commit: domains that are unknown now have died since.
    pub replay: bool,
}

/// What an edit did.
pub(crate) struct Edited<'p> {
    pub path: Resolved<'p>,
    /// What watches report; none if nothing changed.
    pub change: Option<Change>,
    /// Nodes that were created.
    pub created: usize,
}

impl Edit<'_> {
    /// Executes WRITE, MKDIR, RM or SET_PERMS.
    pub fn execute<'p>(&mut self, kind: MessageType, payload: &'p [u8]) -> Result<Edited<'p>, Refusal> {
        match kind {
            MessageType::WRITE => {
                let (raw, value) = request::split_first(payload).ok_or(XsError::EINVAL)?;
                let path = resolve(raw, self.actor, self.quotas, Special::Refused)?;
                let (change, created) = self.write(path.path(), Some(value))?;
                Ok(Edited { path, change, created })
            }
            MessageType::MKDIR => {
                let path = resolve(request::one(payload)?, self.actor, self.quotas, Special::Refused)?;
                let (change, created) = self.write(path.path(), None)?;
                Ok(Edited { path, change, created })
            }
            MessageType::RM => {
                let path = resolve(request::one(payload)?, self.actor, self.quotas, Special::Refused)?;
                let change = self.remove(path.path())?;
                Ok(Edited { path, change, created: 0 })
            }
            MessageType::SET_PERMS => self.set_perms(payload),
            _ => Err(XsError::ENOSYS.into()),
        }
    }

    /// Sets a value, creating the node if it is missing; without a value an existing node stays as it is.
    fn write(&mut self, path: Path<'_>, value: Option<&[u8]>) -> Result<(Option<Change>, usize), Refusal> {
        let found = self.tree.look_with_parent(path)?;
        match (demand(&found, self.actor, WRITE_BIT), found) {
            (Ok(()), Found::Node { node, parent }) => {
                let Some(value) = value else { return Ok((None, 0)) };
                let change = Change {
                    before: None,
                    after: Some(View::of(node)),
                    parent: parent.map(|parent| View::of(parent)),
                    removed: None,
                };
                let (owner, old_bytes) = (node.owner(), node.bytes());
                let facts = Facts { value, generation: self.generation, ..node.facts() };
                let rewrite = node.rewrite(path.as_str(), &facts);
                let new_bytes = facts.bytes();
                self.check_node_size(new_bytes)?;
                self.grow(&[(owner, 0, signed(new_bytes) - signed(old_bytes))])?;
                let node = self.tree.change(path, &rewrite)?.expect("found above");
                node.value = Arc::from(value);
                node.generation = self.generation;
                Ok((Some(change), 0))
            }
            (Err(XsError::ENOENT), Found::Missing { missing, .. }) => {
                let change = self.create(path, missing, value.unwrap_or_default())?;
                Ok((Some(change), missing))
            }
            (Err(error), _) => Err(error.into()),
            (Ok(()), Found::Missing { .. }) => Err(XsError::ENOENT.into()),
        }
    }

    fn create(&mut self, path: Path<'_>, missing: usize, value: &[u8]) -> Result<Change, Refusal> {
        let Found::Missing { nearest, .. } = self.tree.find(path) else {
            return Err(XsError::EIO.into());
        };
        let acl = inherited(nearest, self.actor);
        let names: Vec<&str> = path.components().rev().take(missing).collect();
        let top = names.last().map_or(0, |name| name.len() + 1);
        let inner: usize = names.iter().map(|name| name.len() + 1).sum::<usize>() - top;
        self.check_node_size(node_bytes(acl.len(), value.len(), 0))?;
        for name in &names[..missing - 1] {
            self.check_node_size(node_bytes(acl.len(), 0, name.len() + 1))?;
        }
        self.check_node_size(nearest.bytes() + top)?;
        let bytes = missing * node_bytes(acl.len(), 0, 0) + value.len() + inner;
        let acl_generation = nearest.acl_generation.max(self.generation);
        let after = View { acl: Arc::clone(&acl), acl_generation };
        let parent = if missing > 1 { after.clone() } else { View::of(nearest) };
        let change = Change { before: None, after: Some(after), parent: Some(parent), removed: None };
        let nearest_owner = nearest.owner();
        self.grow(&[(acl[0].perm.domid, signed(missing), signed(bytes)), (nearest_owner, 0, signed(top))])?;
        self.tree.create(path, missing, &acl, value, self.generation)?;
        Ok(change)
    }

    fn remove(&mut self, path: Path<'_>) -> Result<Option<Change>, Refusal> {
        let found = self.tree.look_with_parent(path)?;
        match (demand(&found, self.actor, WRITE_BIT), found) {
            (Err(XsError::ENOENT), Found::Missing { missing: 1, .. }) => return Ok(None),
            (Err(error), _) => return Err(error.into()),
            (Ok(()), _) if path.is_root() => return Err(XsError::EINVAL.into()),
            (Ok(()), _) => {}
        }
        Ok(Some(self.remove_node(path)?.ok_or(XsError::EIO)?))
    }

    /// Takes a node out, whoever may. `None` if there is none, or for the root.
    pub fn remove_node(&mut self, path: Path<'_>) -> Result<Option<Change>, Damage> {
        let above = path.parent().and_then(|above| self.tree.get(above));
        let Some((parent_owner, parent_view)) = above.map(|parent| (parent.owner(), View::of(parent))) else {
            return Ok(None);
        };
        let Some(removed) = self.tree.remove(path, self.generation)? else { return Ok(None) };
        self.deltas.add(parent_owner, 0, -signed(path.leaf().len() + 1));
        self.give_back(&removed, path)?;
        Ok(Some(Change {
            before: Some(View::of(&removed)),
            after: None,
            parent: Some(parent_view),
            removed: Some(removed),
        }))
    }

    /// Takes a removed node and all below it off their owners' accounts. What has only one owner needs no walk.
    fn give_back(&mut self, removed: &Arc<Node>, path: Path<'_>) -> Result<(), Damage> {
        let mut stack = vec![(path.as_str().to_owned(), removed)];
        while let Some((path, node)) = stack.pop() {
            node.verify_seal(&path)?;
            let tally = node.frame.tally;
            match tally.only_owner() {
                Some(owner) => self.deltas.add(owner, -counted(tally.nodes()), -counted(tally.bytes())),
                None => {
                    // Its own part counts here, not only the seal over all: it has to be right itself.
                    node.verify(&path)?;
                    self.deltas.add(node.owner(), -1, -signed(node.bytes()));
                    if let Some(children) = node.children() {
                        children.for_each_node(|name, child| stack.push((join(&path, name), child)));
                    }
                }
            }
        }
        Ok(())
    }

    fn set_perms<'p>(&mut self, payload: &'p [u8]) -> Result<Edited<'p>, Refusal> {
        let (raw, list) = request::split_first(payload).ok_or(XsError::EINVAL)?;
        let count = list.iter().filter(|byte| **byte == 0).count();
        if count == 0 {
            return Err(XsError::EINVAL.into());
        }
        if self.quotas.is_some_and(|quotas| quotas.exceeded(Quota::NodePermissions, count as u64)) {
            return Err(Refusal::Quota(Quota::NodePermissions));
        }
        let acl = self.grants(list)?;
        let owner = acl[0].perm.domid;
        if acl[0].ignored {
            return Err(XsError::ENOENT.into());
        }
        let path = resolve(raw, self.actor, self.quotas, Special::Allowed)?;
        let found = self.tree.look_with_parent(path.path())?;
        demand(&found, self.actor, WRITE_BIT | OWNER_BIT)?;
        let Found::Node { node, parent } = found else { return Err(XsError::ENOENT.into()) };
        if !self.actor.privileged && owner != node.owner() {
            return Err(XsError::EPERM.into());
        }
        let change = Change {
            before: Some(View::of(node)),
            after: Some(View { acl: Arc::clone(&acl), acl_generation: self.generation }),
            parent: parent.map(|parent| View::of(parent)),
            removed: None,
        };
        let old = (node.owner(), node.bytes());
        let generation = self.generation;
        let facts = Facts { acl: &acl, acl_generation: generation, generation, ..node.facts() };
        let rewrite = node.rewrite(path.path().as_str(), &facts);
        let new_bytes = facts.bytes();
        self.check_node_size(new_bytes)?;
        self.grow(&[(old.0, -1, -signed(old.1)), (owner, 1, signed(new_bytes))])?;
        let node = self.tree.change(path.path(), &rewrite)?.expect("found above");
        node.acl = acl;
        node.acl_generation = self.generation;
        node.generation = self.generation;
        Ok(Edited { path, change: Some(change), created: 0 })
    }

    /// Parses permissions. Entries without effect are marked: of domains that do not exist, or were not there
    /// yet when the request was first executed, and `DOMID_ANY` from somebody without that feature.
    fn grants(&self, list: &[u8]) -> Result<Acl, XsError> {
        let perms = perms::parse_list(list)?;
        Ok(perms
            .into_iter()
            .enumerate()
            .map(|(at, perm)| Grant { perm, ignored: !self.counts(perm.domid, at == 0) })
            .collect())
    }

    fn counts(&self, domid: DomId, owner: bool) -> bool {
        if domid == DOMID_ANY {
            return !owner && self.actor.features & feature::DOMID_ANY != 0;
        }
        self.domains.get(domid).is_some_and(|domain| !self.replay || domain.generation <= self.generation)
    }

    fn check_node_size(&self, bytes: usize) -> Result<(), Refusal> {
        match self.quotas {
            Some(quotas) if quotas.exceeded(Quota::NodeSize, bytes as u64) => {
                Err(Refusal::Quota(Quota::NodeSize))
            }
            _ => Ok(()),
        }
    }

    /// Checks and notes what owners will use more or less: (owner, nodes, bytes).
    fn grow(&mut self, parts: &[(DomId, i64, i64)]) -> Result<(), Refusal> {
        let mut growth = Deltas::default();
        for (owner, nodes, bytes) in parts {
            growth.add(*owner, *nodes, *bytes);
        }
        let (total, all) = (self.deltas.total(), growth.total());
        if all.nodes > 0 && plus(self.domains.nodes(), total.nodes + all.nodes) > limits::NODES_MAX
            || all.bytes > 0
                && plus(self.domains.node_bytes(), total.bytes + all.bytes) > limits::NODE_BYTES_MAX
        {
            return Err(XsError::ENOSPC.into());
        }
        for (owner, growth) in growth.iter() {
            self.check_owner(owner, growth)?;
        }
        for (owner, growth) in growth.iter() {
            self.deltas.add(owner, growth.nodes, growth.bytes);
        }
        Ok(())
    }

    /// Guests may not use more on behalf of a guest than its quotas allow.
    fn check_owner(&self, owner: DomId, growth: Delta) -> Result<(), Refusal> {
        let Some(domain) = self.domains.get(owner) else { return Ok(()) };
        domain.verify(owner)?;
        if self.quotas.is_none() || domain.privileged {
            return Ok(());
        }
        let before = self.deltas.get(owner);
        let nodes = plus(domain.nodes, before.nodes + growth.nodes);
        let bytes = plus(domain.memory_bytes(), before.bytes + growth.bytes);
        if growth.nodes > 0 && domain.quotas.exceeded(Quota::Nodes, nodes) {
            return Err(Refusal::Quota(Quota::Nodes));
        }
        if growth.bytes > 0 && domain.quotas.exceeded(Quota::Memory, bytes) {
            return Err(Refusal::Quota(Quota::Memory));
        }
        Ok(())
    }
}

/// The permissions of a new node: its parent's, but guests own what they create.
fn inherited(parent: &Node, actor: &Actor) -> Acl {
    if actor.privileged || parent.owner() == actor.domid {
        return Arc::clone(&parent.acl);
    }
    let mut grants = parent.acl.to_vec();
    grants[0].perm.domid = actor.domid;
    grants.into()
}

fn counted(value: u64) -> i64 {
    i64::try_from(value).expect("counts of nodes and their bytes fit")
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).expect("sizes in memory fit")
}

/// A counter with a pending change. Pending removals of what others removed meanwhile count as nothing left.
fn plus(counter: u64, change: i64) -> u64 {
    counter.saturating_add_signed(change)
}
