//! Random runs against a plain model: a map by path, transactions as full copies with replay, watches as a list.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GUESTS: [u16; 2] = [1, 2];

/// A permission entry: domain, letter, and which of the domains with that id it means; 0: none.
type Entry3 = (u16, u8, u32);

#[derive(Clone, Debug, PartialEq)]
struct PlainNode {
    value: Vec<u8>,
    perms: Vec<Entry3>,
    order: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Write(String, Vec<u8>),
    Mkdir(String),
    Rm(String),
    SetPerms(String, Vec<(u16, u8)>),
    Read(String),
    Directory(String),
    GetPerms(String),
}

impl Op {
    fn request(&self) -> (T, Vec<u8>) {
        match self {
            Op::Write(path, value) => (T::WRITE, [path.as_bytes(), b"\0", value].concat()),
            Op::Mkdir(path) => (T::MKDIR, format!("{path}\0").into_bytes()),
            Op::Rm(path) => (T::RM, format!("{path}\0").into_bytes()),
            Op::SetPerms(path, perms) => {
                let list: String =
                    perms.iter().map(|(domid, letter)| format!("{}{domid}\0", char::from(*letter))).collect();
                (T::SET_PERMS, format!("{path}\0{list}").into_bytes())
            }
            Op::Read(path) => (T::READ, format!("{path}\0").into_bytes()),
            Op::Directory(path) => (T::DIRECTORY, format!("{path}\0").into_bytes()),
            Op::GetPerms(path) => (T::GET_PERMS, format!("{path}\0").into_bytes()),
        }
    }
}

/// A change of a node: its path, whether it is reported to watches above, and who may see it by permissions.
#[derive(Clone, Debug)]
struct Fired {
    path: String,
    above: bool,
    seen_by: Vec<Vec<Entry3>>,
}

#[derive(Clone, Debug)]
struct PlainWatch {
    conn: ConnId,
    path: String,
    token: String,
    depth: Option<usize>,
    prefix: usize,
}

#[derive(Clone)]
struct PlainTransaction {
    nodes: BTreeMap<String, PlainNode>,
    order: u64,
    done: Vec<(Op, Vec<u32>, Answer)>,
}

struct Plain {
    nodes: BTreeMap<String, PlainNode>,
    order: u64,
    /// How often the domain with an id came.
    lives: BTreeMap<u16, u32>,
    watches: Vec<PlainWatch>,
    transactions: BTreeMap<(ConnId, u32), PlainTransaction>,
    events: Vec<(ConnId, String)>,
    domids: BTreeMap<ConnId, u16>,
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(at) => &path[..at],
        None => unreachable!("paths are absolute"),
    }
}

fn within(path: &str, ancestor: &str) -> bool {
    ancestor == "/" || path == ancestor || path.starts_with(&format!("{ancestor}/"))
}

fn depth(path: &str) -> usize {
    if path == "/" { 0 } else { path.matches('/').count() }
}

/// A tree being changed by somebody.
struct PlainEdit<'a> {
    nodes: &'a mut BTreeMap<String, PlainNode>,
    order: &'a mut u64,
    domid: u16,
    life: u32,
    fired: Vec<Fired>,
}

fn rights(perms: &[Entry3], domid: u16, life: u32) -> u8 {
    if domid == 0 || (perms[0].0, perms[0].2) == (domid, life) {
        return 7;
    }
    let entry = perms[1..].iter().find(|entry| (entry.0, entry.2) == (domid, life)).unwrap_or(&perms[0]);
    match entry.1 {
        b'r' => 1,
        b'w' => 2,
        b'b' => 3,
        _ => 0,
    }
}

