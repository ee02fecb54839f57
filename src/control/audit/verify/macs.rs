//! The MACs of many lines at once, on other cores than the one that reads.
//!
//! A line's `mac` is over the line alone: what it is to continue stands in it. So whether lines follow one another can be read off them at the speed of
//! reading, and whether each is right can be found out in any order, anywhere. Here it is: who reads hands over what was read in batches, and asks at the
//! end. What it comes to is one bit; who finds something wrong reads again, a line at a time, to say what and where.
//!
//! Bounded: a few batches of [`BATCH`] bytes a thread. When all are busy, who reads computes as well, so no core is idle. Where there is one core, or no thread
//! can be had, it computes alone.

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

use hmac::Hmac;
use sha2::Sha256;

use crate::control::audit::line::{Link, hex_mac};

/// Bytes of lines that are handed over at once; few in tests, so that short trails are handed over as well.
const BATCH: usize = if cfg!(test) { 600 } else { 256 << 10 };
/// Batches that wait for a thread.
const WAITING: usize = 2;
/// Threads beside the one that reads, at most: as many as one reader keeps busy.
const MOST_THREADS: usize = 4;

/// Lines whose MACs are to be computed: of each what its `mac` is over, and then that.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each line's `mac` begins.
    macs: Vec<usize>,
}

impl Batch {
    fn are_right(&self, keyed: &Hmac<Sha256>) -> bool {
        let mut rest = self.bytes.as_slice();
        let mut at = 0;
        self.macs.iter().all(|mac_at| {
            let Some((body, behind)) = rest.split_at_checked(mac_at - at) else { return false };
            let Some((mac, behind)) = behind.split_first_chunk::<64>() else { return false };
            rest = behind;
            at = mac_at + mac.len();
            hex_mac(keyed, body) == *mac
        })
    }
}

/// A thread that computes.
struct Helper {
    batches: SyncSender<Batch>,
    /// Whether all that it was given were right.
    thread: JoinHandle<bool>,
}

/// See the module.
pub(super) struct Macs {
    keyed: Hmac<Sha256>,
    filling: Batch,
    helpers: Vec<Helper>,
    /// Threads that may still be started: none before there is something to do.
    may_start: usize,
    /// Whether those computed here were right.
    are_right: bool,
}

impl Macs {
    pub(super) fn new(keyed: Hmac<Sha256>) -> Self {
        let others = thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
        let may_start = if cfg!(test) { 1 } else { others.min(MOST_THREADS) };
        Self { keyed, filling: Batch::default(), helpers: Vec::new(), may_start, are_right: true }
    }

    /// Takes a line.
    pub(super) fn take(&mut self, link: &Link<'_>) {
        self.filling.bytes.extend_from_slice(link.body());
        self.filling.macs.push(self.filling.bytes.len());
        self.filling.bytes.extend_from_slice(link.mac);
        if self.filling.bytes.len() >= BATCH {
            self.hand_over();
        }
    }

    /// Whether something wrong was found already; it may be found later.
    pub(super) fn found_wrong(&self) -> bool {
        !self.are_right || self.helpers.iter().any(|helper| helper.thread.is_finished())
    }

    /// Whether all that was taken is right. Waits for it.
    pub(super) fn were_right(mut self) -> bool {
        self.are_right &= self.filling.are_right(&self.keyed);
        let threads: Vec<_> = self.helpers.into_iter().map(|helper| helper.thread).collect();
        // All are told before the first is waited for.
        threads.into_iter().fold(self.are_right, |all, thread| all & thread.join().unwrap_or(false))
    }

    /// To who is idle, or to a new thread; else it is computed here.
    fn hand_over(&mut self) {
        let room = BATCH + BATCH / 8;
        let mut batch =
            std::mem::replace(&mut self.filling, Batch { bytes: Vec::with_capacity(room), macs: Vec::new() });
        for helper in &self.helpers {
            match helper.batches.try_send(batch) {
                Ok(()) => return,
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => batch = back,
            }
        }
        if self.may_start > 0 {
            self.may_start -= 1;
            let (batches, waiting) = mpsc::sync_channel(WAITING);
            let keyed = self.keyed.clone();
            let started = thread::Builder::new().name("verify".to_owned()).spawn(move || compute(&waiting, &keyed));
            if let Ok(thread) = started {
                self.helpers.push(Helper { batches, thread });
                return self.give_to_last(batch);
            }
        }
        self.are_right &= batch.are_right(&self.keyed);
    }

    fn give_to_last(&mut self, batch: Batch) {
        let sent = self.helpers.last().map(|helper| helper.batches.try_send(batch));
        if let Some(Err(TrySendError::Full(back) | TrySendError::Disconnected(back))) = sent {
            self.are_right &= back.are_right(&self.keyed);
        }
    }
}

/// Computes what comes, until nobody gives more or something is wrong.
fn compute(batches: &Receiver<Batch>, keyed: &Hmac<Sha256>) -> bool {
    // A gateway that serves on the same cores goes first.
    if let Err(error) = crate::sys::thread::run_as_batch() {
        tracing::debug!(%error, "verifying keeps its scheduling policy");
    }
    batches.iter().all(|batch| batch.are_right(keyed))
}
