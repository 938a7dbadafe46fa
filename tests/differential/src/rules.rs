//! The differences that are meant. `docs/DIFFERENCES.md` has the reason for each under the rule's name.

use std::collections::{BTreeMap, BTreeSet};

use peers::Kind;
use xs_protocol::MessageType as T;
use xs_protocol::limits::REL_PATH_MAX;

use crate::execute::{DEAD, Observation, Outcome};
use crate::op::{Lifecycle, Op, TxRef, What};

/// What follows from a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The stores have the same state afterwards.
    GoOn,
    /// As [`Self::GoOn`] if both refuse, else as [`Self::Stop`].
    IfRefused,
    /// The transaction is another one from there on: what is done in it can not be compared, and after its commit
    /// nothing can, unless both refuse it.
    Taint,
    /// They do not: nothing after it can be compared.
    Stop,
}

/// A difference in its context.
pub struct Case<'a> {
    /// From which daemon.
    pub peer: Kind,
    /// The operation; none for the tree at the end.
    pub op: Option<&'a Op>,
    /// The operations before.
    pub before: &'a [Op],
    /// What ours did.
    pub ours: &'a Observation,
    /// What the stock daemon did.
    pub theirs: &'a Observation,
}

/// A difference that is meant.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What follows.
    pub then: Then,
    applies: fn(&Case<'_>) -> bool,
}

/// Operations at the beginning of every sequence, which make domains.
const PROLOGUE: usize = 14;

/// All of them.
pub const ALL: &[Rule] = &[
    Rule { name: "crash", then: Then::Stop, applies: crash },
    Rule { name: "oxenstored-errors", then: Then::GoOn, applies: oxenstored_errors },
    Rule { name: "oxenstored-directory-part", then: Then::GoOn, applies: oxenstored_directory_part },
    Rule { name: "oxenstored-rm-root", then: Then::Stop, applies: oxenstored_rm_root },
    Rule { name: "oxenstored-rm-missing", then: Then::GoOn, applies: oxenstored_rm_missing },
    Rule { name: "oxenstored-watches-below", then: Then::GoOn, applies: oxenstored_watches_below },
    Rule { name: "oxenstored-value-size", then: Then::Stop, applies: oxenstored_value_size },
    Rule { name: "oxenstored-path-length", then: Then::IfRefused, applies: oxenstored_path_length },
    Rule { name: "oxenstored-silence", then: Then::Stop, applies: oxenstored_silence },
    Rule { name: "oxenstored-initial-nodes", then: Then::GoOn, applies: oxenstored_initial_nodes },
    Rule { name: "oxenstored-permissions", then: Then::Stop, applies: oxenstored_permissions },
    Rule { name: "oxenstored-ends", then: Then::Stop, applies: oxenstored_ends },
    Rule { name: "oxenstored-leftovers", then: Then::Stop, applies: oxenstored_leftovers },
    Rule { name: "oxenstored-special-paths", then: Then::Stop, applies: oxenstored_special_paths },
    Rule { name: "malformed-payload", then: Then::GoOn, applies: malformed_payload },
    Rule { name: "path-length", then: Then::IfRefused, applies: path_length },
    Rule { name: "special-names", then: Then::GoOn, applies: special_names },
    Rule { name: "node-size", then: Then::IfRefused, applies: node_size },
    Rule { name: "unwatch-path", then: Then::GoOn, applies: unwatch_path },
    Rule { name: "domid-syntax", then: Then::IfRefused, applies: domid_syntax },
    Rule { name: "watch-quota", then: Then::GoOn, applies: watch_quota },
    Rule { name: "dead-permissions", then: Then::GoOn, applies: dead_permissions },
    Rule { name: "event-coalescing", then: Then::GoOn, applies: event_coalescing },
    Rule { name: "dead-root", then: Then::Stop, applies: dead_root },
    Rule { name: "special-watch-of-one", then: Then::GoOn, applies: special_watch_of_one },
    Rule { name: "released-target", then: Then::Stop, applies: released_target },
    Rule { name: "transaction-events", then: Then::GoOn, applies: transaction_events },
    Rule { name: "failed-transaction", then: Then::Taint, applies: failed_transaction },
    Rule { name: "newer-requests", then: Then::Stop, applies: newer_requests },
    Rule { name: "watch-depth", then: Then::Stop, applies: watch_depth },
    Rule { name: "control-text", then: Then::GoOn, applies: control_text },
    Rule { name: "transaction-snapshot", then: Then::Taint, applies: transaction_snapshot },
    Rule { name: "transaction-merge", then: Then::Stop, applies: transaction_merge },
];

