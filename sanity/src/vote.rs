//! Out-voting: whose copy is right when copies differ.
//!
//! A value is right if more than half of all replicas claim it, those included that say nothing. Nothing is ever
//! guessed: without such a value, or with two, there is no majority.

use crate::{Digest, limits::REPLICAS_MAX};

/// What a replica says of a node, or of its root at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Its digest, which fits what is there.
    Digest(Digest),
    /// There is no such node, and that is sure.
    Missing,
    /// Its own copy does not fit its digest, or it cannot tell.
    Damaged,
    /// It has not answered (yet).
    Silent,
}

impl Claim {
    fn value(self) -> Option<Value> {
        match self {
            Claim::Digest(digest) => Some(Value::Digest(digest)),
            Claim::Missing => Some(Value::Missing),
            Claim::Damaged | Claim::Silent => None,
        }
    }
}

/// The claims of the replica that asks, about its own copy: the digest that is stored with the node, and the one
/// that follows from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// What is stored.
    pub stored: Claim,
    /// What was computed again.
    pub recomputed: Claim,
}

impl From<Claim> for Claims {
    fn from(claim: Claim) -> Claims {
        Claims { stored: claim, recomputed: claim }
    }
}

/// What can be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This digest.
    Digest(Digest),
    /// That there is no such node.
    Missing,
}

/// The outcome of a vote. Replicas are named by their place among the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More than half of the replicas agree.
    Majority {
        /// On this.
        value: Value,
        /// Those that claim it, and nothing else.
        clean: Vec<usize>,
        /// Those that claim something else, or are damaged.
        bad: Vec<usize>,
    },
    /// No value is claimed by more than half, or two are.
    NoMajority,
}

/// Decides about a node. The replica that asks is number 0, the others follow in order.
///
/// # Panics
/// With more than [`REPLICAS_MAX`] replicas.
pub fn node(asker: Claims, others: &[Claim]) -> Verdict {
    let claims: Vec<Claims> =
        std::iter::once(asker).chain(others.iter().map(|claim| Claims::from(*claim))).collect();
    decide(&claims)
}

/// Decides about the roots of all replicas after the same entry.
///
/// # Panics
/// With more than [`REPLICAS_MAX`] replicas.
pub fn roots(roots: &[Option<Digest>]) -> Verdict {
    let claims: Vec<Claims> =
        roots.iter().map(|root| Claims::from(root.map_or(Claim::Silent, Claim::Digest))).collect();
    decide(&claims)
}

fn decide(claims: &[Claims]) -> Verdict {
    assert!(claims.len() <= REPLICAS_MAX, "{} replicas vote", claims.len());
    let mut winner = None;
    for value in claims.iter().flat_map(|claims| [claims.stored.value(), claims.recomputed.value()]) {
        let Some(value) = value else { continue };
        if winner == Some(value) || votes(claims, value) * 2 <= claims.len() {
            continue;
        }
        if winner.is_some() {
            return Verdict::NoMajority;
        }
        winner = Some(value);
    }
    winner.map_or(Verdict::NoMajority, |value| sort(claims, value))
}

/// The replicas that claim a value, if only as one of two.
fn votes(claims: &[Claims], value: Value) -> usize {
    claims
        .iter()
        .filter(|claims| claims.stored.value() == Some(value) || claims.recomputed.value() == Some(value))
        .count()
}

