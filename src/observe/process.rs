//! What the kernel knows of this process: CPU, memory, descriptors, threads. Read when someone scrapes.
//!
//! Everything comes from `/proc/self`; what cannot be read there is left out of the exposition rather than told as 0. Threads are added up by
//! name, of which there is a fixed number: what is not one of ours is `other`.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// One moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all threads, seconds.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Descriptors that are open.
    pub open_fds: Option<u64>,
    /// How many may be; `None`: as many as one likes.
    pub max_fds: Option<u64>,
    /// CPU time by thread, seconds, in order of the names.
    pub threads: Vec<(String, f64)>,
}

/// Names of threads that are told apart, beside `worker-N`.
const THREADS: [&str; 6] = ["control", "audit", "children", "store", "store-read", "ringwall"];

/// Looks now.
#[must_use]
pub fn usage() -> Usage {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = pages.split(' ').map_while(|field| field.parse::<u64>().ok());
    let page_bytes = rustix::param::page_size() as u64;
    // The first is virtual memory, of which the allocator reserves as it likes.
    let resident_pages = pages.nth(1);
    Usage {
        cpu_s: seconds(u64::try_from(cpu.tv_sec).unwrap_or(0), u64::try_from(cpu.tv_nsec).unwrap_or(0)),
        resident_bytes: resident_pages.map(|pages| pages * page_bytes),
        // The one that lists them is not counted.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
        max_fds: getrlimit(Resource::Nofile).current,
        threads: threads(),
    }
}

fn threads() -> Vec<(String, f64)> {
    let mut by_name = std::collections::BTreeMap::<String, u64>::new();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    for task in tasks.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        // A thread that has ended meanwhile.
        let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        let on_cpu_ns = stat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        *by_name.entry(known(name.trim_end()).to_owned()).or_default() += on_cpu_ns;
    }
    by_name.into_iter().map(|(name, ns)| (name, seconds(0, ns))).collect()
}

fn known(name: &str) -> &str {
    let number = name.strip_prefix("worker-").unwrap_or_default();
    let is_worker = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_worker || THREADS.contains(&name) { name } else { "other" }
}

#[allow(clippy::cast_precision_loss)] // seconds for people: 53 bits are plenty
fn seconds(s: u64, ns: u64) -> f64 {
    s as f64 + ns as f64 / 1e9
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let before = usage();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let held = vec![1u8; 64 << 20];
        let after = usage();
        assert!(after.cpu_s > before.cpu_s);
        assert!(after.open_fds.unwrap() > 2);
        assert!(after.resident_bytes.unwrap() > 64 << 20);
        assert!(after.threads.iter().any(|(name, cpu_s)| name == "other" && *cpu_s > 0.0));
        drop((file, held));
    }

    #[test]
    fn only_names_of_ours_are_told() {
        let cases = [("worker-0", "worker-0"), ("worker-12", "worker-12"), ("audit", "audit")];
        for (name, told) in
            cases.into_iter().chain(["worker-", "worker-x", "tokio-rt-worker", ""].map(|n| (n, "other")))
        {
            assert_eq!(known(name), told);
        }
    }
}