impl Rule {
    /// What follows in this case.
    pub fn consequence(&self, case: &Case<'_>) -> Then {
        match self.then {
            Then::IfRefused if case.both_refuse() => Then::GoOn,
            Then::IfRefused => Then::Stop,
            then => then,
        }
    }
}

/// The rule that names a difference.
pub fn explain(case: &Case<'_>) -> Option<&'static Rule> {
    ALL.iter().find(|rule| (rule.applies)(case))
}

impl Case<'_> {
    fn kind(&self) -> T {
        self.op.map_or(T::INVALID, Op::kind)
    }

    fn payload(&self) -> &[u8] {
        self.op.map_or(&[], Op::payload)
    }

    fn both_refuse(&self) -> bool {
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Err(_));
        refused(&self.ours.outcome) && refused(&self.theirs.outcome) && self.same_events()
    }

    /// The payload's first string; all of it without a nul.
    fn path(&self) -> &[u8] {
        self.payload().split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn in_transaction(&self) -> bool {
        self.op.is_some_and(|op| matches!(op.tx, TxRef::Nth(_)))
    }

    /// Whether anything was done outside of the transaction between its start and this operation.
    fn others_acted(&self) -> bool {
        let Some(Op { client, tx: TxRef::Nth(nth), .. }) = self.op else { return false };
        let starts = |op: &&Op| op.client == *client && op.kind() == T::TRANSACTION_START;
        let start = self.before.iter().filter(starts).nth(*nth);
        let Some(start) = start.and_then(|start| self.before.iter().position(|op| std::ptr::eq(op, start)))
        else {
            return false;
        };
        self.before[start + 1..].iter().any(|op| op.client != *client || op.tx != TxRef::Nth(*nth))
    }

    fn same_events(&self) -> bool {
        self.ours.events == self.theirs.events
    }

    fn same_outcome(&self) -> bool {
        self.ours.outcome == self.theirs.outcome
    }

    fn we_tell_more(&self) -> bool {
        tells_more(self.ours, self.theirs)
    }

    fn we_accept(&self) -> bool {
        matches!(self.ours.outcome, Outcome::Ok(_))
    }

    fn they_accept(&self) -> bool {
        matches!(self.theirs.outcome, Outcome::Ok(_))
    }

    fn we_say(&self, name: &str) -> bool {
        matches!(&self.ours.outcome, Outcome::Err(said) if said == name)
    }

    fn they_say(&self, name: &str) -> bool {
        matches!(&self.theirs.outcome, Outcome::Err(said) if said == name)
    }

    fn is_c(&self) -> bool {
        self.peer == Kind::Xenstored
    }
}

/// Every event of the second is one of the first.
fn tells_more(more: &Observation, fewer: &Observation) -> bool {
    fewer.events.iter().all(|(client, events)| {
        let mut left = more.events.get(client).cloned().unwrap_or_default();
        events.iter().all(|event| {
            let found = left.iter().position(|other| other == event);
            found.map(|at| left.swap_remove(at)).is_some()
        })
    })
}

fn crash(case: &Case<'_>) -> bool {
    case.theirs.outcome == Outcome::Lost(DEAD.into())
}

fn oxenstored_errors(case: &Case<'_>) -> bool {
    !case.is_c() && case.both_refuse()
}

fn oxenstored_directory_part(case: &Case<'_>) -> bool {
    !case.is_c() && case.kind() == T::DIRECTORY_PART && case.they_say("ENOSYS") && case.same_events()
}

fn oxenstored_rm_missing(case: &Case<'_>) -> bool {
    !case.is_c()
        && case.kind() == T::RM
        && !case.we_accept()
        && case.they_accept()
        && tells_more(case.theirs, case.ours)
}

fn oxenstored_watches_below(case: &Case<'_>) -> bool {
    let removes = [T::RM, T::TRANSACTION_END].contains(&case.kind());
    !case.is_c() && removes && case.same_outcome() && tells_more(case.theirs, case.ours)
}

fn oxenstored_value_size(case: &Case<'_>) -> bool {
    !case.is_c() && case.kind() == T::WRITE && case.payload().len() > 2040 && case.they_say("E2BIG")
}

