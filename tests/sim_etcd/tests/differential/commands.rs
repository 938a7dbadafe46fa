//! Seeded requests, and what of their answers is compared: all but the ids of cluster and member and the term.

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions,
};
use fastrand::Rng;

/// Behind all other keys: every watch covers it.
pub const LAST_KEY: &[u8] = b"k~LAST";
const KEYS: u32 = 8;

#[derive(Debug)]
pub enum Command {
    Get(Vec<u8>, GetOptions),
    Put(Vec<u8>, Vec<u8>, PutOptions),
    Delete(Vec<u8>, DeleteOptions),
    Txn(Txn),
    Compact(i64),
    Watch(Vec<u8>, WatchOptions),
    Alarm(AlarmAction),
    Defragment,
}

impl Command {
    /// Sends it, and gives what came back in a form that can be compared.
    pub async fn run(&self, client: &mut Client) -> String {
        match self {
            Self::Get(key, options) => shown(client.get(key.clone(), Some(options.clone())).await),
            Self::Put(key, value, options) => {
                shown(client.put(key.clone(), value.clone(), Some(options.clone())).await)
            }
            Self::Delete(key, options) => shown(client.delete(key.clone(), Some(options.clone())).await),
            Self::Txn(txn) => shown(client.txn(txn.clone()).await),
            Self::Compact(revision) => shown(client.compact(*revision, None).await),
            Self::Watch(..) => unreachable!("watches stay open"),
            Self::Alarm(action) => {
                let response = client.alarm(*action, AlarmType::Nospace, None).await.unwrap();
                format!("{:?}", response.alarms().iter().map(|alarm| alarm.alarm()).collect::<Vec<_>>())
            }
            Self::Defragment => shown(client.defragment().await.map(|_| "done")),
        }
    }
}

fn shown<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(answer) => without_ids(&format!("{answer:?}")),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(error) => panic!("{error}"),
    }
}

/// Blanks the digits after the names of what two clusters cannot have in common.
fn without_ids(text: &str) -> String {
    let mut rest = text.to_owned();
    for name in ["cluster_id: ", "member_id: ", "raft_term: "] {
        let parts: Vec<&str> = rest.split(name).collect();
        let blanked = parts.iter().enumerate().map(|(i, part)| {
            if i == 0 { *part } else { part.trim_start_matches(|c: char| c.is_ascii_digit()) }
        });
        rest = blanked.collect::<Vec<_>>().join("id ");
    }
    rest
}

pub struct Commands {
    rng: Rng,
    values: u32,
    revision: i64,
    full: bool,
}

