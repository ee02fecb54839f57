//! A run from its warm-up to its verdict, the same for every scenario and for a soak: only what is done in the middle differs.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet, spawn_local};

use super::checks::{self, Check, Seen};
use super::client::{self, Caller};
use super::fault::{Door, Fault, Way};
use super::gateway::{MAX_ADDRESS_CONNECTIONS, Setup};
use super::pauses::{PAUSE, Waiting};
use super::rng::Rng;
use super::stage::{Active, Layout, PATIENCE, Stage};
use super::trail::{self, Follower};
use super::verdict::Verdict;

/// How long everyone is silent before memory is looked at: workers give memory back every two seconds.
const QUIET: Duration = Duration::from_secs(5);

/// How often the trail, and the time that was lost, are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long what was left behind may take to go.
const AFTERWARDS: Duration = Duration::from_secs(20);

/// How a run is made.
pub(crate) struct Plan<'a> {
    pub(crate) setup: Setup<'a>,
    pub(crate) layout: Layout,
    pub(crate) seed: u64,
    pub(crate) warm_up: Duration,
    /// How late the line of an answered call may be.
    pub(crate) lag_limit: Duration,
    /// Bytes that memory may grow beside 5 %.
    pub(crate) slack: u64,
}

/// What a run came to.
pub(crate) struct Verdicts {
    pub(crate) checks: Vec<Check>,
    pub(crate) counts: Vec<(Fault, Way, Verdict, u64)>,
    pub(crate) calls: u64,
}

impl Verdicts {
    pub(crate) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// What is learnt of a disk that was full.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) was_full: bool,
    pub(crate) expected: Vec<&'static str>,
}

/// Clients in the background.
pub(crate) struct Crowd(JoinSet<()>);

impl Crowd {
    /// A few clients of every door and both eras at each upstream.
    pub(crate) fn gather(stage: &Rc<Stage>, rng: &mut Rng, each: usize) -> Self {
        let mut crowd = Self(JoinSet::new());
        for upstream in 0..stage.upstreams.len() {
            for door in Door::ALL {
                for session in [false, true] {
                    if session && door == Door::Http {
                        continue;
                    }
                    for _ in 0..each {
                        let window = if door == Door::Http { 1 } else { 1 + rng.below(3) as usize };
                        // Addresses 127.0.0.2 and up: no more than a few connections of each.
                        let from = Ipv4Addr::new(127, 0, 0, 2 + rng.below(8) as u8);
                        crowd.add(stage, Caller { door, session, upstream, window, from }, rng);
                    }
                }
            }
        }
        crowd
    }

    pub(crate) fn add(&mut self, stage: &Rc<Stage>, caller: Caller, rng: &mut Rng) {
        self.0.spawn_local(client::run(stage.clone(), caller, rng.fork()));
    }

    pub(crate) fn nobody() -> Self {
        Self(JoinSet::new())
    }

    /// Lets everyone finish.
    pub(crate) async fn leave(mut self, stage: &Stage) {
        stage.is_over.set(true);
        let left = async { while self.0.join_next().await.is_some() {} };
        // Each call ends within its time; who is here after that has calls that have not, and is told of by the ledger.
        let _ = tokio::time::timeout(PATIENCE * 2, left).await;
        stage.is_over.set(false);
    }
}

/// Makes a run. `act` is what happens between warm-up and end.
pub(crate) async fn make(
    plan: &Plan<'_>,
    act: impl AsyncFnOnce(&Rc<Stage>, &mut Rng, &Path) -> io::Result<Disk>,
) -> io::Result<Verdicts> {
    let stage = Stage::start(&plan.setup, plan.layout).await?;
    let mut rng = Rng::new(plan.seed);
    // The audit directory as it is seen from here, whatever is mounted for the gateway.
    let audit = reachable(&stage, plan);
    let descriptors = settled_descriptors(&stage).await?;
    warm_up(&stage, &mut rng, plan.warm_up).await;
    let resident = stage.gateway.resident()?;
    stage.ledger.is_watched.set(true);
    let following = follow(&stage, &audit, plan.lag_limit);
    let disk = act(&stage, &mut rng, &audit).await?;
    tokio::time::sleep(plan.lag_limit * 3).await;
    following.stop.set(true);
    let follower = following.task.await.map_err(io::Error::other)??;
    let mut seen = Seen {
        slack: plan.slack,
        disk_was_full: disk.was_full,
        expected: disk.expected,
        samples: follower.samples,
        late_lines: follower.late + stage.ledger.answered_at.borrow().len() as u64,
        pause_ms: follower.longest_pause.as_millis(),
        pause_limit_ms: PAUSE.as_millis(),
        starved: stage.ledger.starved.get(),
        longest_lag_ms: follower.longest.as_millis(),
        lag_limit_ms: plan.lag_limit.as_millis(),
        ..Seen::default()
    };
    look_afterwards(&stage, &mut seen, (descriptors, resident)).await?;
    end(&stage, &mut seen, &audit).await?;
    let counts = stage.ledger.counts();
    let counts = counts.into_iter().map(|((fault, way, verdict), count)| (fault, way, verdict, count)).collect();
    Ok(Verdicts { checks: checks::all(&seen), counts, calls: seen.calls })
}

/// What the gateway holds when nobody has asked it for anything: probes of the upstreams come and go.
async fn settled_descriptors(stage: &Stage) -> io::Result<Vec<String>> {
    let mut most = Vec::new();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = stage.gateway.open_files()?;
        if now.len() > most.len() {
            most = now;
        }
    }
    Ok(most)
}

