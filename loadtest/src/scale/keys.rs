//! Keys, from one to a million: whatever the gateway tells its clients apart by.
//!
//! | key | where it stands | how many there may be |
//! |---|---|---|
//! | agent | hash map of token hashes, made at the start from the policy file (`guard/authenticate.rs`) | 40,000: a policy file has 4 MiB at most (`settings/inputs.rs`) |
//! | session | nowhere: the id is the session, sealed (`door/session.rs`) | any number |
//! | client address behind a trusted proxy | nowhere yet: read from `X-Forwarded-For` for each request (`guard/proxies.rs`) | any number |
//! | address of a connection | table of open connections, of fixed size (`state/admission.rs`) | as many as connections |
//!
//! Tables that count requests by agent, session or address will show in these very sweeps: every key is visited once before the first round, so what
//! a key leaves behind is there. Calls then go through the keys in an order that no cache can guess.

use std::fmt::Write;
use std::io;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use super::super::process::{Running, TOKEN};
use super::super::report::{Axis, Cell, Chart, Column, Point, Section, Series, Table};
use super::client::{self, PlainCall, Response};
use super::point::{self, Round, Rounds};
use super::waves::Waves;
use super::{Bench, comers};

/// Keys of the points, up to what was asked for.
const POINTS: [u64; 5] = [1, 1_000, 10_000, 100_000, 1_000_000];

/// Agents that fit into a policy file; by number it may have 100,000.
const MAX_AGENTS: u64 = 40_000;

/// What one kind of key has shown.
struct Kept {
    name: &'static str,
    points: Vec<u64>,
    rounds: Vec<Rounds>,
    /// MiB with so many keys; no number where it was not read.
    mib: Vec<f64>,
}

pub(super) fn sweep(bench: &mut Bench<'_>) -> io::Result<Vec<Section>> {
    let upstream = bench.upstream(&["--sessions".to_owned()])?;
    let kinds = [agents(bench, &upstream)?, sessions(bench, &upstream)?, addresses(bench, &upstream)?];
    Ok(vec![shown(&kinds), comers::sweep(bench, &upstream)?])
}

/// The points up to `most`, which is the last where the list goes beyond it.
pub(super) fn up_to<N: Copy + PartialOrd>(points: &[N], most: N) -> Vec<N> {
    let mut kept: Vec<N> = points.iter().copied().filter(|point| *point < most).collect();
    if points.last().is_some_and(|last| *last >= most) {
        kept.push(most);
    }
    kept
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    super::super::report::grouped(number as f64, 0)
}

/// The key of a call, in an order that looks like none: neighbours in time are no neighbours in memory.
fn key_of(call: u64, keys: u64) -> u64 {
    call.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(31) % keys
}

/// Measures all points in turns, the first round for warming up. `measure` is given a point's place.
fn rounds(
    bench: &Bench<'_>,
    name: &str,
    points: usize,
    mut measure: impl FnMut(usize) -> io::Result<Round>,
) -> io::Result<Vec<Rounds>> {
    let mut seen = vec![Rounds::default(); points];
    for round in 0..=bench.args.rounds {
        bench.progress(name, round);
        for (place, rounds) in seen.iter_mut().enumerate() {
            let measured = measure(place)?;
            if round > 0 {
                rounds.push(measured);
            }
        }
    }
    Ok(seen)
}

/// Calls through a gateway, each with the header fields of its key, and each answered as its key's.
fn keyed(
    bench: &Bench<'_>,
    gateway: &Running,
    calls: u64,
    mut fields: impl FnMut(&mut Vec<u8>, u64),
    mut check: impl FnMut(&PlainCall, u64, &Response, &[u8]) -> io::Result<()>,
) -> io::Result<Round> {
    let mut waves = Waves::connect(gateway.address, bench.args.active)?;
    let call = PlainCall::new(gateway.address)?;
    let mut own = Vec::new();
    point::around(gateway, calls, || {
        waves.drive(
            calls,
            |request, number| {
                own.clear();
                fields(&mut own, number);
                call.write(request, number, &own);
            },
            |number, response, body| check(&call, number, response, body),
        )
    })
}

