//! Clients that make calls, know what each may end with, and look at every byte that comes.

mod http;
mod message;
pub(crate) mod rude;

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use super::fault::Door;
use super::rng::Rng;
use super::stage::Stage;

/// A client that makes one call after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) door: Door,
    /// With `initialize` first (2025-11-25), or with calls that stand for themselves (2026-07-28).
    pub(crate) session: bool,
    pub(crate) upstream: usize,
    /// Calls in flight; on the HTTP door one.
    pub(crate) window: usize,
    pub(crate) from: Ipv4Addr,
}

/// Runs a client until the stage is over. It connects again whenever its connection has ended, and sometimes by itself.
pub(crate) async fn run(stage: Rc<Stage>, caller: Caller, mut rng: Rng) {
    while !stage.is_over.get() {
        let calls = 20 + rng.below(400);
        let used = match caller.door {
            Door::Http => http::use_connection(&stage, caller, &mut rng, calls).await,
            Door::Tcp | Door::Ws => message::use_connection(&stage, caller, &mut rng, calls).await,
        };
        if used.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether a token is taken at the TCP door; an error where that cannot be said.
pub(crate) async fn takes(stage: &Rc<Stage>, token: &str, from: Ipv4Addr) -> std::io::Result<bool> {
    message::Talk::takes(stage, token, from).await
}

/// A connection to the TCP door that has said who it is; an error where it is not let in.
pub(crate) async fn knock(stage: &Rc<Stage>, from: Ipv4Addr) -> std::io::Result<impl Sized + use<>> {
    message::Talk::open(stage, Door::Tcp, from).await
}
