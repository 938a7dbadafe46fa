//! The warden: the real planner, told and obeyed by the simulated system.

use std::time::Duration;

use warden::event::{Cause, SIGKILL};
use warden::ids::{ServiceId, TimeUs};
use warden::planner::{Action, Input, Planner};

use crate::kernel::{Chore, Kernel, Order, Shared};
use crate::limits::TICK_MS;
use crate::options::Mutant;

/// Snapshots that are kept.
const SNAPSHOTS_KEPT: usize = 2;

/// Runs for ever. It does not die in this world.
pub async fn run(shared: Shared) -> turmoil::Result {
    let replicas = shared.borrow().options.replicas;
    let mut planner = Planner::new(replicas, TimeUs(0));
    loop {
        let mut input = Some(Input::Tick);
        while let Some(told) = input {
            let now = TimeUs(shared.borrow().now_ms * 1000);
            for action in planner.step(now, told) {
                execute(&mut shared.borrow_mut(), &action);
            }
            input = shared.borrow_mut().inputs.pop_front();
        }
        tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
    }
}

fn execute(kernel: &mut Kernel, action: &Action) {
    match action {
        Action::Emit(_) => {}
        action => kernel.note("warden", format_args!("{action:?}")),
    }
    match *action {
        Action::Spawn { service, incarnation } => {
            let proc = kernel.procs.entry(service).or_default();
            (proc.incarnation, proc.alive, proc.paused_until_ms) = (incarnation, true, None);
            let pid = u32::try_from(incarnation).unwrap_or(u32::MAX);
            kernel.inputs.push_back(Input::Spawned { service, incarnation, pid });
        }
        Action::Begin { service, .. } => kernel.chores.push(Chore::Start(service)),
        Action::Lead { replica, incarnation, epoch } => {
            order(kernel, replica, incarnation, Order::Lead(epoch))
        }
        Action::AskSnapshot { replica } => to_present(kernel, replica, Order::TakeSnapshot),
        Action::KeepSnapshot { .. } => {
            if let Some(taken) = kernel.taken.take() {
                kernel.facts.snapshots += 1;
                kernel.snapshots.insert(0, taken);
                kernel.snapshots.truncate(SNAPSHOTS_KEPT);
            }
        }
        Action::TellSnapshotKept { replica } => {
            if let Some(oldest) = kernel.snapshots.last() {
                let cursor = oldest.cursor;
                to_present(kernel, replica, Order::Release(cursor));
            }
        }
        Action::Kill { service, incarnation } if kernel.is_current(service, incarnation) => {
            if kernel.options.mutant == Some(Mutant::NoFence) {
                let cause = Cause::Signalled(SIGKILL);
                kernel.inputs.push_back(Input::Died { service, incarnation, cause });
            } else {
                kernel.kill(service);
            }
        }
        Action::Finished { failed } => {
            kernel.facts.failures.push(format!("the warden gives up {failed:?}"));
        }
        _ => {}
    }
}

fn to_present(kernel: &mut Kernel, replica: u32, what: Order) {
    let incarnation = kernel.procs.get(&ServiceId::Replica(replica)).map_or(0, |proc| proc.incarnation);
    order(kernel, replica, incarnation, what);
}

fn order(kernel: &mut Kernel, replica: u32, incarnation: u64, what: Order) {
    kernel.orders.entry(replica).or_default().push_back((incarnation, what));
}
