//! Resolving and probing upstreams, so that workers need not.
//!
//! Every upstream with a network address is resolved at once, then every [`RESOLVE_EVERY`], and probed with a TCP connect
//! at once, then every [`PROBE_EVERY`] give or take a fifth. What is found goes to its `UpstreamState`. A probe says that
//! something accepts connections there, no more; whether calls succeed is the breaker's to judge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::state::lifecycle::UpstreamState;

/// How often names are resolved again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How often an upstream is probed.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Time a connect may take, over all addresses of an upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time a look-up may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses kept of one name.
const MAX_ADDRESSES: usize = 16;

/// An upstream to watch.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the findings go.
    pub upstream: Arc<UpstreamState>,
    /// Host name or literal address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Resolves and probes for ever.
pub(super) async fn watch(target: Target) {
    let mut resolve_at = Instant::now();
    loop {
        if Instant::now() >= resolve_at {
            resolve(&target).await;
            resolve_at = Instant::now() + RESOLVE_EVERY;
        }
        let addresses = target.upstream.addresses.load().as_ref().clone();
        let reachable = probe(&addresses).await;
        if target.upstream.set_reachable(reachable) {
            let upstream = target.upstream.name();
            if reachable {
                tracing::info!(upstream, "upstream answers");
            } else {
                tracing::warn!(upstream, "upstream does not answer");
            }
        }
        if addresses.is_empty() {
            resolve_at = Instant::now();
        }
        tokio::time::sleep(jittered(PROBE_EVERY)).await;
    }
}

async fn resolve(target: &Target) {
    let upstream = target.upstream.name();
    let looked_up = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((target.host.as_str(), target.port)));
    match looked_up.await {
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
            if target.upstream.addresses.publish(found) {
                tracing::debug!(upstream, host = target.host, "upstream resolved");
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(upstream, host = target.host, %error, "upstream's name does not resolve")
        }
        Err(_) => tracing::warn!(upstream, host = target.host, "looking the upstream's name up takes too long"),
    }
}

/// Whether any of the addresses takes a connection.
async fn probe(addresses: &[SocketAddr]) -> bool {
    let any = async {
        for address in addresses {
            if TcpStream::connect(address).await.is_ok() {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(CONNECT_TIMEOUT, any).await.unwrap_or(false)
}

/// The period give or take a fifth, so that many gateways do not knock together.
fn jittered(period: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    let share = 0.8 + 0.4 * f64::from(random) / f64::from(u32::MAX);
    period.mul_f64(share)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn one_address_that_answers_is_enough() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = "127.0.0.1:1".parse().unwrap();
        for (addresses, want) in
            [(vec![], false), (vec![closed], false), (vec![open], true), (vec![closed, open], true)]
        {
            assert_eq!(run(probe(&addresses)), want, "{addresses:?}");
        }
    }

    #[test]
    fn literal_addresses_resolve_and_failures_keep_the_last_answer() {
        let upstream = Arc::new(UpstreamState::new("up"));
        let target = |host: &str| Target { upstream: Arc::clone(&upstream), host: host.to_owned(), port: 9 };
        for (host, want) in [("127.0.0.1", "127.0.0.1:9"), ("::1", "[::1]:9"), ("name.invalid", "[::1]:9")] {
            run(resolve(&target(host)));
            assert_eq!(upstream.addresses.first().unwrap().to_string(), want, "{host}");
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for _ in 0..1_000 {
            let period = jittered(PROBE_EVERY);
            assert!(period >= PROBE_EVERY.mul_f64(0.799) && period <= PROBE_EVERY.mul_f64(1.201), "{period:?}");
        }
    }
}
