//! Sequences of operations.

use std::collections::BTreeMap;

use xs_protocol::MessageType as T;

use crate::Random;
use crate::op::{Client, Lifecycle, Op, TxRef, What};

const DOMAINS: [u16; 3] = [1, 2, 3];

/// Places where clients meet.
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/d",
    "/shared",
    "/shared/x",
    "/shared/x/y",
    "/shared/z",
    "/tool",
    "/local",
    "/local/domain",
    "/local/domain/1",
    "/local/domain/1/x",
    "/local/domain/1/x/y",
    "/local/domain/1/z",
    "/local/domain/2",
    "/local/domain/2/x",
    "/local/domain/3",
    "/local/domain/3/x",
    "x",
    "x/y",
    "x/y/w",
    "z",
    "device/vif/0",
];

const ODD_PATHS: &[&str] = &[
    "",
    "//",
    "//a",
    "/a/",
    "/a//b",
    "/a b",
    "/a\u{e9}",
    "a.b",
    "/a/./b",
    "/../a",
    "/local/domain/",
    "/local/domain/x",
    "/local/domain/7/q",
    "@releaseDomain",
    "@introduceDomain",
    "@unknown",
    "@",
    "@releaseDomain/1",
    "/@releaseDomain",
    "x/",
    "~",
    "/a:b",
    "/A-Z_@9",
    "-",
    "/local/domain/0/x",
];

const TOKENS: &[&str] = &["t1", "t2", "t3", "", "token with blanks", "\u{1}\u{7f}"];

/// A sequence of a seed.
pub fn generate(seed: u64, length: usize) -> Vec<Op> {
    let alone = seed.is_multiple_of(2);
    let mut generator =
        Generator { random: Random::new(seed), alone, started: BTreeMap::new(), open: BTreeMap::new() };
    let mut ops = generator.prologue();
    while ops.len() < length {
        let op = generator.op();
        ops.push(op);
    }
    ops
}

struct Generator {
    random: Random,
    /// While a client has a transaction, nobody else does anything: so no conflict ends the comparison early.
    alone: bool,
    /// Transactions that a client has started.
    started: BTreeMap<Client, usize>,
    /// Those that may still be open.
    open: BTreeMap<Client, Vec<usize>>,
}

impl Generator {
    /// Two guests with a home each and a place for all, so that most sequences have somebody to meet.
    fn prologue(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for domid in DOMAINS {
            ops.push(domain(domid, Lifecycle::Create));
            ops.push(socket(T::WRITE, format!("/local/domain/{domid}\0")));
            ops.push(socket(T::SET_PERMS, format!("/local/domain/{domid}\0n{domid}\0")));
            ops.push(Op { client: Client::Socket(0), tx: TxRef::No, what: What::Introduce(domid) });
        }
        ops.push(socket(T::WRITE, "/shared\0".into()));
        ops.push(socket(T::SET_PERMS, "/shared\0b0\0".into()));
        ops
    }

    fn op(&mut self) -> Op {
        let client = Client::ALL[self.random.below(Client::ALL.len())];
        let busy = self.open.iter().find(|(_, open)| !open.is_empty()).map(|(client, _)| *client);
        if let Some(client) = busy.filter(|_| self.alone) {
            return if self.random.chance(15) { self.tx_end(client) } else { self.alone_op(client) };
        }
        match self.random.below(100) {
            0..60 => self.node_op(client),
            60..74 => self.watch_op(client),
            74..84 => self.tx_op(client),
            84..94 => self.domain_op(client),
            94..98 => self.odd_op(client),
            98 => self.control_op(client),
            _ => self.reconnect(client),
        }
    }

