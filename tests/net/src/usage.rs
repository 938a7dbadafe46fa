//! Processor time, from the scheduler's own accounts.

/// What all threads of a process ran, in nanoseconds. 0 for one that is gone.
pub fn process_cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| run_ns(&task.path().join("schedstat"))).sum()
}

/// What a thread of this process ran, in nanoseconds. 0 for one that is gone.
pub fn thread_cpu_ns(thread: u32) -> u64 {
    run_ns(format!("/proc/self/task/{thread}/schedstat").as_ref()).unwrap_or(0)
}

fn run_ns(path: &std::path::Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_counted_and_what_is_gone_is_not() {
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 20 {
            std::hint::spin_loop();
        }
        assert!(process_cpu_ns(std::process::id()) > 1_000_000);
        assert_eq!(process_cpu_ns(u32::MAX), 0);
        assert_eq!(thread_cpu_ns(u32::MAX), 0);
    }
}