impl Commands {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), values: 0, revision: 1, full: false }
    }

    pub fn next(&mut self) -> Command {
        self.revision += 1;
        match self.rng.u32(0..100) {
            0..25 => Command::Put(self.key(), self.value(), self.put_options()),
            25..45 => Command::Get(self.any_key(), self.get_options()),
            45..55 => Command::Delete(self.any_key(), self.delete_options()),
            55..85 => Command::Txn(self.txn(0)),
            85..88 => Command::Compact(self.old_revision()),
            88..96 => self.watch(),
            96..98 => self.alarm(),
            _ => Command::Defragment,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.rng.u32(0..KEYS)).into_bytes()
    }

    fn any_key(&mut self) -> Vec<u8> {
        if self.chance(3) { Vec::new() } else { self.key() }
    }

    /// Values are unique, so that an order by value is total.
    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        format!("{:x}-{}", self.rng.u32(0..16), self.values).into_bytes()
    }

    /// About where the newest revision is, or before.
    fn old_revision(&mut self) -> i64 {
        self.rng.i64(-1..=self.revision)
    }

    fn get_options(&mut self) -> GetOptions {
        let mut options = GetOptions::new();
        options = match self.rng.u32(0..5) {
            0 => options,
            1 => options.with_range(self.key()),
            2 => options.with_from_key(),
            3 => options.with_all_keys(),
            _ => options.with_range(vec![b'l']),
        };
        if self.chance(30) {
            options = options.with_revision(self.old_revision());
        }
        if self.chance(30) {
            options = options.with_limit(self.rng.i64(0..5));
        }
        if self.chance(30) {
            let target = if self.chance(50) { SortTarget::Key } else { SortTarget::Value };
            let order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.rng.usize(0..3)];
            options = options.with_sort(target, order);
        }
        options = if self.chance(10) { options.with_keys_only() } else { options };
        options = if self.chance(10) { options.with_count_only() } else { options };
        options = if self.chance(10) { options.with_serializable() } else { options };
        options = if self.chance(10) { options.with_min_mod_revision(self.old_revision()) } else { options };
        options = if self.chance(10) { options.with_max_mod_revision(self.old_revision()) } else { options };
        options =
            if self.chance(10) { options.with_min_create_revision(self.old_revision()) } else { options };
        if self.chance(10) { options.with_max_create_revision(self.old_revision()) } else { options }
    }

    fn put_options(&mut self) -> PutOptions {
        let mut options = PutOptions::new();
        options = if self.chance(30) { options.with_prev_key() } else { options };
        options = if self.chance(5) { options.with_ignore_value() } else { options };
        options = if self.chance(5) { options.with_ignore_lease() } else { options };
        if self.chance(3) { options.with_lease(77) } else { options }
    }

    fn delete_options(&mut self) -> DeleteOptions {
        let mut options = DeleteOptions::new();
        options = match self.rng.u32(0..8) {
            0 => options.with_range(self.key()),
            1 => options.with_prefix(),
            _ => options,
        };
        if self.chance(40) { options.with_prev_key() } else { options }
    }

    fn compare(&mut self) -> Compare {
        let key = self.any_key();
        let op = [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual]
            [self.rng.usize(0..4)];
        let small = self.rng.i64(0..4);
        let compare = match self.rng.u32(0..5) {
            0 => Compare::version(key, op, small),
            1 => Compare::create_revision(key, op, self.old_revision()),
            2 => Compare::mod_revision(key, op, self.old_revision()),
            3 => Compare::lease(key, op, small),
            _ => Compare::value(key, op, self.value()),
        };
        if self.chance(20) { compare.with_range(vec![b'l']) } else { compare }
    }

    fn txn(&mut self, depth: u32) -> Txn {
        let compares: Vec<Compare> = (0..self.rng.u32(0..3)).map(|_| self.compare()).collect();
        let mut txn = Txn::new();
        if !compares.is_empty() {
            txn = txn.when(compares);
        }
        let success = self.ops(depth);
        txn = txn.and_then(success);
        let failure = self.ops(depth);
        txn.or_else(failure)
    }

    fn ops(&mut self, depth: u32) -> Vec<TxnOp> {
        (0..self.rng.u32(0..4))
            .map(|_| match self.rng.u32(0..10) {
                0..4 => {
                    // An ignored value comes with none.
                    let value = if self.chance(5) { Vec::new() } else { self.value() };
                    TxnOp::put(self.key(), value, Some(self.put_options()))
                }
                4..7 => TxnOp::get(self.any_key(), Some(self.get_options())),
                7 | 8 => TxnOp::delete(self.any_key(), Some(self.delete_options())),
                _ if depth < 2 => TxnOp::txn(self.txn(depth + 1)),
                _ => TxnOp::get(self.key(), None),
            })
            .collect()
    }

    fn watch(&mut self) -> Command {
        let mut options = WatchOptions::new();
        let key = match self.rng.u32(0..3) {
            0 => LAST_KEY.to_vec(),
            1 => {
                options = options.with_range(vec![b'l']);
                self.key()
            }
            _ => {
                options = options.with_prefix();
                b"k".to_vec()
            }
        };
        if self.chance(50) {
            options = options.with_start_revision(self.old_revision().max(0));
        }
        options = if self.chance(30) { options.with_prev_key() } else { options };
        options = match self.rng.u32(0..8) {
            0 => options.with_filters([WatchFilterType::NoPut]),
            _ => options,
        };
        Command::Watch(key, options)
    }

    /// Raised for a few requests only: nothing can be put meanwhile.
    fn alarm(&mut self) -> Command {
        self.full = !self.full;
        Command::Alarm(if self.full { AlarmAction::Activate } else { AlarmAction::Deactivate })
    }
}
