//! What is to be done about damage that was found and voted on.

use crate::vote::{Value, Verdict};

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// What a copy of the node can put right in place: value, permissions, generations, the stored digest.
    Content,
    /// What cannot be put right in place: listings, pointers, sums, and records that are no nodes.
    Structure,
}

/// When it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before anything was changed: by a read, the examination of a request, or the scrubber.
    Looking,
    /// While a log entry was applied: the state may be half changed.
    Applying,
}

/// What a replica does about its own damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Put the node right from the majority's copy, then try again.
    MendNode,
    /// End, to be rebuilt from snapshot and log.
    EndReplica,
    /// Refuse the request: nobody knows what is right.
    Refuse,
    /// This replica is clean: others are bad, or the damage is gone.
    Nothing,
}

/// The repair by a replica that found damage and asked: number 0 of the vote.
pub fn repair(verdict: &Verdict, harm: Harm, moment: Moment) -> Repair {
    if moment == Moment::Applying {
        return Repair::EndReplica;
    }
    match verdict {
        Verdict::NoMajority => Repair::Refuse,
        Verdict::Majority { clean, .. } if harm == Harm::Content && clean.contains(&0) => Repair::Nothing,
        Verdict::Majority { value: Value::Digest(_), .. } if harm == Harm::Content => Repair::MendNode,
        Verdict::Majority { .. } => Repair::EndReplica,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Digest,
        vote::{Claim, Claims, node},
    };

    fn claim(byte: u8) -> Claim {
        Claim::Digest(Digest([byte; 32]))
    }

    #[test]
    fn content_is_mended_structure_is_not() {
        let torn = Claims { stored: claim(1), recomputed: claim(2) };
        let verdict = node(torn, &[claim(1), claim(1)]);
        assert_eq!(repair(&verdict, Harm::Content, Moment::Looking), Repair::MendNode);
        assert_eq!(repair(&verdict, Harm::Structure, Moment::Looking), Repair::EndReplica);
        assert_eq!(repair(&verdict, Harm::Content, Moment::Applying), Repair::EndReplica);
        let missing = node(torn, &[Claim::Missing, Claim::Missing]);
        assert_eq!(repair(&missing, Harm::Content, Moment::Looking), Repair::EndReplica);
        let unsure = node(torn, &[Claim::Damaged, Claim::Silent]);
        assert_eq!(repair(&unsure, Harm::Content, Moment::Looking), Repair::Refuse);
        let clean = node(claim(1).into(), &[claim(1), claim(2)]);
        assert_eq!(repair(&clean, Harm::Content, Moment::Looking), Repair::Nothing);
        // The node itself is clean, but the damage that was found is in what leads to it.
        assert_eq!(repair(&clean, Harm::Structure, Moment::Looking), Repair::EndReplica);
    }

    proptest! {
        #[test]
        fn nothing_is_mended_without_a_clean_majority(
            stored in 0u8..3, recomputed in 0u8..3, others in proptest::collection::vec(0u8..5, 0..4),
        ) {
            let any = |number| match number { 3 => Claim::Damaged, 4 => Claim::Silent, byte => claim(byte) };
            let claims: Vec<Claim> = others.iter().map(|number| any(*number)).collect();
            let verdict = node(Claims { stored: any(stored), recomputed: any(recomputed) }, &claims);
            let plan = repair(&verdict, Harm::Content, Moment::Looking);
            prop_assert_eq!(plan == Repair::Refuse, verdict == Verdict::NoMajority);
            if plan == Repair::MendNode {
                prop_assert!(stored != recomputed || claims.iter().any(|claim| *claim != any(stored)));
                let known = matches!(verdict, Verdict::Majority { value: Value::Digest(_), .. });
                prop_assert!(known);
            }
        }
    }
}
