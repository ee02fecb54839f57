//! Signals: SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reopens the audit file. SIGXFSZ does nothing: a file that may not
//! grow (`ulimit -f`) is then a write that fails, as on a full disk, and not the end of the process.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::Ended;
use crate::state::lifecycle::{Lifecycle, Phase};

/// How often a draining process looks whether it is done, and a running one whether it was stopped from within.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// In-flight calls must be zero for this many looks in a row: a call may be between its last byte read and its count.
const QUIET_LOOKS: u32 = 2;

/// The signals we handle. From their creation on they no longer kill the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Never read: that it is handled is all.
    _file_size: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; answers SIGHUPs meanwhile.
    async fn end(&mut self, reopen: &dyn Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    tracing::info!("SIGHUP: the audit file is opened again");
                    reopen();
                }
            }
        }
    }
}

/// Runs until the process is to end, and takes its phase there.
pub(super) async fn until_stopped(
    mut signals: Signals,
    lifecycle: &Lifecycle,
    drain_timeout: Duration,
    on_phase: &(dyn Fn(Phase) + Send),
    reopen: &dyn Fn(),
) -> Ended {
    tokio::select! {
        () = signals.end(reopen) => {}
        () = stopped_from_within(lifecycle) => return Ended::Stopped,
    }
    if lifecycle.advance(Phase::Draining) {
        on_phase(Phase::Draining);
    }
    tracing::info!(in_flight = lifecycle.calls_in_flight(), timeout_ms = drain_timeout.as_millis(), "draining");
    let ended = tokio::select! {
        () = signals.end(reopen) => Ended::Forced,
        ended = drained(lifecycle, drain_timeout) => ended,
    };
    if lifecycle.advance(Phase::Stopped) {
        on_phase(Phase::Stopped);
    }
    match ended {
        Ended::TimedOut(calls) => {
            tracing::warn!(calls, "draining took too long; calls are cut off")
        }
        Ended::Forced => tracing::warn!(calls = lifecycle.calls_in_flight(), "second signal: stopping at once"),
        Ended::Drained | Ended::Stopped => tracing::info!("drained"),
    }
    ended
}

async fn stopped_from_within(lifecycle: &Lifecycle) {
    while lifecycle.phase() != Phase::Stopped {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) async fn drained(lifecycle: &Lifecycle, timeout: Duration) -> Ended {
    let deadline = Instant::now() + timeout;
    let mut quiet = 0;
    loop {
        quiet = if lifecycle.calls_in_flight() == 0 { quiet + 1 } else { 0 };
        if quiet >= QUIET_LOOKS || lifecycle.phase() == Phase::Stopped {
            return Ended::Drained;
        }
        if Instant::now() >= deadline {
            return Ended::TimedOut(lifecycle.calls_in_flight());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