fn oxenstored_path_length(case: &Case<'_>) -> bool {
    !case.is_c() && case.path().len() > 1024 - 20 && case.they_say("EINVAL")
}

fn oxenstored_silence(case: &Case<'_>) -> bool {
    let unknown = case.kind().0 > T::SET_QUOTA.0;
    let malformed = case.we_say("EINVAL") || case.payload().is_empty();
    !case.is_c() && (unknown || malformed) && matches!(case.theirs.outcome, Outcome::Lost(_))
}

/// Reads of the root's children and of the node that names the daemon.
fn oxenstored_initial_nodes(case: &Case<'_>) -> bool {
    let reads = [T::READ, T::DIRECTORY, T::GET_PERMS].contains(&case.kind());
    !case.is_c() && reads && [&b"/"[..], b"/local", b"/tool", b"/local/domain"].contains(&case.path())
}

fn oxenstored_permissions(case: &Case<'_>) -> bool {
    let by_guest = case.before.iter().any(|op| op.client.is_guest());
    let owner = case.kind() == T::GET_PERMS && !case.same_outcome();
    let allowed = case.we_accept() != case.they_accept() && case.op.is_some_and(|op| op.client.is_guest());
    !case.is_c() && (by_guest && owner || allowed)
}

fn oxenstored_ends(case: &Case<'_>) -> bool {
    let ends = |op: &Op| op.kind() == T::RELEASE || matches!(op.what, What::Domain(..));
    !case.is_c()
        && (case.op.is_some_and(ends) || case.before[PROLOGUE.min(case.before.len())..].iter().any(ends))
}

/// The tree at the end, where domains or guests did something: the differences above have left their traces.
fn oxenstored_leftovers(case: &Case<'_>) -> bool {
    !case.is_c() && case.op.is_none()
}

fn oxenstored_special_paths(case: &Case<'_>) -> bool {
    !case.is_c() && case.path().starts_with(b"@") && case.we_accept() != case.they_accept()
}

fn oxenstored_rm_root(case: &Case<'_>) -> bool {
    !case.is_c() && case.kind() == T::RM && case.path() == b"/" && case.they_accept()
}

fn malformed_payload(case: &Case<'_>) -> bool {
    let one_path = [T::READ, T::DIRECTORY, T::GET_PERMS, T::MKDIR, T::RM];
    let nul = case.payload().iter().position(|byte| *byte == 0);
    let whole = nul.is_some_and(|at| at + 1 == case.payload().len());
    one_path.contains(&case.kind()) && !whole && case.we_say("EINVAL") && case.both_refuse()
}

fn path_length(case: &Case<'_>) -> bool {
    case.is_c() && case.path().len() > REL_PATH_MAX - 16 && case.they_say("EINVAL")
}

fn special_names(case: &Case<'_>) -> bool {
    let reads = case.kind() == T::GET_PERMS && case.same_events();
    case.path().starts_with(b"@") && (case.both_refuse() || reads && case.they_say("EINVAL"))
}

/// Only where a node is near the limit.
fn node_size(case: &Case<'_>) -> bool {
    let long = |op: &Op| op.kind() == T::WRITE && (1950..2060).contains(&op.payload().len());
    let guest = case.op.is_some_and(|op| op.client.is_guest());
    let near = case.op.is_some_and(long) || case.before.iter().any(long);
    case.is_c() && guest && near && case.they_say("ENOSPC")
}

fn unwatch_path(case: &Case<'_>) -> bool {
    case.kind() == T::UNWATCH && case.we_say("EINVAL") && case.both_refuse()
}

fn domid_syntax(case: &Case<'_>) -> bool {
    let asks = [T::GET_DOMAIN_PATH, T::IS_DOMAIN_INTRODUCED].contains(&case.kind());
    let acts = [T::SET_TARGET, T::RELEASE, T::RESUME].contains(&case.kind());
    case.we_say("EINVAL") && case.same_events() && (asks || acts)
}

fn watch_quota(case: &Case<'_>) -> bool {
    case.kind() == T::WATCH && case.we_say("ENOSPC") && case.they_say("E2BIG") && case.same_events()
}

/// Ours are theirs without some, the owner's excepted.
fn dead_permissions(case: &Case<'_>) -> bool {
    let (Outcome::Ok(ours), Outcome::Ok(theirs)) = (&case.ours.outcome, &case.theirs.outcome) else {
        return false;
    };
    if case.op.is_none() {
        let (ours, theirs) = (String::from_utf8_lossy(ours), String::from_utf8_lossy(theirs));
        let lines = || ours.lines().zip(theirs.lines());
        return ours.lines().count() == theirs.lines().count()
            && lines().all(|(a, b)| fewer_perms_line(a, b));
    }
    case.kind() == T::GET_PERMS && case.same_events() && fewer_perms(ours, theirs, 0)
}

