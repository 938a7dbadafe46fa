//! A simulated process: it may be stopped or die at each of its commit points.

use std::time::Duration;

use warden::ids::ServiceId;

use crate::kernel::{Kernel, Shared};
use crate::limits::TICK_MS;

/// Why a process does not go on.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// It was killed.
    #[error("killed")]
    Killed,
    /// It ends by itself.
    #[error("{0}")]
    Failed(String),
}

/// What a process knows of itself and the world.
#[derive(Clone)]
pub struct Env {
    /// The world.
    pub shared: Shared,
    /// Which service it is.
    pub id: ServiceId,
    /// Which start of it.
    pub incarnation: u64,
}

impl Env {
    /// The process that the system has started under this name, if it has.
    pub fn begin(shared: &Shared, id: ServiceId) -> Option<Self> {
        let incarnation = shared.borrow().procs.get(&id).filter(|proc| proc.alive)?.incarnation;
        Some(Self { shared: shared.clone(), id, incarnation })
    }

    /// The replica's number.
    pub fn replica(&self) -> u32 {
        self.id.number()
    }

    /// Between two steps: the process may be stopped or killed here.
    ///
    /// # Errors
    /// [`End::Killed`].
    pub async fn point(&self, name: &'static str) -> Result<(), End> {
        self.strike(name)?;
        while self.is_paused()? {
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
        }
        Ok(())
    }

    /// Until the next tick.
    ///
    /// # Errors
    /// [`End::Killed`].
    pub async fn rest(&self) -> Result<(), End> {
        tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
        self.point("rest").await
    }

    /// Does something with the world.
    pub fn with<T>(&self, act: impl FnOnce(&mut Kernel) -> T) -> T {
        act(&mut self.shared.borrow_mut())
    }

    fn strike(&self, name: &'static str) -> Result<(), End> {
        self.with(|kernel| {
            if !kernel.is_current(self.id, self.incarnation) {
                return Err(End::Killed);
            }
            if name == "rest" {
                return Ok(());
            }
            kernel.note(self.id, name);
            let faults = &kernel.options.faults;
            let (crash, pause, most) =
                (faults.crash_at_point_ppm, faults.pause_at_point_ppm, faults.pause_ms_max);
            if kernel.crashes < kernel.options.faults.crashes_max && kernel.strikes(crash) {
                kernel.crashes += 1;
                kernel.note(self.id, format_args!("dies at {name}"));
                kernel.kill(self.id);
                return Err(End::Killed);
            }
            if kernel.strikes(pause) {
                let for_ms = kernel.rng.u64(1..=most);
                kernel.pause(self.id, for_ms);
            }
            Ok(())
        })
    }

    fn is_paused(&self) -> Result<bool, End> {
        let kernel = self.shared.borrow();
        if !kernel.is_current(self.id, self.incarnation) {
            return Err(End::Killed);
        }
        Ok(kernel.procs[&self.id].paused_until_ms.is_some())
    }
}
