//! What replicas know of each other's states: roots after each entry, and copies of single nodes.
//!
//! ```text
//!   each replica, after entry i:  root noted ---> compared when more have noted i ---> more than half agree, one does not:
//!                                                                                      that one is told of, and ends
//!   the leader, at a damaged node: asks ---> the others answer with verified copies ---> a majority: mended
//!                                                                                       none: the request is refused
//! ```

use std::time::Instant;

use sanity::Digest;
use sanity::plan::{Harm, Moment, Repair, repair};
use sanity::vote::{self, Claim, Value, Verdict};
use xs_shm::{Consult, Roots};
use xs_store::{Damage, NodeCopy, Store};

use crate::limits::{CONSULT_PAUSE, CONSULT_WAIT, MISTRUST_AGAIN};

/// A replica's seat among the others.
pub struct Court {
    roots: Roots,
    consult: Consult,
    me: u32,
    replicas: u32,
    /// The question that was answered last.
    answered: u64,
    /// Replicas that were told of, and when: what is told may meet a warden that dies, or a full link.
    told: Vec<(u32, Instant)>,
}

/// What became of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mended {
    /// The node is right again: look again.
    Yes,
    /// Nobody knows what is right.
    NoMajority,
    /// It cannot be put right in place.
    EndReplica,
}

impl Court {
    /// Takes the seat of replica `me` of `replicas`, with nothing noted.
    pub fn new(roots: Roots, consult: Consult, me: u32, replicas: u32) -> Self {
        roots.clear(me);
        Self { roots, consult, me, replicas, answered: 0, told: Vec::new() }
    }

    /// Notes the root after entry `index`.
    pub fn note(&self, index: u64, root: &Digest) {
        self.roots.note(self.me, index, &root.0);
    }

    /// Replicas whose root after entry `index` is out-voted, each once in a while. Empty while too few have noted it.
    pub fn out_voted(&mut self, index: u64) -> Vec<u32> {
        let bad = self.wrong(index);
        // One that was told of and is well again may be told of again.
        self.told.retain(|(replica, at)| bad.contains(replica) && at.elapsed() < MISTRUST_AGAIN);
        let known = |replica: &u32| self.told.iter().any(|(told, _)| told == replica);
        let due: Vec<u32> = bad.into_iter().filter(|replica| !known(replica)).collect();
        self.told.extend(due.iter().map(|replica| (*replica, Instant::now())));
        due
    }

    /// Whether this replica is out-voted itself.
    pub fn is_out_voted(&self, index: u64) -> bool {
        self.wrong(index).contains(&self.me)
    }

    fn wrong(&self, index: u64) -> Vec<u32> {
        let noted: Vec<Option<Digest>> =
            (0..self.replicas).map(|replica| self.roots.at(replica, index).map(Digest)).collect();
        let Verdict::Majority { bad, .. } = vote::roots(&noted) else { return Vec::new() };
        bad.into_iter().filter_map(|replica| u32::try_from(replica).ok()).collect()
    }

    /// Whether replicas differ at `index` and it is not known yet who is right.
    pub fn is_disputed(&self, index: u64) -> bool {
        let mut noted = (0..self.replicas).filter_map(|replica| self.roots.at(replica, index));
        let first = noted.next();
        noted.any(|root| Some(root) != first)
    }

    /// Whether the leader has asked something that is not answered yet.
    pub fn is_asked(&self) -> bool {
        self.consult.question(self.answered).is_some()
    }

    /// Answers the leader's question, once the state is far enough.
    pub fn answer(&mut self, store: &Store) {
        let Some(question) = self.consult.question(self.answered) else { return };
        if question.entry > store.applied_index() {
            return;
        }
        // A replica of an asynchronous engine may be further than the one who asks. If the node has changed since, the copies
        // do not fit the asker's sums and nothing is mended with them.
        let Ok(path) = std::str::from_utf8(&question.text) else { return };
        let copy = store.copy_of(path).encode();
        if self.consult.answer(self.me, question.number, &copy) {
            self.answered = question.number;
        }
    }