/// Everything that takes memory once: all doors, all ways, long answers.
async fn warm_up(stage: &Rc<Stage>, rng: &mut Rng, time: Duration) {
    stage.pace_ms.set(4);
    let crowd = Crowd::gather(stage, rng, 2);
    for upstream in 0..stage.upstreams.len() {
        if stage.layout == Layout::Several && upstream == 0 {
            continue;
        }
        stage.active.set(Some(Active { upstream, fault: Fault::Oversize, share: 2 }));
        tokio::time::sleep(time / 4).await;
    }
    stage.active.set(None);
    tokio::time::sleep(time / 4).await;
    crowd.leave(stage).await;
    stage.pace_ms.set(20);
    tokio::time::sleep(QUIET).await;
}

struct Following {
    stop: Rc<std::cell::Cell<bool>>,
    task: JoinHandle<io::Result<Follower>>,
}

/// Looks at the trail as it grows.
fn follow(stage: &Rc<Stage>, audit: &Path, limit: Duration) -> Following {
    let stop = Rc::new(std::cell::Cell::new(false));
    let (stopped, stage, audit) = (stop.clone(), stage.clone(), audit.to_owned());
    let task = spawn_local(async move {
        let mut follower = Follower::new(&audit, limit);
        let mut gateway = Waiting::new(stage.gateway.pid());
        while !stopped.get() {
            let before = Instant::now();
            tokio::time::sleep(LOOK).await;
            let elapsed = before.elapsed();
            follower.longest_pause = follower.longest_pause.max(elapsed);
            let lost = elapsed.saturating_sub(LOOK * 2).max(gateway.more());
            stage.ledger.pauses.borrow_mut().note(Instant::now(), lost);
            follower.look(&stage.ledger)?;
        }
        Ok(follower)
    });
    Following { stop, task }
}

async fn look_afterwards(stage: &Rc<Stage>, seen: &mut Seen, before: (Vec<String>, u64)) -> io::Result<()> {
    tokio::time::sleep(QUIET).await;
    // Servers close idle connections as they please; so do these, so that what is left then was forgotten.
    for upstream in stage.upstreams.iter() {
        upstream.hang_up();
    }
    let gone = async |stage: &Stage| counts(stage).await.is_ok_and(|counts| counts == (0, Some(0), Some(0)));
    stage.until(AFTERWARDS, gone).await;
    // Last, and looked at without a pause: our own question is a connection as well.
    let back = async |stage: &Stage| stage.gateway.open_files().is_ok_and(|now| now.len() <= before.0.len());
    stage.until(AFTERWARDS, back).await;
    let gateway = &stage.gateway;
    let mut open = gateway.open_files()?;
    seen.descriptors = (before.0.len(), open.len());
    for name in &before.0 {
        if let Some(at) = open.iter().position(|one| one == name) {
            open.remove(at);
        }
    }
    seen.more_open = open;
    seen.resident = (before.1, gateway.resident()?);
    let (listed, connections, in_flight) = counts(stage).await?;
    (seen.listed, seen.open_gauge, seen.in_flight_gauge) = (Some(listed), connections, in_flight);
    seen.places = (places(stage).await?, MAX_ADDRESS_CONNECTIONS);
    let metrics = stage.gateway.metrics().await?;
    seen.refused_events = metrics.sum("ringwall_audit_events_refused_total").unwrap_or(u64::MAX);
    seen.was_alive = stage.gateway.is_alive();
    Ok(())
}

async fn counts(stage: &Stage) -> io::Result<(usize, Option<u64>, Option<u64>)> {
    let gateway = &stage.gateway;
    let (listed, metrics) = (gateway.listed().await?, gateway.metrics().await?);
    Ok((listed, metrics.sum("ringwall_connections_open"), metrics.sum("ringwall_calls_in_flight")))
}

/// How many connections one address gets, of all that it asks for: no more than it may have, and no fewer, had a count not come down.
async fn places(stage: &Rc<Stage>) -> io::Result<usize> {
    let mut most = 0;
    // An address that was used by all clients.
    for last in 2..10 {
        let from = Ipv4Addr::new(127, 0, 0, last);
        let mut let_in = Vec::new();
        for _ in 0..MAX_ADDRESS_CONNECTIONS + 3 {
            if let Ok(talk) = client::knock(stage, from).await {
                let_in.push(talk);
            }
        }
        if last == 2 || let_in.len() != MAX_ADDRESS_CONNECTIONS {
            most = let_in.len();
        }
    }
    Ok(most)
}

async fn end(stage: &Rc<Stage>, seen: &mut Seen, audit: &Path) -> io::Result<()> {
    let key = stage.gateway.audit_key()?;
    // Held open, so that it can be read after the gateway's end though it is mounted for the gateway alone.
    let held = std::fs::File::open(audit)?;
    stage.gateway.terminate();
    seen.exit = stage.gateway.exit().await;
    seen.complaints = stage.gateway.complaints()?;
    let dir = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let trail = trail::read(Path::new(&dir), &key, &stage.ledger)?;
    seen.lines = trail.lines;
    seen.records = trail.calls;
    seen.trail_faults = trail.faults;
    seen.unrecorded = trail::unrecorded(&stage.ledger);
    seen.calls = stage.ledger.last();
    seen.open_calls = stage.ledger.open_calls();
    seen.limits = stage.limits();
    (seen.violations, seen.more_violations) = stage.ledger.violations();
    Ok(())
}

/// Where the audit directory is seen from here: through the gateway's own root, where something is mounted for it alone.
fn reachable(stage: &Stage, plan: &Plan<'_>) -> std::path::PathBuf {
    if plan.setup.wrapper.is_empty() {
        return plan.setup.audit.to_owned();
    }
    let inside = plan.setup.audit.strip_prefix("/").unwrap_or(plan.setup.audit);
    Path::new(&format!("/proc/{}/root", stage.gateway.pid())).join(inside)
}