/// Agents of the policy file, each with its token: a gateway a point, since the file is read at the start.
fn agents(bench: &mut Bench<'_>, upstream: &Running) -> io::Result<Kept> {
    let points = up_to(&POINTS, bench.args.max_keys.min(MAX_AGENTS));
    let mut gateways = Vec::new();
    for keys in &points {
        let policy = bench.dir().join(format!("agents-{keys}.toml"));
        std::fs::write(&policy, policy_of(*keys))?;
        let gateway = bench.gateway(upstream, &[("RINGWALL_POLICY", policy.to_string_lossy().into_owned())])?;
        let agent = |fields: &mut Vec<u8>, number| {
            fields.extend_from_slice(client::authorization(&token_of(number)).as_bytes());
        };
        keyed(bench, &gateway, *keys, agent, |call, number, response, body| {
            call.check_as(&agent_of(number), number, response, body)
        })?;
        gateways.push(gateway);
    }
    let rounds = rounds(bench, "agents", points.len(), |place| {
        let (Some(gateway), Some(keys)) = (gateways.get(place), points.get(place)) else { return Err(no_point()) };
        let authorized = |fields: &mut Vec<u8>, number| {
            fields.extend_from_slice(client::authorization(&token_of(key_of(number, *keys))).as_bytes());
        };
        keyed(bench, gateway, bench.args.calls, authorized, |call, number, response, body| {
            call.check_as(&agent_of(key_of(number, *keys)), number, response, body)
        })
    })?;
    let mib: io::Result<_> = gateways.iter().map(|gateway| bench.memory_mib(gateway)).collect();
    let mib = mib?;
    Ok(Kept { name: "agents", points, rounds, mib })
}

fn policy_of(agents: u64) -> String {
    let mut text = String::new();
    for agent in 0..agents {
        let hash = Sha256::digest(token_of(agent));
        // Writing to a string cannot fail.
        let _ = write!(text, "[agent.{}]\ntoken_sha256 = \"", agent_of(agent));
        hash.iter().for_each(|byte| {
            let _ = write!(text, "{byte:02x}");
        });
        text.push_str("\"\n");
    }
    text
}

fn agent_of(agent: u64) -> String {
    format!("agent-{agent}")
}

fn token_of(agent: u64) -> String {
    format!("loadtest-agent-token-{agent:012}-abcdef")
}

/// Sessions of 2025-11-25: opened first, all of them, and called then.
fn sessions(bench: &mut Bench<'_>, upstream: &Running) -> io::Result<Kept> {
    let points = up_to(&POINTS, bench.args.max_keys);
    let gateway = bench.gateway(upstream, &[])?;
    let authorization = client::authorization(TOKEN);
    // What a gateway allocates once is no key's.
    let alone = |fields: &mut Vec<u8>, _| fields.extend_from_slice(authorization.as_bytes());
    keyed(bench, &gateway, bench.args.calls, alone, PlainCall::check)?;
    let mut ids = Ids::default();
    let mut mib = Vec::new();
    for keys in &points {
        ids.open(bench, &gateway, *keys).map_err(|error| gateway.explain(error))?;
        mib.push(bench.memory_mib(&gateway)?);
    }
    let rounds = rounds(bench, "sessions", points.len(), |place| {
        let keys = points.get(place).copied().ok_or_else(no_point)?;
        let in_session = |fields: &mut Vec<u8>, number| {
            fields.extend_from_slice(authorization.as_bytes());
            fields.extend_from_slice(b"Mcp-Session-Id: ");
            fields.extend_from_slice(ids.get(key_of(number, keys)));
            fields.extend_from_slice(b"\r\n");
        };
        keyed(bench, &gateway, bench.args.calls, in_session, PlainCall::check)
    })?;
    Ok(Kept { name: "sessions", points, rounds, mib })
}

/// Session ids, one behind the other: a million of them in one piece of memory.
#[derive(Default)]
struct Ids {
    bytes: Vec<u8>,
    /// All ids have one length.
    len: usize,
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"loadtest","version":"0"}}}"#;

impl Ids {
    fn get(&self, key: u64) -> &[u8] {
        let start = usize::try_from(key).unwrap_or(usize::MAX).saturating_mul(self.len);
        self.bytes.get(start..start.saturating_add(self.len)).unwrap_or_default()
    }

    fn count(&self) -> u64 {
        (self.bytes.len() / self.len.max(1)) as u64
    }

    /// Opens sessions until there are so many.
    fn open(&mut self, bench: &Bench<'_>, gateway: &Running, wanted: u64) -> io::Result<()> {
        let head =
            client::head_of(gateway.address, INITIALIZE.len()) + &client::authorization(TOKEN) + "\r\n" + INITIALIZE;
        let mut waves = Waves::connect(gateway.address, bench.args.active)?;
        waves.drive(
            wanted.saturating_sub(self.count()),
            |request, _| {
                request.clear();
                request.extend_from_slice(head.as_bytes());
            },
            |_, response, _| {
                let id = response.session.as_deref().filter(|id| response.status == 200 && !id.is_empty());
                let id = id.ok_or_else(|| io::Error::other("initialize was answered without a session"))?;
                if self.len == 0 {
                    self.len = id.len();
                }
                if self.len != id.len() {
                    return Err(io::Error::other("session ids of different lengths"));
                }
                self.bytes.extend_from_slice(id);
                Ok(())
            },
        )
    }
}

