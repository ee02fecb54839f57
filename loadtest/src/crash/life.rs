//! One life of the gateway after the other, on the same data.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_local};

use super::super::faults::client;
use super::super::faults::gateway::{Gateway, Setup};
use super::super::faults::ledger::{Ended, Ledger};
use super::super::faults::pauses::Waiting;
use super::super::faults::rng::Rng;
use super::super::faults::run::{Crowd, Verdicts};
use super::super::faults::stage::{self, Layout, PATIENCE, Stage};
use super::super::faults::trail::{Change, Growing, Trail};
use super::super::faults::upstream::Upstream;
use super::super::faults::verdict::Verdict;
use super::Moment;
use super::book::{self, Book};
use super::checks::{self, Seen};
use super::disk::Disk;
use super::{money, operator};

/// Mean milliseconds between two calls of a client, and at most for an answer of an upstream.
const PACE_MS: u64 = 4;
const DELAY_MS: u64 = 8;

/// How often it is looked how long threads have waited for a core.
const LOOK: Duration = Duration::from_millis(10);

/// All lives.
pub(super) struct Lives<'a> {
    setup: &'a Setup<'a>,
    ledger: Rc<Ledger>,
    upstreams: Rc<Vec<Upstream>>,
    policy: String,
    book: Rc<RefCell<Book>>,
    /// The trail as far as it was read; `None` before there is a key to read it with.
    trail: Option<Growing>,
    /// Changes of tokens that the trail has.
    changes: HashSet<(Change, String)>,
    /// How late the line of an answered call may be.
    lag: Duration,
    verify_every: u64,
    /// Calls with a price that there may be.
    cap: u64,
    disk: Disk,
    seen: Seen,
    /// Addresses that have shown a token: each shows few, so that none is locked out.
    shown: Cell<u32>,
}

impl<'a> Lives<'a> {
    pub(super) async fn new(setup: &'a Setup<'a>, lag: Duration, verify_every: u64, cap: u64) -> io::Result<Self> {
        let ledger = Rc::new(Ledger::default());
        *ledger.answers.borrow_mut() = Some(Vec::new());
        let upstreams = stage::upstreams(Layout::Several, &ledger).await?;
        let policy = stage::policy(&upstreams) + &money::policy();
        ledger.price(money::priced_upstreams(&upstreams), cap);
        Ok(Self {
            setup,
            ledger,
            upstreams,
            policy,
            book: Rc::default(),
            trail: None,
            changes: HashSet::new(),
            lag,
            verify_every,
            cap,
            disk: Disk::watch(setup.dir)?,
            seen: Seen { lag_ms: lag.as_millis(), cap, ..Seen::default() },
            shown: Cell::new(0),
        })
    }

    pub(super) fn progress(&self) -> String {
        let (violations, more) = self.ledger.violations();
        let (calls, tokens) = (self.ledger.last(), self.book.borrow().len());
        format!("{calls} calls, {tokens} tokens, {} violations", violations.len() as u64 + more)
    }

    /// One life, and its end.
    pub(super) async fn live(&mut self, moment: Moment, rng: &mut Rng) -> io::Result<()> {
        if let Some(count) = self.seen.kills.get_mut(moment.index()) {
            *count += 1;
        }
        let (under_load, idle) = match moment {
            Moment::Starting(after) => return Gateway::start_and_kill(self.setup, &self.policy, after).await,
            Moment::Loaded(after) => (after, None),
            Moment::Idle(after) => (Duration::from_millis(50 + rng.below(150)), Some(after)),
        };
        let stage = self.start(rng, false).await?;
        stage.pace_ms.set(PACE_MS);
        stage.delay_ms.set(DELAY_MS);
        let watching = watch(&stage);
        let clients = Crowd::gather(&stage, rng, 1);
        let mut operators = JoinSet::new();
        for _ in 0..operator::OPERATORS {
            operators.spawn_local(operator::work(stage.clone(), self.book.clone(), rng.fork()));
        }
        tokio::time::sleep(under_load).await;
        let at = match idle {
            None => {
                let at = kill(&stage)?;
                leave(&stage, clients, operators).await;
                at
            }
            Some(idle) => {
                leave(&stage, clients, operators).await;
                tokio::time::sleep(idle).await;
                kill(&stage)?
            }
        };
        self.ledger.is_killed.set(false);
        watching.abort();
        self.look_at_what_is_left(&stage, at)
    }

    /// The end of all: what is remembered after the last kill, all of it, and an end in good order.
    pub(super) async fn last(mut self, kills: u64, rng: &mut Rng) -> io::Result<Verdicts> {
        let stage = self.start(rng, true).await?;
        let at = Instant::now();
        stage.gateway.terminate();
        self.seen.exit = stage.gateway.exit().await;
        self.look_at_what_is_left(&stage, at)?;
        self.verify();
        let book = self.book.borrow();
        (self.seen.tokens, self.seen.changes, self.seen.unanswered) = (book.len(), book.acknowledged, book.unanswered);
        drop(book);
        if let Some(trail) = &mut self.trail {
            let Trail { lines, calls, faults, .. } = trail.read_on(&self.ledger)?;
            (self.seen.lines, self.seen.records, self.seen.trail_faults) = (*lines, *calls, faults.clone());
        }
        self.seen.capped = self.ledger.count_of(Verdict::Capped);
        self.seen.kills_wanted = kills;
        self.seen.calls = self.ledger.last();
        self.seen.open_calls = self.ledger.open_calls();
        (self.seen.violations, self.seen.more_violations) = self.ledger.violations();
        let counts = self.ledger.counts().into_iter();
        let counts = counts.map(|((fault, way, verdict), count)| (fault, way, verdict, count)).collect();
        Ok(Verdicts { checks: checks::all(&self.seen), counts, calls: self.seen.calls })
    }

