//! What chance does to the world from outside, once a millisecond.

use sim_etcd::Cluster;
use turmoil::Sim;
use warden::ids::ServiceId;

use crate::kernel::Kernel;
use crate::world::host;

/// What is wrong with an etcd member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Down,
    Paused,
    CutOff,
    Slow,
}

/// Members in trouble.
#[derive(Default)]
pub struct Troubles {
    members: Vec<(usize, Trouble, u64)>,
}

/// Deaths, stops and flips of this millisecond.
pub fn strike(kernel: &mut Kernel) {
    let faults = kernel.options.faults.clone();
    if kernel.crashes < faults.crashes_max && kernel.strikes(faults.crash_ppm) {
        let victim = any_service(kernel);
        kernel.crashes += 1;
        kernel.kill(victim);
    }
    if kernel.strikes(faults.pause_ppm) {
        let (victim, for_ms) = (any_service(kernel), kernel.rng.u64(1..=faults.pause_ms_max));
        kernel.pause(victim, for_ms);
    }
    if kernel.strikes(faults.flip_ppm) {
        kernel.flip_log_bit();
    }
}

fn any_service(kernel: &mut Kernel) -> ServiceId {
    match kernel.rng.u32(0..=kernel.options.replicas) {
        0 => ServiceId::Gateway,
        number => ServiceId::Replica(number - 1),
    }
}

impl Troubles {
    /// Troubles of etcd's members that begin or end in this millisecond.
    pub fn strike(&mut self, kernel: &mut Kernel, sim: &mut Sim<'_>) {
        let Some(cluster) = kernel.cluster.clone() else { return };
        let faults = kernel.options.faults.clone();
        if kernel.strikes(faults.member_ppm) {
            let member = kernel.rng.usize(0..kernel.options.members);
            let trouble =
                [Trouble::Down, Trouble::Paused, Trouble::CutOff, Trouble::Slow][kernel.rng.usize(0..4)];
            let until = kernel.now_ms + kernel.rng.u64(1..=faults.member_ms_max);
            if self.members.iter().all(|(troubled, _, _)| *troubled != member) {
                kernel.note(format_args!("etcd {member}"), format_args!("{trouble:?} until {until}"));
                begin(kernel, sim, &cluster, member, trouble);
                self.members.push((member, trouble, until));
            }
        }
        let (now_ms, faulty) = (kernel.now_ms, kernel.faulty);
        self.members.retain(|(member, trouble, until)| {
            let over = *until <= now_ms || !faulty;
            if over {
                kernel.note(format_args!("etcd {member}"), "is well again");
                end(kernel, sim, &cluster, *member, *trouble);
            }
            !over
        });
    }
}

fn begin(kernel: &Kernel, sim: &mut Sim<'_>, cluster: &Cluster, member: usize, trouble: Trouble) {
    match trouble {
        Trouble::Down => {
            cluster.set_up(member, false);
            sim.crash(member_host(member));
        }
        Trouble::Paused => {
            cluster.set_paused(member, true);
            for other in peers(kernel) {
                sim.hold(member_host(member), other);
            }
        }
        Trouble::CutOff => {
            set_links(kernel, cluster, member, false);
            for other in peers(kernel) {
                sim.partition(member_host(member), other);
            }
        }
        Trouble::Slow => cluster.set_slow(member, true),
    }
}

fn end(kernel: &Kernel, sim: &mut Sim<'_>, cluster: &Cluster, member: usize, trouble: Trouble) {
    match trouble {
        Trouble::Down => {
            cluster.set_up(member, true);
            sim.bounce(member_host(member));
        }
        Trouble::Paused => {
            cluster.set_paused(member, false);
            for other in peers(kernel) {
                sim.release(member_host(member), other);
            }
        }
        Trouble::CutOff => {
            set_links(kernel, cluster, member, true);
            for other in peers(kernel) {
                sim.repair(member_host(member), other);
            }
        }
        Trouble::Slow => cluster.set_slow(member, false),
    }
}

/// Replicas; members have no connections among themselves in this world, see [`sim_etcd::Cluster`].
fn peers(kernel: &Kernel) -> Vec<String> {
    (0..kernel.options.replicas).map(|number| host(ServiceId::Replica(number))).collect()
}

fn set_links(kernel: &Kernel, cluster: &Cluster, member: usize, up: bool) {
    for other in (0..kernel.options.members).filter(|other| *other != member) {
        cluster.set_link(member, other, up);
    }
}

/// The name of a member's host.
pub fn member_host(member: usize) -> String {
    format!("etcd-{member}")
}