fn sort(claims: &[Claims], value: Value) -> Verdict {
    let (mut clean, mut bad) = (Vec::new(), Vec::new());
    for (replica, claims) in claims.iter().enumerate() {
        let both = [claims.stored, claims.recomputed];
        if both.iter().all(|claim| claim.value() == Some(value)) {
            clean.push(replica);
        } else if both.iter().any(|claim| *claim != Claim::Silent) {
            bad.push(replica);
        }
    }
    Verdict::Majority { value, clean, bad }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(byte: u8) -> Claim {
        Claim::Digest(Digest([byte; 32]))
    }

    fn value(byte: u8) -> Value {
        Value::Digest(Digest([byte; 32]))
    }

    fn majority(byte: u8, clean: &[usize], bad: &[usize]) -> Verdict {
        Verdict::Majority { value: value(byte), clean: clean.to_vec(), bad: bad.to_vec() }
    }

    #[test]
    fn the_askers_two_claims() {
        let torn = Claims { stored: claim(1), recomputed: claim(2) };
        assert_eq!(node(torn, &[claim(1), claim(1)]), majority(1, &[1, 2], &[0]));
        assert_eq!(node(torn, &[claim(2), claim(2)]), majority(2, &[1, 2], &[0]));
        assert_eq!(node(torn, &[claim(1), Claim::Silent]), majority(1, &[1], &[0]));
        assert_eq!(node(torn, &[claim(1), claim(2)]), Verdict::NoMajority, "either could be right");
        assert_eq!(node(torn, &[Claim::Silent, Claim::Silent]), Verdict::NoMajority);
        assert_eq!(node(torn, &[claim(3), claim(4)]), Verdict::NoMajority);
        assert_eq!(node(torn, &[]), Verdict::NoMajority, "alone one cannot tell which is right");
        assert_eq!(node(claim(1).into(), &[]), majority(1, &[0], &[]));
    }

    #[test]
    fn missing_is_a_value() {
        let lost = Claims::from(Claim::Missing);
        assert_eq!(node(lost, &[claim(1), claim(1)]), majority(1, &[1, 2], &[0]));
        let missing = Verdict::Majority { value: Value::Missing, clean: vec![0, 2], bad: vec![1] };
        assert_eq!(node(lost, &[Claim::Damaged, Claim::Missing]), missing);
    }

    #[test]
    #[should_panic(expected = "10 replicas vote")]
    fn replicas_are_bounded() {
        roots(&[None; REPLICAS_MAX + 1]);
    }

    proptest! {
        #[test]
        fn one_corrupted_copy_is_found(replicas in 3usize..=REPLICAS_MAX, at: prop::sample::Index, right: u8, flip in 1u8.., torn: bool) {
            let bad = at.index(replicas);
            let wrong = claim(right ^ flip);
            let of = |replica| if replica == bad { wrong } else { claim(right) };
            let others: Vec<Claim> = (1..replicas).map(of).collect();
            let mut asker = Claims::from(of(0));
            if torn && bad == 0 {
                asker.stored = claim(right);
            }
            let clean: Vec<usize> = (0..replicas).filter(|replica| *replica != bad).collect();
            prop_assert_eq!(node(asker, &others), majority(right, &clean, &[bad]));
        }

        #[test]
        fn two_corrupted_differently_of_three_are_refused(right: u8, one in 1u8..=127, two in 128u8.., order in 0usize..3) {
            let mut claims = [claim(right), claim(right ^ one), claim(right ^ two)];
            claims.rotate_left(order);
            let [first, second, third] = claims;
            prop_assert_eq!(node(first.into(), &[second, third]), Verdict::NoMajority);
        }

        #[test]
        fn who_agrees_with_more_than_half_is_never_blamed(
            stored in 0u8..4, recomputed in 0u8..4, others in proptest::collection::vec(0u8..5, 0..REPLICAS_MAX),
        ) {
            let any = |number| match number { 3 => Claim::Damaged, 4 => Claim::Silent, byte => claim(byte) };
            let asker = Claims { stored: any(stored), recomputed: any(recomputed) };
            let claims: Vec<Claim> = others.iter().map(|number| any(*number)).collect();
            if let Verdict::Majority { value, clean, bad } = node(asker, &claims) {
                let claimed = claims.iter().filter(|claim| claim.value() == Some(value)).count();
                let own = usize::from(asker.stored.value() == Some(value) || asker.recomputed.value() == Some(value));
                prop_assert!((claimed + own) * 2 > claims.len() + 1);
                for replica in bad {
                    prop_assert!(!clean.contains(&replica));
                    prop_assert!(replica == 0 || claims[replica - 1].value() != Some(value));
                }
            }
        }
    }
}
