//! Whether there is an order of the operations, each somewhere between its call and its return, in which one store
//! would have given just these replies (Herlihy and Wing 1990; the search is Wing and Gong's with Lowe's cache of
//! configurations that were seen, "Testing for linearizability", 2017).
//!
//! Linearizability is local: a history is linearizable if the operations on each object are. Objects are here groups of
//! paths: those that operations name together, and those that one contains the other of.

use std::collections::{BTreeMap, HashSet};

use crate::history::{History, Operation};
use crate::limits::CONFIGURATIONS_MAX;
use crate::xenstore::{Nodes, Step};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    NotLinearizable(Box<Finding>),
    /// More configurations than the bound would have to be looked at.
    Undecided {
        /// Of how many operations.
        operations: usize,
    },
}

/// Where the search came to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The longest order that fits.
    pub longest: Vec<Operation>,
    /// Operations that were possible next, none of which gave its reply.
    pub stuck: Vec<Operation>,
}

/// Checks a history that begins with an empty store.
pub fn check(history: &History) -> Verdict {
    check_bounded(history, CONFIGURATIONS_MAX)
}

/// As [`check`], with a bound of one's own on the configurations for each group of paths.
pub fn check_bounded(history: &History, configurations_max: usize) -> Verdict {
    let mut verdict = Verdict::Linearizable;
    for group in groups(history) {
        match Search::new(group).run(configurations_max) {
            Verdict::Linearizable => {}
            finding @ Verdict::NotLinearizable(_) => return finding,
            undecided => verdict = undecided,
        }
    }
    verdict
}

/// The operations of each group of paths that have nothing to do with each other.
fn groups(history: &History) -> Vec<Vec<&Operation>> {
    let mut groups = Groups::default();
    for operation in &history.operations {
        let objects = operation.request.0.iter().map(|step| groups.number(&object(step))).collect::<Vec<_>>();
        objects.windows(2).for_each(|pair| groups.unite(pair[0], pair[1]));
    }
    let mut found: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        // One whose outcome nobody knows, and which changes nothing, says nothing.
        let matters = operation.outcome.is_some() || operation.request.0.iter().any(Step::is_change);
        if let Some(step) = operation.request.0.first().filter(|_| matters) {
            let number = groups.number(&object(step));
            found.entry(groups.root(number)).or_default().push(operation);
        }
    }
    found.into_values().collect()
}

/// The first two names of a path: nodes with different ones never contain each other. What is above is one object
/// with all below it, so histories should leave it alone.
fn object(step: &Step) -> String {
    step.path().split('/').take(3).collect::<Vec<_>>().join("/")
}

#[derive(Default)]
struct Groups {
    numbers: BTreeMap<String, usize>,
    parents: Vec<usize>,
}

impl Groups {
    fn number(&mut self, object: &str) -> usize {
        let next = self.parents.len();
        let number = *self.numbers.entry(object.to_owned()).or_insert(next);
        if number == next {
            self.parents.push(next);
            // An object above others is one with them.
            let below = format!("{object}/");
            let kin: Vec<usize> = self
                .numbers
                .iter()
                .filter(|(other, _)| other.starts_with(&below) || object.starts_with(&format!("{other}/")))
                .map(|(_, number)| *number)
                .collect();
            kin.into_iter().for_each(|other| self.unite(number, other));
        }
        number
    }

    fn root(&self, mut number: usize) -> usize {
        while self.parents[number] != number {
            number = self.parents[number];
        }
        number
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }
}

/// Which operations are done.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn with(&self, i: usize) -> Self {
        let mut with = self.clone();
        with.0[i / 64] |= 1 << (i % 64);
        with
    }
}

/// A configuration on the way to it, and what may come next.
struct Frame {
    done: Done,
    nodes: Nodes,
    next: Vec<usize>,
    came_by: Option<usize>,
}

struct Search<'a> {
    /// By the time of their calls.
    operations: Vec<&'a Operation>,
    answered: usize,
    seen: HashSet<(Done, Nodes)>,
    longest: Vec<usize>,
    stuck: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(mut operations: Vec<&'a Operation>) -> Self {
        operations.sort_by_key(|operation| operation.called);
        let answered = operations.iter().filter(|operation| operation.outcome.is_some()).count();
        Self { operations, answered, seen: HashSet::new(), longest: Vec::new(), stuck: Vec::new() }
    }

    fn run(mut self, configurations_max: usize) -> Verdict {
        let done = Done(vec![0; self.operations.len().div_ceil(64)]);
        let next = self.possible(&done);
        let mut stack = vec![Frame { done, nodes: Nodes::default(), next, came_by: None }];
        while let Some(frame) = stack.last_mut() {
            if self.seen.len() > configurations_max {
                return Verdict::Undecided { operations: self.operations.len() };
            }
            let Some(i) = frame.next.pop() else {
                stack.pop();
                continue;
            };
            let Some(nodes) = self.step(&frame.nodes, i) else { continue };
            let done = frame.done.with(i);
            if !self.seen.insert((done.clone(), nodes.clone())) {
                continue;
            }
            if self.is_complete(&done) {
                return Verdict::Linearizable;
            }
            let next = self.possible(&done);
            stack.push(Frame { done, nodes, next, came_by: Some(i) });
            self.note_longest(&stack);
        }
        if self.answered == 0 {
            return Verdict::Linearizable;
        }
        let told = |numbers: &[usize]| numbers.iter().map(|i| self.operations[*i].clone()).collect();
        Verdict::NotLinearizable(Box::new(Finding { longest: told(&self.longest), stuck: told(&self.stuck) }))
    }

    /// What may be next: called before the first return of all that are not done. The last called comes first, so that
    /// the search, which takes from the end, goes by the order of the calls.
    fn possible(&self, done: &Done) -> Vec<usize> {
        let mut first_return = u64::MAX;
        let mut possible = Vec::new();
        for (i, operation) in self.operations.iter().enumerate().filter(|(i, _)| !done.has(*i)) {
            if operation.called > first_return {
                break;
            }
            first_return = first_return.min(operation.returned.unwrap_or(u64::MAX));
            possible.push(i);
        }
        // What nobody had an answer to is tried last: most of it had no effect.
        possible.sort_by_key(|i| std::cmp::Reverse((self.operations[*i].outcome.is_none(), *i)));
        possible
    }

    /// The state after an operation, if that gives its reply.
    fn step(&self, nodes: &Nodes, i: usize) -> Option<Nodes> {
        let mut after = nodes.clone();
        let outcome = after.apply(&self.operations[i].request);
        let fits = self.operations[i].outcome.as_ref().is_none_or(|told| *told == outcome);
        fits.then_some(after)
    }

    fn is_complete(&self, done: &Done) -> bool {
        let mut all = self.operations.iter().enumerate();
        all.all(|(i, operation)| operation.outcome.is_none() || done.has(i))
    }

    fn note_longest(&mut self, stack: &[Frame]) {
        if stack.len() > self.longest.len() + 1 || self.longest.is_empty() {
            self.longest = stack.iter().filter_map(|frame| frame.came_by).collect();
            self.stuck = stack.last().map(|frame| frame.next.clone()).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
