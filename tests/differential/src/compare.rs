//! What our store did otherwise than a stock one.

use std::collections::BTreeMap;
use std::fmt;

use peers::Kind;
use xs_protocol::MessageType as T;

use crate::execute::{Event, Observation, Outcome};
use crate::op::{Client, Op, TxRef, What};
use crate::rules::{self, Case, Then};

/// A difference that no rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which stock daemon.
    pub peer: Kind,
    /// The operation's place; the sequence's length is the tree at the end.
    pub at: usize,
    /// The operation.
    pub op: Option<Op>,
    /// What ours did.
    pub ours: Observation,
    /// What the stock daemon did.
    pub theirs: Observation,
}

/// A comparison of a whole sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The first difference that no rule names.
    pub finding: Option<Difference>,
    /// How often each rule was needed.
    pub rules: BTreeMap<&'static str, usize>,
    /// Operations that were compared.
    pub compared: usize,
}

/// Compares what our store did with what a stock one did.
pub fn compare(peer: Kind, ops: &[Op], ours: &[Observation], theirs: &[Observation]) -> Verdict {
    let mut verdict = Verdict::default();
    // Transactions that differ; their numbers are not used again within a connection.
    let mut tainted = Vec::<(Client, TxRef)>::new();
    for at in 0..ours.len().min(theirs.len()) {
        let op = ops.get(at);
        let (ours, theirs) = (settled(peer, op, &ours[at]), settled(peer, op, &theirs[at]));
        verdict.compared = at + 1;
        let place = op.map(|op| (op.client, op.tx));
        if let Some(op) = op.filter(|op| tainted.contains(&(op.client, op.tx))) {
            let refused = |observation: &Observation| matches!(observation.outcome, Outcome::Err(_));
            if op.kind() != T::TRANSACTION_END || refused(&ours) && refused(&theirs) {
                continue;
            }
            if op.payload() == b"T\0" {
                return verdict;
            }
        }
        if ours == theirs {
            continue;
        }
        let case = Case { peer, op, before: &ops[..at.min(ops.len())], ours: &ours, theirs: &theirs };
        match rules::explain(&case) {
            Some(rule) => {
                *verdict.rules.entry(rule.name).or_default() += 1;
                match rule.consequence(&case) {
                    Then::GoOn | Then::IfRefused => {}
                    Then::Taint => tainted.extend(place),
                    Then::Stop => return verdict,
                }
            }
            None => {
                verdict.finding = Some(Difference { peer, at, op: op.cloned(), ours, theirs });
                return verdict;
            }
        }
    }
    verdict
}

/// An observation without what is nobody's business: numbers that the daemon chooses, and orders that nothing defines.
fn settled(peer: Kind, op: Option<&Op>, observation: &Observation) -> Observation {
    let mut observation = observation.clone();
    let Some(op) = op else { return observation };
    if let Outcome::Ok(payload) = &mut observation.outcome {
        match op.kind() {
            T::TRANSACTION_START => payload.clear(),
            // The generation, of which only change counts.
            T::DIRECTORY_PART => {
                drop(payload.drain(..payload.iter().position(|byte| *byte == 0).unwrap_or(0)))
            }
            // oxenstored keeps no order.
            T::DIRECTORY if peer == Kind::Oxenstored => *payload = sorted_names(payload),
            _ => {}
        }
    }
    if several_changes(op) || peer == Kind::Oxenstored {
        observation.events.values_mut().for_each(|events| events.sort_unstable());
    }
    observation
}

/// The order of events of one change of one node is that of the watches; the order of changes that one operation makes
/// is nowhere defined.
fn several_changes(op: &Op) -> bool {
    matches!(op.kind(), T::TRANSACTION_END | T::RM | T::RELEASE) || matches!(op.what, What::Domain(..))
}

fn sorted_names(payload: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = payload.split_inclusive(|byte| *byte == 0).collect();
    names.sort_unstable();
    names.concat()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.peer.name();
        match &self.op {
            Some(op) => writeln!(f, "operation {}: {op}", self.at)?,
            None => writeln!(f, "the tree at the end")?,
        }
        if self.ours.outcome != self.theirs.outcome {
            match (&self.op, &self.ours.outcome, &self.theirs.outcome) {
                (None, Outcome::Ok(ours), Outcome::Ok(theirs)) => diff(f, name, ours, theirs)?,
                (_, ours, theirs) => {
                    writeln!(f, "  xs_uk:      {}\n  {name:<11} {}", Shown(ours), Shown(theirs))?;
                }
            }
        }
        let clients = Client::ALL.into_iter();
        for client in clients.filter(|client| self.ours.events.get(client) != self.theirs.events.get(client))
        {
            let events = |observation: &Observation| -> Vec<Event> {
                observation.events.get(&client).cloned().unwrap_or_default()
            };
            writeln!(f, "  events of {client:?}")?;
            writeln!(f, "  xs_uk:      {:?}\n  {name:<11} {:?}", events(&self.ours), events(&self.theirs))?;
        }
        Ok(())
    }
}

fn diff(f: &mut fmt::Formatter<'_>, name: &str, ours: &[u8], theirs: &[u8]) -> fmt::Result {
    let (ours, theirs) = (String::from_utf8_lossy(ours), String::from_utf8_lossy(theirs));
    for line in ours.lines().filter(|line| !theirs.lines().any(|other| other == *line)) {
        writeln!(f, "  xs_uk:      {line}")?;
    }
    for line in theirs.lines().filter(|line| !ours.lines().any(|other| other == *line)) {
        writeln!(f, "  {name:<11} {line}")?;
    }
    Ok(())
}

struct Shown<'a>(&'a Outcome);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Ok(payload) => {
                let shown = &payload[..payload.len().min(400)];
                write!(f, "{} bytes: {}", payload.len(), shown.escape_ascii())
            }
            other => write!(f, "{other:?}"),
        }
    }
}