/// Addresses of clients behind a trusted proxy, which is the generator.
fn addresses(bench: &mut Bench<'_>, upstream: &Running) -> io::Result<Kept> {
    let points = up_to(&POINTS, bench.args.max_keys);
    let gateway = bench.gateway(upstream, &[("TRUSTED_PROXIES", "127.0.0.1".to_owned())])?;
    let authorization = client::authorization(TOKEN);
    let named = |fields: &mut Vec<u8>, key: u64| {
        fields.extend_from_slice(authorization.as_bytes());
        let within = u32::try_from(key % 0xff_ffff).unwrap_or_default();
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + within);
        fields.extend_from_slice(format!("X-Forwarded-For: {ip}\r\n").as_bytes());
    };
    keyed(bench, &gateway, bench.args.calls, |fields, _| named(fields, 0), PlainCall::check)?;
    let (mut visited, mut mib) = (0, Vec::new());
    for keys in &points {
        let first = visited;
        keyed(bench, &gateway, keys - first, |fields, number| named(fields, first + number), PlainCall::check)?;
        visited = *keys;
        mib.push(bench.memory_mib(&gateway)?);
    }
    let rounds = rounds(bench, "client addresses", points.len(), |place| {
        let keys = points.get(place).copied().ok_or_else(no_point)?;
        keyed(bench, &gateway, bench.args.calls, |fields, number| named(fields, key_of(number, keys)), PlainCall::check)
    })?;
    Ok(Kept { name: "client addresses", points, rounds, mib })
}

fn no_point() -> io::Error {
    io::Error::other("no such point")
}

fn shown(kinds: &[Kept]) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to one key, round by round", "", 3),
        Column::new("calls/s", "", 0),
        Column::new("memory", "MiB", 1),
        Column::new("memory a key", "bytes", 1),
    ];
    let mut table = Table::new("kind and number of keys", columns);
    let mut cpu = Chart::new("CPU a call by keys", Axis::log("keys"), Axis::linear("CPU a call, µs"));
    let mut memory = Chart::new("Memory by keys", Axis::log("keys"), Axis::linear("private dirty memory, MiB"));
    for kind in kinds {
        let Some(one) = kind.rounds.first() else { continue };
        let first_mib = kind.mib.first().copied().unwrap_or(f64::NAN);
        let xs = || kind.points.iter().map(|keys| *keys as f64);
        for ((keys, rounds), mib) in kind.points.iter().zip(&kind.rounds).zip(&kind.mib) {
            let mut cells = rounds.cells(one);
            cells.push((*mib).into());
            let bytes = (mib - first_mib) * 1024.0 * 1024.0 / *keys as f64;
            cells.push(if *keys >= 10_000 { bytes.into() } else { Cell::Nothing });
            table.row(format!("{}: {}", kind.name, count(*keys)), cells);
        }
        cpu = cpu.series(Series::new(kind.name, xs().zip(&kind.rounds).map(|(x, rounds)| rounds.point(x)).collect()));
        let points = xs().zip(&kind.mib).map(|(x, mib)| Point::at(x, *mib));
        memory = memory.series(Series::new(kind.name, points.collect()));
    }
    Section::new("Keys")
        .note(
            "Calls go through the keys in an order without neighbours, one call on every connection at a time and then all answers, so calls a second \
             are not those of the other sweeps. Agents have their tokens in the policy file, which has room for 40,000; each point is a gateway of its own. Sessions, \
             and addresses of clients behind a trusted proxy, are as many as one gateway has seen when memory is read; for CPU time it has seen all.",
        )
        .table(table)
        .chart(cpu)
        .chart(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_end_at_what_was_asked_for() {
        assert_eq!(up_to(&POINTS, 1_000_000), POINTS);
        assert_eq!(up_to(&POINTS, 2_500), [1, 1_000, 2_500]);
        assert_eq!(up_to(&POINTS, 1), [1]);
        assert_eq!(up_to(&[0, 100], 1_000), [0, 100]);
    }

    #[test]
    fn all_keys_are_visited_about_as_often() {
        for keys in [1u64, 10, 1_000] {
            let mut visits = vec![0u32; usize::try_from(keys).unwrap_or(0)];
            for call in 0..100 * keys {
                visits[usize::try_from(key_of(call, keys)).unwrap_or(usize::MAX)] += 1;
            }
            assert!(visits.iter().all(|visits| (40..=200).contains(visits)), "{keys}: {visits:?}");
        }
        let neighbours = (0..1_000).filter(|call| key_of(*call, 1_000_000).abs_diff(key_of(call + 1, 1_000_000)) < 100);
        assert!(neighbours.count() < 10);
    }

    #[test]
    fn agents_have_tokens_of_their_own_that_the_policy_knows_by_hash() {
        let policy = policy_of(3);
        assert_eq!(policy.matches("[agent.agent-").count(), 3);
        let hashes: std::collections::HashSet<&str> =
            policy.lines().filter_map(|line| line.strip_prefix("token_sha256 = ")).collect();
        assert_eq!(hashes.len(), 3);
        assert!(hashes.iter().all(|hash| hash.len() == 66));
        assert!(token_of(0).len() >= 32);
        assert!(policy_of(MAX_AGENTS).len() < 4 * 1024 * 1024, "as much as the gateway reads");
    }
}
