//! The gateway: holds clients for the next leader. It accepts, reads and writes nothing.

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
        if env.with(|kernel| kernel.hear_heir()) {
            env.point("heir heard").await?;
        }
        env.rest().await?;
    }
}
