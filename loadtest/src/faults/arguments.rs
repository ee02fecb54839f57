//! What `loadtest faults`, `loadtest soak` and `loadtest crash` are told alike.

use std::path::PathBuf;
use std::time::Duration;

use super::gateway::Setup;
use super::run::Plan;
use super::stage::Layout;
use crate::process::Scratch;

/// Bytes that memory may grow beside 5 %: what an allocator keeps of bursts that the warm-up has not seen.
const SLACK: u64 = 24 << 20;

/// Arguments of all of them.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    pub(crate) ringwall: PathBuf,
    /// Where chance begins; default: another each time
    #[arg(long)]
    seed: Option<u64>,
    /// How late the line of an answered call may be, milliseconds
    #[arg(long, default_value_t = 100)]
    audit_lag_ms: u64,
    /// Results as JSON into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Keep the directories of the gateways: logs, policies, audit trails
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Common {
    /// The seed that was given, or another each time.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let state = std::collections::hash_map::RandomState::new();
            std::hash::BuildHasher::hash_one(&state, std::process::id()) & 0xffff_ffff
        })
    }

    /// Where the directories of the gateways are made.
    pub(crate) fn home(&self, scratch: &Scratch) -> PathBuf {
        self.keep.clone().unwrap_or_else(|| scratch.path().to_owned())
    }

    /// How late the line of an answered call may be.
    pub(crate) fn lag(&self) -> Duration {
        Duration::from_millis(self.audit_lag_ms)
    }

    /// A run with these.
    pub(crate) fn plan<'a>(&self, setup: Setup<'a>, layout: Layout, seed: u64, warm_up: Duration) -> Plan<'a> {
        Plan { setup, layout, seed, warm_up, lag_limit: self.lag(), slack: SLACK }
    }
}
