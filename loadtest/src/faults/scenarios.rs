//! The scenarios of `loadtest faults`: what is broken, on which upstreams, while everyone else goes on.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::rude::{Rudeness, misbehave};
use super::client::{Caller, knock};
use super::disk::Filler;
use super::fault::{Door, Fault, Kind};
use super::gateway::MAX_ADDRESS_CONNECTIONS;
use super::rng::Rng;
use super::run::{Crowd, Disk};
use super::stage::{Active, Layout, Stage};
use super::verdict::Verdict;

/// What is broken in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaks {
    /// An upstream does this with some of its calls.
    Calls(Fault),
    /// Nothing listens at the upstream.
    Refused,
    /// It ends in the middle of everything, and is started again.
    Killed,
    /// Clients do this.
    Clients(Rudeness),
    /// More calls and connections come than may be.
    Crowd,
    /// The disk of the audit trail is full for a while.
    Disk {
        /// In production calls are refused meanwhile; in development they go on.
        is_production: bool,
    },
}

/// All scenarios, by name.
pub(crate) fn all() -> Vec<(String, Breaks)> {
    let mut all: Vec<(String, Breaks)> = Fault::all()
        .iter()
        .filter(|fault| **fault != Fault::None)
        .map(|fault| (fault.name(), Breaks::Calls(*fault)))
        .collect();
    let named = |name: &str, breaks| (name.to_owned(), breaks);
    all.extend([named("refused", Breaks::Refused), named("killed", Breaks::Killed)]);
    let rude = ["client-mid-request", "client-mid-answer", "client-half-close", "client-drip", "client-silent"];
    all.extend(rude.into_iter().zip(Rudeness::ALL).map(|(name, how)| named(name, Breaks::Clients(how))));
    all.push(named("crowd", Breaks::Crowd));
    all.push(named("disk-development", Breaks::Disk { is_production: false }));
    all.push(named("disk-production", Breaks::Disk { is_production: true }));
    all
}

/// In front of which upstreams a scenario is played: sessions have connections of their own at one that is alone.
pub(crate) fn layouts(breaks: Breaks) -> Vec<Layout> {
    let mut layouts = vec![Layout::Several];
    match breaks {
        Breaks::Calls(fault) => {
            let alone = [Kind::Lines, Kind::WebSocket].into_iter().filter(|kind| fault.fits(*kind));
            layouts.extend(alone.map(Layout::Single));
        }
        Breaks::Refused | Breaks::Killed => layouts.extend([Kind::Lines, Kind::WebSocket].map(Layout::Single)),
        _ => {}
    }
    layouts
}

/// Plays a scenario; `time` is how long each part of it takes.
pub(crate) async fn play(
    breaks: Breaks,
    time: Duration,
    stage: &Rc<Stage>,
    rng: &mut Rng,
    audit: &Path,
) -> io::Result<Disk> {
    if breaks == Breaks::Crowd {
        return crowd(stage, rng, time).await;
    }
    let clients = Crowd::gather(stage, rng, 2);
    let disk = match breaks {
        Breaks::Calls(fault) => calls(stage, fault, time).await,
        Breaks::Refused => outage(stage, time, false).await?,
        Breaks::Killed => outage(stage, time, true).await?,
        Breaks::Clients(how) => rude(stage, how, rng, time).await,
        Breaks::Disk { is_production } => full_disk(stage, is_production, audit, time).await?,
        Breaks::Crowd => Disk::default(),
    };
    // Who comes afterwards is served as before.
    tokio::time::sleep(Duration::from_secs(1)).await;
    clients.leave(stage).await;
    Ok(disk)
}

/// Upstreams to which something may happen: all but the calm one.
fn victims(stage: &Stage) -> impl Iterator<Item = usize> + use<> {
    let first = usize::from(stage.layout == Layout::Several);
    first..stage.upstreams.len()
}

async fn calls(stage: &Rc<Stage>, fault: Fault, time: Duration) -> Disk {
    let share = match fault {
        // Long answers, and those that take long: a few at a time.
        Fault::Oversize => 1,
        Fault::Stall | Fault::Drip => 4,
        _ => 20,
    };
    for upstream in victims(stage) {
        if stage.upstreams.get(upstream).is_some_and(|upstream| fault.fits(upstream.kind)) {
            stage.active.set(Some(Active { upstream, fault, share }));
            tokio::time::sleep(time).await;
        }
    }
    stage.active.set(None);
    Disk::default()
}

async fn outage(stage: &Rc<Stage>, time: Duration, comes_back: bool) -> io::Result<Disk> {
    for at in victims(stage) {
        let Some(upstream) = stage.upstreams.get(at) else { continue };
        let times: u32 = if comes_back { 3 } else { 1 };
        for _ in 0..times {
            upstream.kill().await;
            tokio::time::sleep(time / times / 2).await;
            upstream.restart().await?;
            tokio::time::sleep(time / times / 2).await;
        }
    }
    Ok(Disk::default())
}

