//! What a record of a run has to say of the machine.

/// Its kernel, the cores that this process may use, and how many tasks have wanted cores of late.
pub(crate) fn describe() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the number names a build.
    let release = release.trim().split('-').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    format!("Linux {release}, {cores} cores, load average {}", load())
}

/// Tasks that wanted a core within the last minute, on average.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}