    fn node_op(&mut self, client: Client) -> Op {
        let path = self.path();
        let (kind, rest) = match self.random.below(20) {
            0..3 => (T::READ, vec![0]),
            3..5 => (T::DIRECTORY, vec![0]),
            5..7 => (T::GET_PERMS, vec![0]),
            7 => (T::DIRECTORY_PART, self.offset()),
            8..13 => (T::WRITE, self.value()),
            13..15 => (T::MKDIR, vec![0]),
            15..17 => (T::RM, vec![0]),
            _ => (T::SET_PERMS, self.perms()),
        };
        let tx = self.tx(client);
        request(client, tx, kind, [path, rest].concat())
    }

    fn watch_op(&mut self, client: Client) -> Op {
        let path = self.path();
        let token = self.random.pick(TOKENS).as_bytes();
        let mut payload = [&path, &b"\0"[..], token, b"\0"].concat();
        let kind = if self.random.chance(75) { T::WATCH } else { T::UNWATCH };
        if self.random.chance(3) {
            payload.extend_from_slice(b"1\0");
        }
        if self.random.chance(4) {
            return request(client, TxRef::No, T::RESET_WATCHES, vec![0]);
        }
        request(client, TxRef::No, kind, payload)
    }

    fn tx_op(&mut self, client: Client) -> Op {
        let open = self.open.entry(client).or_default();
        let most = if self.alone { 1 } else { 2 };
        if open.len() < most && self.random.chance(60) || open.is_empty() {
            let started = self.started.entry(client).or_default();
            open.push(*started);
            *started += 1;
            return request(client, TxRef::No, T::TRANSACTION_START, vec![0]);
        }
        self.tx_end(client)
    }

    /// Within the only transaction.
    fn alone_op(&mut self, client: Client) -> Op {
        let op = self.node_op(client);
        let open = self.open.get(&client).map_or(&[][..], |open| open);
        Op { tx: TxRef::Nth(open[self.random.below(open.len())]), ..op }
    }

    fn tx_end(&mut self, client: Client) -> Op {
        let open = self.open.entry(client).or_default();
        let nth = open.remove(self.random.below(open.len()));
        let flag: &[u8] = if self.random.chance(80) { b"T\0" } else { b"F\0" };
        request(client, TxRef::Nth(nth), T::TRANSACTION_END, flag.to_vec())
    }

    fn domain_op(&mut self, client: Client) -> Op {
        let domid = DOMAINS[self.random.below(3)];
        let by_name = |kind, text: String| request(client, TxRef::No, kind, text.into_bytes());
        match self.random.below(20) {
            0..5 => domain(domid, Lifecycle::Create),
            5..9 => Op { client, tx: TxRef::No, what: What::Introduce(domid) },
            9 => domain(domid, Lifecycle::Shutdown),
            10 => domain(domid, Lifecycle::Dying),
            11 => domain(domid, Lifecycle::Gone),
            12 => by_name(T::RELEASE, format!("{domid}\0")),
            13 => by_name(T::RESUME, format!("{domid}\0")),
            14 | 15 => by_name(T::SET_TARGET, format!("{domid}\0{}\0", DOMAINS[self.random.below(3)])),
            16 | 17 => by_name(T::IS_DOMAIN_INTRODUCED, format!("{}\0", self.random.below(5))),
            _ => by_name(T::GET_DOMAIN_PATH, format!("{}\0", self.random.below(5))),
        }
    }

    /// Any type with any payload.
    fn odd_op(&mut self, client: Client) -> Op {
        let kinds = (0..27).filter(|kind| ![8, 15, 16].contains(kind)).collect::<Vec<u32>>();
        let kind = if self.random.chance(10) { 99 } else { kinds[self.random.below(kinds.len())] };
        let path = self.path();
        let payload = match self.random.below(8) {
            0 => vec![],
            1 => path,
            2 => [&path, &b"\0\0"[..]].concat(),
            3 => [&path, &b"\0x"[..]].concat(),
            4 => vec![0],
            5 => vec![0, 0, 0],
            6 => b"65536\0x\0".to_vec(),
            _ => b"-1\0".to_vec(),
        };
        let tx = self.tx(client);
        // A start has a place in the client's list of transactions.
        if kind == T::TRANSACTION_START.0 {
            *self.started.entry(client).or_default() += 1;
        }
        request(client, tx, T(kind), payload)
    }