    /// Starts it, and looks at what it remembers.
    async fn start(&mut self, rng: &mut Rng, all: bool) -> io::Result<Rc<Stage>> {
        let begun = Instant::now();
        let gateway = Gateway::start(self.setup, &self.policy).await?;
        self.seen.starts.push(begun.elapsed());
        let stage = Rc::new(Stage::of(gateway, Layout::Several, &self.upstreams, &self.ledger));
        self.book.borrow_mut().life += 1;
        if all || (self.seen.starts.len() as u64).is_multiple_of(self.verify_every) {
            self.verify();
        }
        let (bill, known) = (money::bill(&stage).await?, money::known(&self.ledger));
        let wrong = money::compare(bill, known, self.cap);
        wrong.into_iter().for_each(|(check, what)| self.ledger.violated(check, what));
        (self.seen.bill, self.seen.known) = (bill, known);
        let listed = operator::list(&stage).await?;
        let wrong = self.book.borrow_mut().compare(listed);
        wrong.into_iter().for_each(|(check, what)| self.ledger.violated(check, what));
        let to_show = self.book.borrow().to_show(rng, all);
        for (id, secret, is_valid) in to_show {
            let is_taken = client::takes(&stage, &secret, self.address()).await?;
            self.seen.shown[usize::from(is_valid)] += 1;
            if is_taken != is_valid {
                let check = if is_valid { book::KEPT } else { book::ENDED };
                let what = if is_taken { "is taken" } else { "is not taken" };
                self.ledger.violated(check, format!("token {id} {what}"));
            }
        }
        Ok(stage)
    }

    /// An address that has shown at most one token before.
    fn address(&self) -> Ipv4Addr {
        let number = self.shown.get();
        self.shown.set(number + 1);
        let [_, b, c, d] = (number / 2).to_be_bytes();
        Ipv4Addr::new(127, 100 + b % 100, c, d)
    }

    /// `ringwall audit verify`, as operators run it.
    fn verify(&mut self) {
        let program = std::fs::canonicalize(self.setup.program).unwrap_or_default();
        let mut command = Command::new(program);
        command.args(["audit", "verify"]).current_dir(self.setup.dir).env_clear();
        command.env("AUDIT_DIR", self.setup.audit).env("DATA_DIR", self.setup.dir.join("data"));
        self.seen.verified += 1;
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                self.seen.not_verified.push(format!("{}: {}", output.status, String::from_utf8_lossy(&said)));
            }
            Err(error) => self.seen.not_verified.push(error.to_string()),
        }
    }

    /// Behind a kill at `at`: what is on disk, and what should be.
    fn look_at_what_is_left(&mut self, stage: &Stage, at: Instant) -> io::Result<()> {
        self.seen.complaints.extend(stage.gateway.complaints()?);
        if self.trail.is_none() {
            self.trail = Some(Growing::new(self.setup.audit, &stage.gateway.audit_key()?)?);
        }
        if let Some(trail) = &mut self.trail {
            self.changes.extend(trail.read_on(&self.ledger)?.tokens.drain(..));
        }
        for (change, id) in self.book.borrow_mut().take_changes() {
            if !self.changes.contains(&(change, id.clone())) {
                self.seen.unrecorded_changes.push(format!("{change:?} {id}"));
            }
        }
        let answers = self.ledger.answers.replace(Some(Vec::new())).unwrap_or_default();
        for (number, when) in answers {
            self.seen.answered += 1;
            if self.ledger.flags(number).has(Ended::RECORDED) {
                continue;
            }
            let ago = at.saturating_duration_since(when);
            self.seen.longest_without = self.seen.longest_without.max(ago);
            let without_a_core = self.ledger.pauses.borrow().since(when);
            match ago.saturating_sub(self.lag) {
                Duration::ZERO => self.seen.too_young += 1,
                late if late <= without_a_core => self.seen.starved += 1,
                _ if self.disk.was_slow(when, at) => self.seen.slow_disk += 1,
                _ => self.seen.unrecorded.push(number),
            }
        }
        Ok(())
    }
}

/// Kills the gateway. Returns when: what was answered before was answered by it.
fn kill(stage: &Stage) -> io::Result<Instant> {
    stage.ledger.is_killed.set(true);
    stage.is_over.set(true);
    let at = Instant::now();
    stage.gateway.kill()?;
    Ok(at)
}

/// Everyone goes.
async fn leave(stage: &Stage, clients: Crowd, mut operators: JoinSet<()>) {
    clients.leave(stage).await;
    stage.is_over.set(true);
    let left = async { while operators.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(PATIENCE, left).await;
}

/// Notes when the gateway's threads waited for a core.
fn watch(stage: &Rc<Stage>) -> tokio::task::JoinHandle<()> {
    let (ledger, mut waiting) = (stage.ledger.clone(), Waiting::new(stage.gateway.pid()));
    spawn_local(async move {
        loop {
            let before = Instant::now();
            tokio::time::sleep(LOOK).await;
            let lost = before.elapsed().saturating_sub(LOOK * 2).max(waiting.more());
            ledger.pauses.borrow_mut().note(Instant::now(), lost);
        }
    })
}