async fn rude(stage: &Rc<Stage>, how: Rudeness, rng: &mut Rng, time: Duration) -> Disk {
    let end = Instant::now() + time * 3;
    let mut visits = JoinSet::new();
    while Instant::now() < end {
        for door in Door::ALL {
            let upstream = usize::try_from(rng.below(stage.upstreams.len() as u64)).unwrap_or(0);
            let (stage, mut rng) = (stage.clone(), rng.fork());
            visits.spawn_local(async move {
                let from = Ipv4Addr::new(127, 0, 0, 20 + rng.below(8) as u8);
                // What breaks is its own doing.
                let _ = misbehave(&stage, how, door, upstream, from, &mut rng).await;
            });
        }
        // No more of them at once than their addresses may have.
        while visits.len() > 60 {
            visits.join_next().await;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    while visits.join_next().await.is_some() {}
    Disk::default()
}

/// More than may be: calls in flight at each upstream over all doors, and connections of one address.
async fn crowd(stage: &Rc<Stage>, rng: &mut Rng, time: Duration) -> io::Result<Disk> {
    stage.delay_ms.set(400);
    stage.pace_ms.set(0);
    let mut clients = Crowd::nobody();
    for upstream in victims(stage) {
        // Too many calls are refused, which is what is wanted.
        stage.ledger.disturb(upstream);
        for (door, session, window, count) in [
            (Door::Http, false, 1, 30),
            (Door::Tcp, false, 40, 2),
            (Door::Ws, false, 40, 2),
            (Door::Tcp, true, 20, 1),
            (Door::Ws, true, 20, 1),
        ] {
            for at in 0..count {
                let from = Ipv4Addr::new(127, 0, 0, 2 + (at % 8) as u8);
                clients.add(stage, Caller { door, session, upstream, window, from }, rng);
            }
        }
    }
    let end = Instant::now() + time * 2;
    let mut refused = 0;
    while Instant::now() < end {
        let from = Ipv4Addr::new(127, 0, 0, 30);
        let mut guests = JoinSet::new();
        for _ in 0..MAX_ADDRESS_CONNECTIONS + 20 {
            let stage = stage.clone();
            guests.spawn_local(async move { knock(&stage, from).await.ok() });
        }
        let let_in: Vec<_> = guests.join_all().await.into_iter().flatten().collect();
        refused += MAX_ADDRESS_CONNECTIONS + 20 - let_in.len();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if refused == 0 {
        stage.ledger.violated("no cap exceeded", "nobody was refused, however many came".to_owned());
    }
    stage.delay_ms.set(20);
    clients.leave(stage).await;
    for upstream in victims(stage) {
        stage.ledger.calm(upstream);
        let limits =
            stage.upstreams.get(upstream).map(|upstream| (upstream.shared.most_in_flight(), upstream.shared.cap()));
        if limits.is_some_and(|(most, cap)| most < cap / 2) {
            stage.ledger.violated("no cap exceeded", format!("upstream {upstream} was never full: {limits:?}"));
        }
    }
    Ok(Disk::default())
}

async fn full_disk(stage: &Rc<Stage>, is_production: bool, audit: &Path, time: Duration) -> io::Result<Disk> {
    let ledger = &stage.ledger;
    tokio::time::sleep(time / 2).await;
    ledger.may_refuse_unrecorded.set(is_production);
    let filler = Filler::fill(audit)?;
    let noticed = async |stage: &Stage| {
        let metrics = stage.gateway.metrics().await.ok();
        metrics.and_then(|metrics| metrics.sum("ringwall_audit_errors_total")).is_some_and(|errors| errors > 0)
    };
    if !stage.until(Duration::from_secs(10), noticed).await {
        ledger.violated("no lost audit line", "a full disk was not noticed".to_owned());
    }
    // What was taken up before is answered.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (right, unrecorded) = (ledger.count_of(Verdict::Right), ledger.count_of(Verdict::Unrecorded));
    tokio::time::sleep(time).await;
    let went_on = ledger.count_of(Verdict::Right) - right;
    if is_production && (went_on > 0 || ledger.count_of(Verdict::Unrecorded) == unrecorded) {
        ledger.violated("no lost audit line", format!("production made {went_on} calls that it could not record"));
    }
    if !is_production {
        if went_on == 0 {
            ledger.violated("no wrong answer", "development made no calls while the disk was full".to_owned());
        }
        overflow(stage).await;
    }
    filler.remove()?;
    let right = ledger.count_of(Verdict::Right);
    if !stage.until(Duration::from_secs(10), async |stage| stage.ledger.count_of(Verdict::Right) > right + 50).await {
        ledger.violated("no wrong answer", "no calls are made though the disk has room again".to_owned());
    }
    // Refusals that were on their way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ledger.may_refuse_unrecorded.set(false);
    tokio::time::sleep(time).await;
    Ok(Disk {
        was_full: true,
        expected: vec!["the audit log cannot be written", "the audit log's disk does not answer"],
    })
}

/// Calls until the gateway has no room for their lines, and says so: what it leaves out it counts.
async fn overflow(stage: &Rc<Stage>) {
    stage.pace_ms.set(0);
    stage.delay_ms.set(0);
    let counted = async |stage: &Stage| {
        let metrics = stage.gateway.metrics().await.ok();
        metrics
            .and_then(|metrics| metrics.sum("ringwall_audit_events_refused_total"))
            .is_some_and(|refused| refused > 0)
    };
    if !stage.until(Duration::from_secs(60), counted).await {
        let what = "a minute of calls did not fill the audit queue, or was not counted".to_owned();
        stage.ledger.violated("no lost audit line", what);
    }
    let right = stage.ledger.count_of(Verdict::Right);
    tokio::time::sleep(Duration::from_secs(3)).await;
    if stage.ledger.count_of(Verdict::Right) == right {
        let what = "development made no calls while the audit queue was full".to_owned();
        stage.ledger.violated("no wrong answer", what);
    }
    stage.pace_ms.set(20);
    stage.delay_ms.set(20);
}