fn fewer_perms_line(ours: &str, theirs: &str) -> bool {
    let (Some(ours), Some(theirs)) = (ours.rsplit_once(" ("), theirs.rsplit_once(" (")) else {
        return ours == theirs;
    };
    let unescape = |list: &str| list.trim_end_matches(')').replace("\\x00", "\0").into_bytes();
    ours.0 == theirs.0 && fewer_perms(&unescape(ours.1), &unescape(theirs.1), 0)
}

/// Whether the first entries are the same and the rest of `ours` is in `theirs` in the same order.
fn fewer_perms(ours: &[u8], theirs: &[u8], end: u8) -> bool {
    let mut theirs = theirs.split(|byte| *byte == end);
    let mut ours = ours.split(|byte| *byte == end);
    ours.next() == theirs.next() && ours.all(|perm| theirs.any(|other| other == perm))
}

/// Anything that is still there of a domain that ended, once some domain had a target.
fn released_target(case: &Case<'_>) -> bool {
    let ends = |op: &Op| {
        op.kind() == T::RELEASE || matches!(op.what, What::Domain(_, Lifecycle::Dying | Lifecycle::Gone))
    };
    let target = case.before.iter().any(|op| op.kind() == T::SET_TARGET);
    case.is_c() && target && (case.before.iter().any(ends) || case.op.is_some_and(ends))
}

/// The same events, but that theirs lacks some of those that are equal. No sequence leaves a client so far behind that
/// ours would leave out any.
fn event_coalescing(case: &Case<'_>) -> bool {
    let distinct = |observation: &Observation| {
        let clients = observation.events.iter();
        let sets = clients.map(|(client, events)| (*client, BTreeSet::from_iter(events.clone())));
        sets.collect::<BTreeMap<_, _>>()
    };
    let same = case.same_outcome() && distinct(case.ours) == distinct(case.theirs);
    case.is_c() && same && case.we_tell_more()
}

/// Once somebody but domain 0 may have owned the root.
fn dead_root(case: &Case<'_>) -> bool {
    case.is_c() && case.before.iter().any(|op| op.kind() == T::SET_PERMS && op.payload().starts_with(b"/\0"))
}

/// Events of `@releaseDomain/<domid>` and its like.
fn special_watch_of_one(case: &Case<'_>) -> bool {
    let plain = |observation: &Observation| {
        let mut events = observation.events.clone();
        events.values_mut().for_each(|events| events.retain(|(path, _)| !is_of_one(path)));
        events.retain(|_, events| !events.is_empty());
        events
    };
    case.same_outcome() && plain(case.ours) == plain(case.theirs)
}

fn is_of_one(path: &str) -> bool {
    path.starts_with('@') && path.contains('/')
}

fn transaction_events(case: &Case<'_>) -> bool {
    case.kind() == T::TRANSACTION_END && case.same_outcome() && case.we_accept() && case.we_tell_more()
}

fn failed_transaction(case: &Case<'_>) -> bool {
    case.in_transaction() && case.we_say("ENOSPC") && case.same_events()
}

fn newer_requests(case: &Case<'_>) -> bool {
    let newer = [T::GET_FEATURE, T::SET_FEATURE, T::GET_QUOTA, T::SET_QUOTA].contains(&case.kind());
    newer && !case.they_accept() && case.same_events()
}

fn watch_depth(case: &Case<'_>) -> bool {
    let strings = case.payload().iter().filter(|byte| **byte == 0).count();
    case.kind() == T::WATCH && strings == 3 && case.they_say("EINVAL")
}

fn control_text(case: &Case<'_>) -> bool {
    case.kind() == T::CONTROL && case.same_events()
}

/// Only where somebody else did something after the transaction began.
fn transaction_snapshot(case: &Case<'_>) -> bool {
    let ends = case.kind() == T::TRANSACTION_END;
    case.in_transaction() && !ends && case.same_events() && case.others_acted()
}

fn transaction_merge(case: &Case<'_>) -> bool {
    case.kind() == T::TRANSACTION_END && case.we_accept() && case.they_say("EAGAIN")
}
