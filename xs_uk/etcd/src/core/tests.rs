//! The core against a model of etcd, with an unkind network.
//!
//! Goal: whatever happens to calls (lost before or after they took effect, late, done twice, long after their caller
//! gave up), no entry is lost, doubled or reordered, and once the network is kind again everything goes on. Method:
//! several cores share one model; a random script appends, promotes, snapshots, and delivers or spoils calls.

mod etcd;
mod world;

use proptest::prelude::*;
use world::{Fault, Step, World};

fn step() -> impl Strategy<Value = Step> {
    let engine = 0_usize..3;
    let fault = prop_oneof![
        8 => Just(Fault::None),
        2 => Just(Fault::LostBefore),
        2 => Just(Fault::LostAfter),
        1 => Just(Fault::Twice),
        2 => Just(Fault::Held),
        2 => (1_usize..12).prop_map(Fault::Stale),
        1 => Just(Fault::NoSpace),
    ];
    prop_oneof![
        12 => (engine.clone(), 1_usize..5).prop_map(|(engine, count)| Step::Append { engine, count }),
        2 => engine.clone().prop_map(|engine| Step::Lead { engine }),
        40 => (any::<prop::sample::Index>(), fault).prop_map(|(call, fault)| Step::Deliver { call, fault }),
        6 => engine.clone().prop_map(|engine| Step::Read { engine }),
        3 => engine.clone().prop_map(|engine| Step::Save { engine }),
        3 => any::<prop::sample::Index>().prop_map(|held| Step::LetGo { held }),
        2 => engine.clone().prop_map(|engine| Step::EndWatch { engine }),
        2 => (engine, any::<bool>()).prop_map(|(engine, load)| Step::Restart { engine, load }),
        6 => (1_u64..700).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new(3);
        for step in &steps {
            world.step(step);
        }
        world.heal_and_check();
    }
}