impl PlainEdit<'_> {
    fn absolute(&self, path: &str) -> Result<String, XsError> {
        let text = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/local/domain/{}/{path}", self.domid)
        };
        if text != "/" && (text.ends_with('/') || text.contains("//")) {
            Err(XsError::EINVAL)
        } else {
            Ok(text)
        }
    }

    fn demand(&self, path: &str, wanted: u8) -> Result<(), XsError> {
        if let Some(node) = self.nodes.get(path) {
            let fine = rights(&node.perms, self.domid, self.life) & wanted == wanted;
            return if fine { Ok(()) } else { Err(XsError::EACCES) };
        }
        let mut above = parent(path);
        while !self.nodes.contains_key(above) {
            above = parent(above);
        }
        let some = rights(&self.nodes[above].perms, self.domid, self.life) & wanted != 0;
        Err(if some { XsError::ENOENT } else { XsError::EACCES })
    }

    fn children(&self, path: &str) -> Vec<String> {
        let mut children: Vec<_> = self
            .nodes
            .iter()
            .filter(|(child, _)| *child != "/" && parent(child) == path)
            .map(|(child, node)| (node.order, child.clone()))
            .collect();
        children.sort();
        children.into_iter().map(|(_, child)| child).collect()
    }

    fn execute(&mut self, op: &Op, lives: &[u32]) -> Answer {
        match op {
            Op::Write(path, value) => self.write(path, Some(value)),
            Op::Mkdir(path) => self.write(path, None),
            Op::Rm(path) => self.rm(path),
            Op::SetPerms(path, perms) => self.set_perms(path, perms, lives),
            Op::Read(path) => {
                let path = self.absolute(path)?;
                self.demand(&path, 1)?;
                Ok(self.nodes[&path].value.clone())
            }
            Op::Directory(path) => {
                let path = self.absolute(path)?;
                self.demand(&path, 1)?;
                let names = self.children(&path);
                strings(&names.iter().map(|name| name.rsplit('/').next().unwrap()).collect::<Vec<_>>())
            }
            Op::GetPerms(path) => {
                let path = self.absolute(path)?;
                self.demand(&path, 1)?;
                let perms = self.nodes[&path].perms.iter();
                let perms: Vec<String> =
                    perms.map(|(domid, letter, _)| format!("{}{domid}", char::from(*letter))).collect();
                strings(&perms.iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }

    fn write(&mut self, path: &str, value: Option<&[u8]>) -> Answer {
        let path = self.absolute(path)?;
        match self.demand(&path, 2) {
            Ok(()) => {
                let Some(value) = value else { return ok() };
                self.nodes.get_mut(&path).unwrap().value = value.to_vec();
            }
            Err(XsError::ENOENT) => {
                let mut new = vec![path.clone()];
                while !self.nodes.contains_key(parent(new.last().unwrap())) {
                    new.push(parent(new.last().unwrap()).to_owned());
                }
                let mut perms = self.nodes[parent(new.last().unwrap())].perms.clone();
                if self.domid != 0 {
                    perms[0] = (self.domid, perms[0].1, self.life);
                }
                for path in new.into_iter().rev() {
                    *self.order += 1;
                    let node = PlainNode { value: Vec::new(), perms: perms.clone(), order: *self.order };
                    self.nodes.insert(path, node);
                }
                self.nodes.get_mut(&path).unwrap().value = value.unwrap_or_default().to_vec();
            }
            Err(error) => return Err(error),
        }
        let mut seen_by = vec![self.nodes[&path].perms.clone()];
        if path != "/" {
            seen_by.push(self.nodes[parent(&path)].perms.clone());
        }
        self.fired.push(Fired { path, above: true, seen_by });
        ok()
    }

    fn rm(&mut self, path: &str) -> Answer {
        let path = self.absolute(path)?;
        match self.demand(&path, 2) {
            Err(XsError::ENOENT) if self.nodes.contains_key(parent(&path)) => return ok(),
            Err(error) => return Err(error),
            Ok(()) if path == "/" => return Err(XsError::EINVAL),
            Ok(()) => {}
        }
        self.remove(&path);
        ok()
    }

    fn remove(&mut self, path: &str) {
        let mut gone = Vec::new();
        self.collect(path, &mut gone);
        for below in &gone {
            let seen_by = vec![self.nodes[below].perms.clone(), self.nodes[parent(below)].perms.clone()];
            self.fired.push(Fired { path: below.clone(), above: below == path, seen_by });
        }
        gone.iter().for_each(|below| drop(self.nodes.remove(below)));
    }

    fn collect(&self, path: &str, out: &mut Vec<String>) {
        for child in self.children(path) {
            self.collect(&child, out);
        }
        out.push(path.to_owned());
    }

    fn set_perms(&mut self, path: &str, perms: &[(u16, u8)], lives: &[u32]) -> Answer {
        if lives[0] == 0 {
            return Err(XsError::ENOENT);
        }
        let path = self.absolute(path)?;
        self.demand(&path, 6)?;
        let node = self.nodes.get_mut(&path).unwrap();
        if self.domid != 0 && perms[0].0 != node.perms[0].0 {
            return Err(XsError::EPERM);
        }
        let new = perms.iter().zip(lives).map(|((domid, letter), life)| (*domid, *letter, *life)).collect();
        let old = std::mem::replace(&mut node.perms, new);
        let mut seen_by = vec![old, node.perms.clone()];
        if path != "/" {
            seen_by.push(self.nodes[parent(&path)].perms.clone());
        }
        self.fired.push(Fired { path, above: true, seen_by });
        ok()
    }
}

impl Plain {
    fn new() -> Plain {
        let mut nodes = BTreeMap::new();
        for (order, path) in ["/", "/tool", "/tool/xenstored"].into_iter().enumerate() {
            let node = PlainNode { value: Vec::new(), perms: vec![(0, b'n', 1)], order: order as u64 };
            nodes.insert(path.to_owned(), node);
        }
        Plain {
            nodes,
            order: 10,
            lives: BTreeMap::from([(0, 1)]),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            events: Vec::new(),
            domids: BTreeMap::from([(TOOLS, 0)]),
        }
    }

    fn lives_of(&self, op: &Op) -> Vec<u32> {
        let Op::SetPerms(_, perms) = op else { return Vec::new() };
        perms.iter().map(|(domid, _)| self.lives[domid]).collect()
    }

    fn request(&mut self, conn: ConnId, tx_id: u32, op: &Op) -> Answer {
        let domid = self.domids[&conn];
        let (life, lives) = (self.lives[&domid], self.lives_of(op));
        if tx_id != 0 {
            let transaction = self.transactions.get_mut(&(conn, tx_id)).ok_or(XsError::ENOENT)?;
            let (nodes, order) = (&mut transaction.nodes, &mut transaction.order);
            let answer = PlainEdit { nodes, order, domid, life, fired: Vec::new() }.execute(op, &lives);
            transaction.done.push((op.clone(), lives, answer.clone()));
            return answer;
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut edit =
            PlainEdit { nodes: &mut nodes, order: &mut self.order, domid, life, fired: Vec::new() };
        let answer = edit.execute(op, &lives);
        let fired = edit.fired;
        self.nodes = nodes;
        self.fire(&fired, false);
        answer
    }

    fn end(&mut self, conn: ConnId, tx_id: u32, commit: bool) -> Answer {
        let transaction = self.transactions.remove(&(conn, tx_id)).ok_or(XsError::ENOENT)?;
        if !commit {
            return ok();
        }
        let domid = self.domids[&conn];
        let life = self.lives[&domid];
        let (mut nodes, mut order) = (self.nodes.clone(), self.order);
        let mut edit = PlainEdit { nodes: &mut nodes, order: &mut order, domid, life, fired: Vec::new() };
        for (op, lives, answer) in &transaction.done {
            let now: Vec<u32> = match op {
                Op::SetPerms(_, perms) => perms
                    .iter()
                    .zip(lives)
                    .map(|((domid, _), life)| if self.lives[domid] == *life { *life } else { 0 })
                    .collect(),
                _ => Vec::new(),
            };
            if edit.execute(op, &now) != *answer {
                return Err(XsError::EAGAIN);
            }
        }
        let fired = edit.fired;
        (self.nodes, self.order) = (nodes, order);
        self.fire(&fired, true);
        ok()
    }

    fn fire(&mut self, fired: &[Fired], once: bool) {
        let mut sent = BTreeSet::new();
        for change in fired {
            let mut hits: Vec<(ConnId, usize)> = Vec::new();
            for (number, watch) in self.watches.iter().enumerate() {
                let below = depth(&change.path).wrapping_sub(depth(&watch.path));
                let matches = if change.above {
                    within(&change.path, &watch.path) && watch.depth.is_none_or(|depth| below <= depth)
                } else {
                    change.path == watch.path
                };
                let domid = self.domids[&watch.conn];
                let life = self.lives[&domid];
                let sees = change.seen_by.iter().any(|perms| rights(perms, domid, life) & 1 != 0);
                if matches && sees && (!once || sent.insert((number, change.path.clone()))) {
                    hits.push((watch.conn, number));
                }
            }
            hits.sort();
            for (conn, number) in hits {
                let watch = &self.watches[number];
                self.events.push((conn, format!("{} {}", &change.path[watch.prefix..], watch.token)));
            }
        }
    }

    fn gone(&mut self, domid: u16, conn: ConnId) {
        self.watches.retain(|watch| watch.conn != conn);
        self.transactions.retain(|(other, _), _| *other != conn);
        self.domids.remove(&conn);
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut edit =
            PlainEdit { nodes: &mut nodes, order: &mut self.order, domid: 0, life: 1, fired: Vec::new() };
        let mut stack = vec!["/".to_owned()];
        while let Some(path) = stack.pop() {
            if edit.nodes[&path].perms[0].0 == domid && path != "/" {
                edit.remove(&path);
                continue;
            }
            let owner = &mut edit.nodes.get_mut(&path).unwrap().perms[0];
            if owner.0 == domid {
                (owner.0, owner.2) = (0, 1);
            }
            edit.nodes.get_mut(&path).unwrap().perms.retain(|entry| entry.0 != domid);
            stack.extend(edit.children(&path).into_iter().rev());
        }
        let fired = edit.fired;
        self.nodes = nodes;
        self.fire(&fired, false);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Node(usize, usize, Op),
    Start(usize),
    End(usize, usize, bool),
    Watch(usize, String, u8, Option<u8>),
    Unwatch(usize, String, u8),
    Rebirth(usize),
    Snapshot,
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(vec!["/a", "/a/b", "/a/b/c", "/a/d", "/e", "x", "x/y", "/local/domain/1", "/local/domain/2/x", "/local"]).prop_map(str::to_owned),
        1 => Just("/".to_owned()),
        1 => proptest::sample::select(vec!["/a/", "//", "", "/f/g/h"]).prop_map(str::to_owned),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let perm = (0u16..3, proptest::sample::select(b"nrwb".to_vec()));
    prop_oneof![
        4 => (any_path(), proptest::collection::vec(any::<u8>(), 0..3)).prop_map(|(path, value)| Op::Write(path, value)),
        2 => any_path().prop_map(Op::Mkdir),
        2 => any_path().prop_map(Op::Rm),
        2 => (any_path(), proptest::collection::vec(perm, 1..4)).prop_map(|(path, perms)| Op::SetPerms(path, perms)),
        2 => any_path().prop_map(Op::Read),
        1 => any_path().prop_map(Op::Directory),
        1 => any_path().prop_map(Op::GetPerms),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (0usize..3, 0usize..4, any_op()).prop_map(|(client, tx, op)| Step::Node(client, tx, op)),
        3 => (0usize..3).prop_map(Step::Start),
        3 => (0usize..3, 0usize..3, any::<bool>()).prop_map(|(client, tx, all)| Step::End(client, tx, all || tx > 0)),
        3 => (0usize..3, any_path(), 0u8..3, proptest::option::of(0u8..3))
            .prop_map(|(client, path, token, depth)| Step::Watch(client, path, token, depth)),
        1 => (0usize..3, any_path(), 0u8..3).prop_map(|(client, path, token)| Step::Unwatch(client, path, token)),
        1 => (0usize..2).prop_map(Step::Rebirth),
        1 => Just(Step::Snapshot),
    ]
}

/// The store and the model side by side.
struct Pair {
    rig: Rig,
    plain: Plain,
    conns: [ConnId; 3],
    open: Vec<(ConnId, u32)>,
}

impl Pair {
    fn new() -> Pair {
        let mut config = Config::default();
        for quota in crate::Quota::ALL {
            config.quotas.set(quota, 0);
        }
        let mut pair =
            Pair { rig: Rig::with(config), plain: Plain::new(), conns: [TOOLS; 3], open: Vec::new() };
        for (slot, domid) in GUESTS.into_iter().enumerate() {
            pair.birth(slot + 1, domid);
        }
        pair
    }

    fn birth(&mut self, slot: usize, domid: u16) {
        self.conns[slot] = self.rig.guest(domid);
        self.plain.domids.insert(self.conns[slot], domid);
        *self.plain.lives.entry(domid).or_default() += 1;
        let home = format!("/local/domain/{domid}");
        for op in [Op::Mkdir(home.clone()), Op::SetPerms(home, vec![(domid, b'n')])] {
            self.node(TOOLS, 0, &op);
        }
    }

    fn node(&mut self, conn: ConnId, tx_id: u32, op: &Op) {
        let (kind, payload) = op.request();
        let real = self.rig.tx(conn, kind, tx_id, payload);
        assert_eq!(real, self.plain.request(conn, tx_id, op), "{op:?}");
    }

    /// The transaction that a number means for a client; 0 means none.
    fn tx(&self, conn: ConnId, number: usize) -> u32 {
        let mine: Vec<u32> = self.open.iter().filter(|(of, _)| *of == conn).map(|(_, tx)| *tx).collect();
        if number == 0 || mine.is_empty() { 0 } else { mine[number % mine.len()] }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Node(client, number, op) => {
                let conn = self.conns[client];
                self.node(conn, self.tx(conn, number), &op);
            }
            Step::Start(client) => {
                let conn = self.conns[client];
                let tx = self.rig.start(conn);
                let transaction = PlainTransaction {
                    nodes: self.plain.nodes.clone(),
                    order: self.plain.order,
                    done: Vec::new(),
                };
                self.plain.transactions.insert((conn, tx), transaction);
                self.open.push((conn, tx));
            }
            Step::End(client, number, commit) => {
                let conn = self.conns[client];
                let tx = self.tx(conn, number + 1);
                if tx != 0 {
                    assert_eq!(self.rig.end(conn, tx, commit), self.plain.end(conn, tx, commit));
                    self.open.retain(|open| *open != (conn, tx));
                }
            }
            Step::Watch(client, path, token, depth) => self.watch(self.conns[client], &path, token, depth),
            Step::Unwatch(client, path, token) => self.unwatch(self.conns[client], &path, token),
            Step::Rebirth(guest) => {
                let (domid, conn) = (GUESTS[guest], self.conns[guest + 1]);
                self.rig.apply(crate::Entry::DomainGone { domid: DomId(domid) });
                self.plain.gone(domid, conn);
                self.open.retain(|(of, _)| *of != conn);
                self.birth(guest + 1, domid);
            }
            Step::Snapshot => {
                let bytes = self.rig.store.snapshot(self.rig.index).unwrap();
                let (index, copy) = Store::from_snapshot(&bytes).unwrap();
                assert_eq!((index, copy.digest()), (self.rig.index, self.rig.store.digest()));
                self.rig.store = copy;
            }
        }
        self.compare();
    }

    fn absolute(&self, conn: ConnId, path: &str) -> (String, usize) {
        if path.starts_with('/') {
            return (path.to_owned(), 0);
        }
        let base = format!("/local/domain/{}/", self.plain.domids[&conn]);
        (format!("{base}{path}"), base.len())
    }

    fn watch(&mut self, conn: ConnId, path: &str, token: u8, depth: Option<u8>) {
        let (whole, prefix) = self.absolute(conn, path);
        let depth_text = depth.map(|depth| format!("{depth}\0")).unwrap_or_default();
        let real = self.rig.req(conn, T::WATCH, format!("{path}\0{token}\0{depth_text}"));
        let double = self
            .plain
            .watches
            .iter()
            .any(|watch| (watch.conn, &watch.path, &watch.token) == (conn, &whole, &token.to_string()));
        if whole != "/" && whole.ends_with('/') || whole.contains("//") {
            assert_eq!(real, Err(XsError::EINVAL));
        } else if double {
            assert_eq!(real, Err(XsError::EEXIST));
        } else {
            assert_eq!(real, ok());
            self.plain.events.push((conn, format!("{} {token}", &whole[prefix..])));
            let (token, depth) = (token.to_string(), depth.map(usize::from));
            self.plain.watches.push(PlainWatch { conn, path: whole, token, depth, prefix });
        }
    }

    fn unwatch(&mut self, conn: ConnId, path: &str, token: u8) {
        let (whole, _) = self.absolute(conn, path);
        let real = self.rig.req(conn, T::UNWATCH, format!("{path}\0{token}\0"));
        let before = self.plain.watches.len();
        self.plain
            .watches
            .retain(|watch| (watch.conn, &watch.path, &watch.token) != (conn, &whole, &token.to_string()));
        assert_eq!(real.is_ok(), self.plain.watches.len() < before);
    }

    fn compare(&mut self) {
        let events = std::mem::take(&mut self.plain.events);
        for conn in self.conns {
            let mine: Vec<String> =
                events.iter().filter(|(to, _)| *to == conn).map(|(_, event)| event.clone()).collect();
            assert_eq!(self.rig.events(conn), mine, "{conn:?}");
        }
        let mut nodes = 2;
        for path in self.plain.nodes.keys() {
            let value = self.rig.read(TOOLS, path);
            assert_eq!(value.as_ref(), Ok(&self.plain.nodes[path].value), "{path}");
            nodes += 1;
        }
        assert_eq!(self.rig.store.domains.nodes(), nodes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in proptest::collection::vec(any_step(), 1..120)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        replay_gives_the_same(&pair.rig);
    }
}

/// Applying the log again gives the same state, whatever was trimmed or restored meanwhile.
fn replay_gives_the_same(rig: &Rig) {
    let mut config = Config::default();
    for quota in crate::Quota::ALL {
        config.quotas.set(quota, 0);
    }
    let mut again = Store::new(config);
    let mut effects = Vec::new();
    let middle = rig.log.len() / 2;
    for (at, (index, entry)) in rig.log.iter().enumerate() {
        if at == middle {
            // A replica that starts from a snapshot comes to the same roots.
            let (saved, restored) =
                Store::from_snapshot(&again.snapshot(again.applied_index()).unwrap()).unwrap();
            assert_eq!((saved, restored.root()), (again.applied_index(), again.root()));
            again = restored;
        }
        again.apply(*index, entry.as_ref(), &mut effects);
    }
    assert_eq!(again.check(), Vec::<String>::new());
    assert_eq!((again.digest(), again.root()), (rig.store.digest(), rig.store.root()));
    for (conn, _) in rig.store.connections() {
        assert_eq!(again.last_ordinal(conn), rig.store.last_ordinal(conn));
    }
}
