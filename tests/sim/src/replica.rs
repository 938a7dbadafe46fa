//! A replica: follows the log until it is told to lead, then serves.
//!
//! It stands for `xs_uk/daemon/src/replica`, step by step, with the same store, engines and slots; only what waits and
//! what moves descriptors is the world's. Where the daemon can be killed between two steps there is a point here.

mod conn;
mod leader;
mod machine;

use warden::planner::Input;
use xs_consensus::{Consensus, Cursor, Loaded};
use xs_store::{Config, Store};

use crate::engine;
use crate::kernel::{Order, Snapshot};
use crate::limits::FOLLOW_BATCH;
use crate::process::{End, Env};
use machine::Machine;

/// Runs until it is killed.
///
/// # Errors
/// [`End`].
pub async fn run(env: &Env) -> Result<(), End> {
    let mut machine = start(env).await?;
    let epoch = follow(env, &mut machine).await?;
    leader::lead(env, machine, epoch).await
}

async fn start(env: &Env) -> Result<Machine, End> {
    env.point("starts").await?;
    let newest = env.with(|kernel| kernel.snapshots.first().cloned());
    let (cursor, store) = match newest {
        Some(Snapshot { cursor, bytes }) => {
            let (_, store) = Store::from_snapshot(&bytes).map_err(|error| End::Failed(error.to_string()))?;
            (cursor, store)
        }
        None => (Cursor::default(), Store::new(Config::default())),
    };
    let mut log = engine::open(env, cursor)?;
    load(env, log.as_mut()).await?;
    let mut machine = Machine::new(env.clone(), log, store);
    while machine.catch_up(FOLLOW_BATCH).await? == FOLLOW_BATCH {}
    let applied = machine.index();
    env.with(|kernel| {
        kernel.inputs.push_back(Input::Ready { service: env.id, incarnation: env.incarnation, applied });
    });
    Ok(machine)
}

/// Engines that keep snapshots have none here: the log of a world is short.
async fn load(env: &Env, log: &mut dyn Consensus) -> Result<(), End> {
    loop {
        match log.load_snapshot().map_err(|error| End::Failed(error.to_string()))? {
            Loaded::Nothing => return Ok(()),
            Loaded::Pending => env.rest().await?,
            Loaded::Snapshot { .. } => return Err(End::Failed("a snapshot that nobody saved".to_owned())),
        }
    }
}

/// Gives the epoch to lead.
async fn follow(env: &Env, machine: &mut Machine) -> Result<u64, End> {
    let table = env.with(|kernel| kernel.map_table()).map_err(|error| End::Failed(error.to_string()))?;
    loop {
        while let Some(order) = take_order(env) {
            match order {
                Order::Lead(epoch) => return Ok(epoch),
                Order::TakeSnapshot => hand_in_snapshot(env, machine)?,
                Order::Release(_) => {}
            }
        }
        machine.catch_up(FOLLOW_BATCH).await?;
        machine.trim_delivered(&table);
        machine.report();
        env.rest().await?;
    }
}

fn take_order(env: &Env) -> Option<Order> {
    env.with(|kernel| {
        let orders = kernel.orders.entry(env.replica()).or_default();
        while let Some((incarnation, order)) = orders.pop_front() {
            if incarnation == env.incarnation {
                return Some(order);
            }
        }
        None
    })
}

fn hand_in_snapshot(env: &Env, machine: &Machine) -> Result<(), End> {
    let cursor = machine.cursor();
    let bytes = machine.store.snapshot(cursor.index.0);
    let bytes = bytes.map_err(|damage| End::Failed(format!("damage: {damage:?}")))?;
    let (index, length_bytes) = (cursor.index.0, bytes.len() as u64);
    env.with(|kernel| {
        kernel.taken = Some(Snapshot { cursor, bytes });
        let (service, incarnation) = (env.id, env.incarnation);
        kernel.inputs.push_back(Input::SnapshotTaken { service, incarnation, index, length_bytes });
    });
    Ok(())
}
