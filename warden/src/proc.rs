//! What `/proc` tells of a process (proc_pid_stat(5)).

/// A process as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its state's letter.
    pub state: char,
    /// When it began, in clock ticks since boot: with the pid it names a process for as long as the machine runs.
    pub start_ticks: u64,
}

impl Stat {
    /// None if there is no such process, or only what is left of one.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in field 2 may hold anything; the state is field 3, the start field 22.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { state, start_ticks })
    }

    /// Whether a signal stopped it.
    pub fn is_stopped(self) -> bool {
        self.state == 'T'
    }
}

/// A text that differs after each start of the machine; empty if it cannot be told.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_a_gone_one() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (own, other) = (Stat::of(std::process::id()).unwrap(), Stat::of(child.id()).unwrap());
        assert!(own.start_ticks <= other.start_ticks && !other.is_stopped());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Stat::of(child.id()), None);
        assert!(!boot_id().is_empty());
    }
}