    /// Asks the others for the node, and puts it right if a majority knows how. `kick` wakes the others.
    pub fn mend(&self, store: &mut Store, damage: &Damage, kick: impl Fn()) -> Mended {
        let claims = store.claims(&damage.path);
        let entry = store.applied_index();
        let Some(number) = self.consult.ask(entry, damage.path.as_bytes()) else { return Mended::NoMajority };
        kick();
        let began = Instant::now();
        loop {
            let copies = self.copies(number);
            let others: Vec<Claim> =
                copies.iter().map(|copy| copy.as_ref().map_or(Claim::Silent, NodeCopy::claim)).collect();
            let verdict = vote::node(claims, &others);
            let complete = copies.iter().all(Option::is_some) || began.elapsed() >= CONSULT_WAIT;
            if verdict != Verdict::NoMajority || complete {
                return self.carry_out(store, damage, &verdict, &copies);
            }
            std::thread::sleep(CONSULT_PAUSE);
        }
    }

    fn carry_out(
        &self,
        store: &mut Store,
        damage: &Damage,
        verdict: &Verdict,
        copies: &[Option<NodeCopy>],
    ) -> Mended {
        match repair(verdict, damage.part.harm(), Moment::Looking) {
            Repair::Refuse if damage.part.harm() == Harm::Content => Mended::NoMajority,
            Repair::MendNode => {
                let right = |copy: &&NodeCopy| {
                    matches!(verdict, Verdict::Majority { value: Value::Digest(digest), .. }
                        if copy.claim() == Claim::Digest(*digest))
                };
                let copy = copies.iter().flatten().find(right);
                match copy.map(|copy| store.mend(&damage.path, copy)) {
                    Some(Ok(())) => Mended::Yes,
                    _ => Mended::EndReplica,
                }
            }
            Repair::Nothing => Mended::Yes,
            Repair::EndReplica | Repair::Refuse => Mended::EndReplica,
        }
    }

    /// The others' copies; none of those that have not answered, or whose answer cannot be read.
    fn copies(&self, number: u64) -> Vec<Option<NodeCopy>> {
        (0..self.replicas)
            .filter(|replica| *replica != self.me)
            .map(|replica| self.consult.answer_of(replica, number))
            .map(|bytes| bytes.and_then(|bytes| NodeCopy::decode(&bytes).ok()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use xs_shm::Region;
    use xs_shm::limits::{CONSULT_BYTES, ROOTS_BYTES};

    use super::*;

    const RIGHT: Digest = Digest([1; 32]);
    const WRONG: Digest = Digest([2; 32]);

    fn memory(bytes: usize) -> OwnedFd {
        Region::create("test", bytes).unwrap().as_fd().try_clone_to_owned().unwrap()
    }

    fn court() -> Court {
        let roots = Roots::open(memory(ROOTS_BYTES)).unwrap();
        Court::new(roots, Consult::open(memory(CONSULT_BYTES)).unwrap(), 0, 3)
    }

    fn note(court: &Court, index: u64, roots: [Digest; 3]) {
        for (replica, root) in (0..).zip(roots) {
            court.roots.note(replica, index, &root.0);
        }
    }

    /// The warden that was told may have died over it.
    #[test]
    fn who_is_found_wrong_is_told_of_again_and_again() {
        let mut court = court();
        note(&court, 1, [RIGHT, RIGHT, WRONG]);
        for _ in 0..2 {
            assert_eq!(court.out_voted(1), [2]);
            let told = Instant::now();
            let mut again = court.out_voted(1);
            while again.is_empty() {
                assert!(told.elapsed() < 10 * MISTRUST_AGAIN, "never again");
                std::thread::sleep(MISTRUST_AGAIN / 10);
                again = court.out_voted(1);
            }
            assert_eq!(again, [2]);
            assert!(told.elapsed() >= MISTRUST_AGAIN * 9 / 10, "not at each look: {:?}", told.elapsed());
            court.told.clear();
        }
    }

    #[test]
    fn who_was_well_in_between_is_told_of_at_once() {
        let mut court = court();
        note(&court, 1, [RIGHT, RIGHT, WRONG]);
        note(&court, 2, [RIGHT; 3]);
        assert_eq!((court.out_voted(1), court.out_voted(2), court.out_voted(1)), (vec![2], vec![], vec![2]));
        assert!(!court.is_out_voted(1) && !court.is_disputed(2) && court.is_disputed(1));
        note(&court, 3, [WRONG, RIGHT, RIGHT]);
        assert!(court.is_out_voted(3));
    }
}