    fn control_op(&mut self, client: Client) -> Op {
        let words: &[u8] = match self.random.below(4) {
            0 => b"check\0",
            1 => b"print\0hello\0",
            2 => b"nonsense\0",
            _ => b"log\0on\0",
        };
        request(client, TxRef::No, T::CONTROL, words.to_vec())
    }

    fn reconnect(&mut self, client: Client) -> Op {
        self.open.remove(&client);
        Op { client, tx: TxRef::No, what: What::Reconnect }
    }

    fn tx(&mut self, client: Client) -> TxRef {
        let open = self.open.get(&client).map_or(&[][..], |open| open);
        match self.random.below(100) {
            0..55 if !open.is_empty() => TxRef::Nth(open[self.random.below(open.len())]),
            98 => TxRef::Unknown,
            _ => TxRef::No,
        }
    }

    fn path(&mut self) -> Vec<u8> {
        match self.random.below(100) {
            0..88 => self.random.pick(PATHS).as_bytes().to_vec(),
            88..96 => self.random.pick(ODD_PATHS).as_bytes().to_vec(),
            96 => [b"/a/".to_vec(), vec![b'l'; 200 + self.random.below(1900)]].concat(),
            97 => [b"/a/".to_vec(), vec![b'm'; [2044, 2045, 2046, 3068, 3069, 3070][self.random.below(6)]]]
                .concat(),
            98 => "/a/n".repeat(1 + self.random.below(60)).into_bytes(),
            _ => vec![b'r'; [300, 2047, 2048, 2049, 3000][self.random.below(5)]],
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let value = match self.random.below(20) {
            0 => vec![],
            1 => b"with\0nul\0".to_vec(),
            2 => vec![0xff, 0, 0x80],
            3 => vec![b'v'; [1000, 1900, 2000, 2020, 2040, 2048, 2049][self.random.below(7)]],
            _ => self.random.below(1000).to_string().into_bytes(),
        };
        [vec![0], value].concat()
    }

    fn offset(&mut self) -> Vec<u8> {
        let offset = self.random.pick(&["0", "2", "7", "1000", "-1", "x", ""]);
        [b"\0", offset.as_bytes(), b"\0"].concat()
    }

    fn perms(&mut self) -> Vec<u8> {
        let mut list = vec![0];
        let count = if self.random.chance(5) { self.random.below(9) } else { 1 + self.random.below(3) };
        for _ in 0..count {
            let letter = self.random.pick(&["n", "r", "w", "b", "n", "r", "w", "b", "x"]);
            let domid = self.random.pick(&["0", "0", "1", "1", "2", "2", "3"]);
            list.extend_from_slice(letter.as_bytes());
            let domid = if self.random.chance(8) { "9" } else { domid };
            list.extend_from_slice(domid.as_bytes());
            list.push(0);
        }
        list
    }
}

fn request(client: Client, tx: TxRef, kind: T, payload: Vec<u8>) -> Op {
    Op { client, tx, what: What::Request(kind, payload) }
}

fn socket(kind: T, payload: String) -> Op {
    request(Client::Socket(0), TxRef::No, kind, payload.into_bytes())
}

fn domain(domid: u16, life: Lifecycle) -> Op {
    Op { client: Client::Socket(0), tx: TxRef::No, what: What::Domain(domid, life) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequence_and_another_seed_another() {
        assert_eq!(generate(7, 200), generate(7, 200));
        assert_ne!(generate(7, 200), generate(8, 200));
    }

    #[test]
    fn every_kind_of_operation_comes() {
        let ops = generate(1, 20_000);
        for kind in (0..27).filter(|kind| ![15, 16].contains(kind)) {
            assert!(ops.iter().any(|op| op.kind().0 == kind), "{kind}");
        }
        assert!(ops.iter().any(|op| op.what == What::Reconnect));
    }
}
