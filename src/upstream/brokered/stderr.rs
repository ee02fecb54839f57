//! A child's stderr, line by line into the log: cut at 8 KiB, control characters escaped, no more than [`LINES_A_SECOND`].

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;

/// Longest line that is logged; the rest of it is left out.
const LINE_BYTES: usize = 8 * 1024;
/// What one child may log; the surplus is counted and dropped.
const LINES_A_SECOND: u32 = 200;

/// Logs until stderr is closed.
pub(super) async fn log_stderr(upstream: String, mut stderr: ChildStderr) {
    let mut buffer = vec![0; LINE_BYTES];
    let mut cutter = Cutter::default();
    let mut budget = Budget::new(Instant::now());
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let chunk = buffer.get(..read).unwrap_or_default();
        cutter.feed(chunk, |line| match budget.take(Instant::now()) {
            Some(0) => tracing::info!(%upstream, "{}", printable(line)),
            Some(dropped) => tracing::info!(%upstream, dropped, "{}", printable(line)),
            None => {}
        });
    }
    cutter.feed(b"\n", |line| tracing::info!(%upstream, "{}", printable(line)));
}

/// Text that cannot forge log lines or steer a terminal.
fn printable(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        // Bidirectional overrides reorder what stands around them.
        let hidden =
            matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if (c.is_control() && c != '\t') || hidden {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Lines of at most [`LINE_BYTES`]; what is longer is cut, empty ones are left out.
#[derive(Default)]
struct Cutter {
    line: Vec<u8>,
}

impl Cutter {
    fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = chunk;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (piece, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            self.hold(piece);
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if !line.is_empty() {
                each(line);
            }
            self.line.clear();
        }
        self.hold(rest);
    }

    fn hold(&mut self, piece: &[u8]) {
        let room = LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }
}

/// How many lines may still be logged this second.
struct Budget {
    since: Instant,
    used: u32,
    dropped: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { since: now, used: 0, dropped: 0 }
    }

    /// `None`: not to be logged. Else how many were dropped since the last that was.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.used = 0;
        }
        if self.used >= LINES_A_SECOND {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_escaped() {
        let mut cutter = Cutter::default();
        let mut out = Vec::new();
        cutter.feed(b"one\r\n\ntw", |line| out.push(printable(line)));
        cutter.feed(b"o\x1b[2J\n", |line| out.push(printable(line)));
        cutter.feed(&[b'x'; 3 * LINE_BYTES], |line| out.push(printable(line)));
        cutter.feed(b"\n", |line| out.push(printable(line).len().to_string()));
        assert_eq!(out, ["one", "two\\u{1b}[2J", "8192"]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let logged = (0..1000).filter(|_| budget.take(now).is_some()).count();
        assert_eq!(logged, 200);
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(800));
    }
}
