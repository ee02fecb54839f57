//! How long the disk takes to make a line durable, seen beside the gateway: what is promised of lines is promised for a disk that keeps up.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest that a group may take for its lines to be on disk in time (`control/audit.rs`).
const PROMISED: Duration = Duration::from_millis(50);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// What is longer ago was while no call of this life was open.
const KEPT: Duration = Duration::from_secs(60);

/// Writes a little and syncs it, over and over, on a thread of its own.
pub(super) struct Disk {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    slow: Receiver<(Instant, Instant)>,
    seen: Vec<(Instant, Instant)>,
}

impl Disk {
    /// Watches the disk of this directory.
    pub(super) fn watch(dir: &Path) -> io::Result<Self> {
        let mut file = File::create(dir.join("disk-probe"))?;
        let (noted, slow) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let watch = move || {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                // A disk that refuses is seen by others.
                let _ = file.write_all(&[b'.'; 400]).and_then(|()| file.sync_data());
                let ended = Instant::now();
                if ended - begun > PROMISED && noted.send((begun, ended)).is_err() {
                    return;
                }
                thread::park_timeout(EVERY);
            }
        };
        let thread = thread::Builder::new().name("disk".to_owned()).spawn(watch)?;
        Ok(Self { is_over, thread: Some(thread), slow, seen: Vec::new() })
    }

    /// Whether it took longer than is promised for, at some time between these.
    pub(super) fn was_slow(&mut self, from: Instant, to: Instant) -> bool {
        self.seen.extend(self.slow.try_iter());
        self.seen.retain(|(_, ended)| ended.elapsed() < KEPT);
        overlaps(&self.seen, from, to)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn overlaps(all: &[(Instant, Instant)], from: Instant, to: Instant) -> bool {
    all.iter().any(|(begun, ended)| *begun <= to && *ended >= from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slow_sync_at_the_time_is_an_excuse() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let slow = [(at(100), at(200))];
        assert!(
            overlaps(&slow, at(150), at(300)) && overlaps(&slow, at(0), at(100)) && overlaps(&slow, at(120), at(130))
        );
        assert!(!overlaps(&slow, at(201), at(300)) && !overlaps(&slow, at(0), at(99)) && !overlaps(&[], at(0), at(99)));
    }
}
