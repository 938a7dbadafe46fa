//! The gateway: accepts clients and gives each a slot. It reads and writes nothing.

use std::rc::Rc;

use warden::planner::Input;

use crate::process::{End, Env};

/// Runs until it is killed.
///
/// # Errors
/// [`End`].
pub async fn run(env: &Env) -> Result<(), End> {
    env.point("gateway starts").await?;
    env.with(|kernel| {
        kernel.inputs.push_back(Input::Ready { service: env.id, incarnation: env.incarnation, applied: 0 });
    });
    loop {
        while let Some(socket) = env.with(|kernel| kernel.listening.pop_front()) {
            env.with(|kernel| {
                // The table is sized for far more clients than a world has.
                let Some(slot) = kernel.table.allocate_socket() else { return };
                let id = kernel.table.conn_id(slot);
                kernel.held.insert(id, Rc::new(socket));
            });
            env.point("accepted").await?;
        }
        env.rest().await?;
    }
}
