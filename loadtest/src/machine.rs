//! What a record of a run has to say of the machine.

/// Its kernel, the cores that this process may use, and how many tasks have wanted cores of late.
pub(crate) fn describe() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the number names a build.
    let release = release.trim().split('-').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    format!("Linux {release}, {cores} cores, load average {}", load())
}

/// What a program says of its version: the first number with dots in what it prints for `flag`.
pub(crate) fn version(program: &std::path::Path, flag: &str) -> String {
    let said = std::process::Command::new(program).arg(flag).output();
    let said = said.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    version_in(&String::from_utf8_lossy(&said)).unwrap_or_else(|| "of unknown version".to_owned())
}

fn version_in(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let mut numbers = words.map(|word| word.split(['-', '+', ',']).next().unwrap_or(word));
    let is_number = |word: &str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    numbers.find(|word| is_number(word)).map(str::to_owned)
}

/// Tasks that wanted a core within the last minute, on average.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("ringwall 0.1.0", Some("0.1.0")),
            ("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/", Some("2.6.12")),
            ("nginx version: nginx/1.22.1", Some("1.22.1")),
            ("no such option", None),
        ] {
            assert_eq!(version_in(said).as_deref(), version, "{said}");
        }
    }
}
