//! Every call of a run, from its making to its line in the audit trail, and every rule that was broken on the way.
//!
//! An open call is held whole; of one that has ended a byte is kept, so that an hour's run fits. What may happen to a call is decided here and
//! nowhere else: the clients only say what they were told, the upstreams only what they have seen.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::call::Call;
use super::fault::{self, Fault, Way};
use super::pauses::{PAUSE, Pauses};
use super::verdict::{Allowed, Verdict};

/// How long after its end a disturbance may still be noticed: twice the gateway's time for a call.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(6);

/// The same for who was told that the upstream cannot be reached: the broker waits longer after each failure, up to 30 s.
const BACK_OFF: Duration = Duration::from_secs(35);

/// Violations that are kept in full; more are counted.
const KEPT: usize = 100;

/// What is kept of a call that has ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Ended(u8);

impl Ended {
    /// Its upstream has seen it.
    pub(crate) const SEEN: u8 = 1;
    /// It was made, and has ended at its client.
    pub(crate) const ENDED: u8 = 2;
    /// Its client has the right answer.
    pub(crate) const RIGHT: u8 = 4;
    /// Its client was told that it was not made.
    pub(crate) const NOT_MADE: u8 = 8;
    /// It was made.
    pub(crate) const BEGUN: u8 = 16;
    /// The trail has a line of it.
    pub(crate) const RECORDED: u8 = 32;
    /// Its client has left before its end.
    pub(crate) const LEFT: u8 = 64;

    pub(crate) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// A call in flight.
struct Open {
    call: Call,
    way: Way,
    upstream: usize,
    began: Instant,
    extra: Allowed,
}

/// Why a run is not clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The name of the check that it breaks.
    pub(crate) check: &'static str,
    pub(crate) what: String,
}

/// What a client may be told beside the fault's own row, and until when.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    upstream: usize,
    /// `None` while it lasts.
    until: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Open>>,
    ended: RefCell<Vec<Ended>>,
    disturbances: RefCell<Vec<Disturbance>>,
    violations: RefCell<Vec<Violation>>,
    more: Cell<u64>,
    counts: RefCell<BTreeMap<(Fault, Way, Verdict), u64>>,
    /// In production, while the disk is full.
    pub(crate) may_refuse_unrecorded: Cell<bool>,
    /// When sampled calls were answered, for whoever watches the trail.
    pub(crate) answered_at: RefCell<HashMap<u64, Instant>>,
    /// When harness or gateway got no core, and how many answers were late for that reason alone.
    pub(crate) pauses: RefCell<Pauses>,
    pub(crate) starved: Cell<u64>,
    /// Whether times of answers are wanted.
    pub(crate) is_watched: Cell<bool>,
    /// Whether the gateway is being killed, or was: connections break then.
    pub(crate) is_killed: Cell<bool>,
    /// When calls were answered since this was last taken, where that is wanted of all.
    pub(crate) answers: RefCell<Option<Vec<(u64, Instant)>>>,
    prices: RefCell<Prices>,
}

/// Calls that cost something, all the same, up to a cap.
#[derive(Default)]
struct Prices {
    upstreams: Vec<usize>,
    /// How many such calls there may be.
    cap: u64,
    calls: Vec<u64>,
    capped: u64,
}

/// One call in so many is looked for on disk.
const SAMPLE: u64 = 7;

impl Ledger {
    /// Enters a call before its first byte is sent. `extra` is what it may end with beside its fault's row: a client that misbehaves knows.
    pub(crate) fn begin(
        &self,
        way: Way,
        upstream: usize,
        fault: Fault,
        (size, delay_ms): (usize, u64),
        extra: Allowed,
    ) -> Call {
        let number = self.next.get() + 1;
        self.next.set(number);
        let call = Call { number, fault, size, delay_ms };
        self.open.borrow_mut().insert(number, Open { call, way, upstream, began: Instant::now(), extra });
        let mut prices = self.prices.borrow_mut();
        if prices.upstreams.contains(&upstream) {
            prices.calls.push(number);
        }
        drop(prices);
        self.mark(number, Ended::BEGUN);
        call
    }

    /// From now on calls of these upstreams cost something, and there may be so many of them.
    pub(crate) fn price(&self, upstreams: Vec<usize>, cap: u64) {
        *self.prices.borrow_mut() = Prices { upstreams, cap, ..Prices::default() };
    }

    /// Calls that cost something, whatever became of them.
    pub(crate) fn priced(&self) -> Vec<u64> {
        self.prices.borrow().calls.clone()
    }

    /// Whether a call may be refused for the cap: all that were asked for and not refused, this one among them, are more than it has room for.
    fn may_be_capped(&self, upstream: usize) -> bool {
        let mut prices = self.prices.borrow_mut();
        let may_be = prices.upstreams.contains(&upstream) && prices.calls.len() as u64 - prices.capped > prices.cap;
        prices.capped += u64::from(may_be);
        may_be
    }

    /// A call has reached its upstream.
    pub(crate) fn seen(&self, number: u64, upstream: usize) {
        if !self.flags(number).has(Ended::BEGUN) {
            return self.violated(
                "no wrong answer",
                format!("upstream {upstream} was asked for call {number}, which nobody made"),
            );
        }
        if self.flags(number).has(Ended::SEEN) {
            self.violated("no call is made twice", format!("upstream {upstream} has got call {number} twice"));
        }
        if self.flags(number).has(Ended::NOT_MADE) {
            self.violated(
                "no call is made twice",
                format!("call {number} was made, after its client was told that it was not"),
            );
        }
        if self.open.borrow().get(&number).is_some_and(|open| open.upstream != upstream) {
            self.violated(
                "no wrong answer",
                format!("call {number} went to upstream {upstream}, which is not its own"),
            );
        }
        self.mark(number, Ended::SEEN);
    }

    /// A call has ended at its client, with this verdict.
    pub(crate) fn end(&self, number: u64, verdict: Verdict, shown: &[u8]) {
        let Some(open) = self.open.borrow_mut().remove(&number) else {
            return self
                .violated("no wrong answer", format!("a second end of call {number}: {verdict:?} {}", show(shown)));
        };
        *self.counts.borrow_mut().entry((open.call.fault, open.way, verdict)).or_default() += 1;
        self.judge(&open, verdict, shown);
        let told_not_made = if verdict.says_not_made() { Ended::NOT_MADE } else { 0 };
        let right = if verdict == Verdict::Right { Ended::RIGHT } else { 0 };
        let left = if matches!(verdict, Verdict::Left | Verdict::Cut | Verdict::Lost) { Ended::LEFT } else { 0 };
        if told_not_made != 0 && self.flags(number).has(Ended::SEEN) {
            self.violated(
                "no call is made twice",
                format!("call {number} was made, and its client is told that it was not"),
            );
        }
        self.mark(number, Ended::ENDED | told_not_made | right | left);
        if let Some(answers) = self.answers.borrow_mut().as_mut().filter(|_| right != 0) {
            answers.push((number, Instant::now()));
        }
        if self.is_watched.get() && number.is_multiple_of(SAMPLE) && right != 0 {
            self.answered_at.borrow_mut().insert(number, Instant::now());
        }
    }

    fn judge(&self, open: &Open, verdict: Verdict, shown: &[u8]) {
        let Open { call, way, upstream, began, extra } = open;
        let may = |set: Allowed| set.has(verdict);
        let unrecorded = verdict == Verdict::Unrecorded && self.may_refuse_unrecorded.get();
        if may(fault::allowed(call.fault, *way)) || may(*extra) || unrecorded {
            return;
        }
        if verdict == Verdict::Capped && self.may_be_capped(*upstream) {
            return;
        }
        if verdict == Verdict::Cut && self.is_killed.get() {
            return;
        }
        let aftermath = if verdict == Verdict::Unreached { BACK_OFF } else { AFTERMATH };
        if may(fault::collateral(*way)) && self.was_disturbed(*upstream, *began, aftermath) {
            return;
        }
        let away = self.pauses.borrow().since(*began);
        if verdict == Verdict::Late && away > PAUSE {
            return self.starved.set(self.starved.get() + 1);
        }
        let check = if verdict == Verdict::Lost { "every call has ended" } else { "no wrong answer" };
        let (fault, way) = (call.fault.name(), way.name());
        let (took, away) = (began.elapsed().as_millis(), away.as_millis());
        self.violated(
            check,
            format!(
                "call {} ({fault}, {way}, upstream {upstream}, {took} ms, {away} of them without a core): {verdict:?} {}",
                call.number,
                show(shown)
            ),
        );
    }

    /// From now on calls of this upstream may notice that others are treated badly.
    pub(crate) fn disturb(&self, upstream: usize) {
        self.disturbances.borrow_mut().push(Disturbance { upstream, until: None });
    }

    /// One of its disturbances is over.
    pub(crate) fn calm(&self, upstream: usize) {
        let mut all = self.disturbances.borrow_mut();
        if let Some(one) = all.iter_mut().find(|one| one.upstream == upstream && one.until.is_none()) {
            one.until = Some(Instant::now());
        }
        let now = Instant::now();
        // What nobody can notice any more is forgotten.
        all.retain(|one| one.until.is_none_or(|until| now < until + BACK_OFF + AFTERMATH));
    }

    /// Whether this upstream was disturbed when a call was made.
    fn was_disturbed(&self, upstream: usize, began: Instant, aftermath: Duration) -> bool {
        let all = self.disturbances.borrow();
        all.iter().any(|one| one.upstream == upstream && one.until.is_none_or(|until| began <= until + aftermath))
    }

    /// Notes a line of the trail. Returns whether the call had none before.
    pub(crate) fn recorded(&self, number: u64) -> bool {
        let before = self.flags(number);
        self.mark(number, Ended::RECORDED);
        !before.has(Ended::RECORDED)
    }

    /// Notes that a rule was broken.
    pub(crate) fn violated(&self, check: &'static str, what: String) {
        let mut violations = self.violations.borrow_mut();
        if violations.len() < KEPT {
            violations.push(Violation { check, what });
        } else {
            self.more.set(self.more.get() + 1);
        }
    }

    pub(crate) fn flags(&self, number: u64) -> Ended {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        self.ended.borrow().get(at).copied().unwrap_or_default()
    }

    fn mark(&self, number: u64, bits: u8) {
        let mut ended = self.ended.borrow_mut();
        // Numbers are ours and count up; one from outside is never marked before it was begun.
        let Ok(at) = usize::try_from(number) else { return };
        if at >= ended.len() && number <= self.next.get() {
            ended.resize(at + 1024, Ended::default());
        }
        if let Some(flags) = ended.get_mut(at) {
            flags.0 |= bits;
        }
    }

    /// The highest number that was given.
    pub(crate) fn last(&self) -> u64 {
        self.next.get()
    }

    pub(crate) fn open_calls(&self) -> usize {
        self.open.borrow().len()
    }

    pub(crate) fn counts(&self) -> BTreeMap<(Fault, Way, Verdict), u64> {
        self.counts.borrow().clone()
    }

    /// How many calls ended so.
    pub(crate) fn count_of(&self, verdict: Verdict) -> u64 {
        self.counts.borrow().iter().filter(|((_, _, of), _)| *of == verdict).map(|(_, count)| count).sum()
    }

    pub(crate) fn violations(&self) -> (Vec<Violation>, u64) {
        (self.violations.borrow().clone(), self.more.get())
    }
}

/// The beginning of what came, for a person.
fn show(bytes: &[u8]) -> String {
    let start = bytes.get(..bytes.len().min(240)).unwrap_or_default();
    format!("{:?}", String::from_utf8_lossy(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(ledger: &Ledger, fault: Fault) -> u64 {
        ledger.begin(Way::Linked, 1, fault, (0, 0), Allowed::NOTHING).number
    }

    fn broken(ledger: &Ledger) -> Vec<&'static str> {
        ledger.violations().0.iter().map(|violation| violation.check).collect()
    }

    #[test]
    fn a_clean_call_breaks_nothing() {
        let ledger = Ledger::default();
        let number = begun(&ledger, Fault::None);
        ledger.seen(number, 1);
        ledger.end(number, Verdict::Right, b"");
        assert!(broken(&ledger).is_empty());
        assert_eq!((ledger.open_calls(), ledger.count_of(Verdict::Right)), (0, 1));
        assert!(ledger.recorded(number) && !ledger.recorded(number), "the second line is noticed");
    }

    #[test]
    fn each_way_to_end_wrongly_is_a_violation() {
        for verdict in Verdict::ALL {
            let ledger = Ledger::default();
            ledger.end(begun(&ledger, Fault::None), verdict, b"x");
            let expected: &[&str] = match verdict {
                Verdict::Right => &[],
                Verdict::Lost => &["every call has ended"],
                _ => &["no wrong answer"],
            };
            assert_eq!(broken(&ledger), expected, "{verdict:?}");
        }
    }

    #[test]
    fn a_second_end_a_second_making_and_a_stranger_are_violations() {
        let ledger = Ledger::default();
        let number = begun(&ledger, Fault::None);
        ledger.end(number, Verdict::Right, b"");
        ledger.end(number, Verdict::Right, b"");
        assert_eq!(broken(&ledger), ["no wrong answer"]);
        let ledger = Ledger::default();
        let number = begun(&ledger, Fault::None);
        ledger.seen(number, 1);
        ledger.seen(number, 1);
        assert_eq!(broken(&ledger), ["no call is made twice"]);
        ledger.seen(number + 1, 1);
        assert_eq!(broken(&ledger).last(), Some(&"no wrong answer"));
        let ledger = Ledger::default();
        ledger.seen(begun(&ledger, Fault::None), 2);
        assert_eq!(broken(&ledger), ["no wrong answer"], "another upstream's");
    }

    #[test]
    fn a_call_that_was_made_must_not_be_told_otherwise() {
        let ledger = Ledger::default();
        ledger.disturb(1);
        let number = begun(&ledger, Fault::None);
        ledger.end(number, Verdict::Unreached, b"");
        assert!(broken(&ledger).is_empty());
        ledger.seen(number, 1);
        assert_eq!(broken(&ledger), ["no call is made twice"]);
        let number = begun(&ledger, Fault::None);
        ledger.seen(number, 1);
        ledger.end(number, Verdict::Busy, b"");
        assert_eq!(broken(&ledger).len(), 2);
    }

    #[test]
    fn who_shares_an_upstream_may_notice_its_faults_and_nobody_else() {
        let ledger = Ledger::default();
        ledger.disturb(1);
        let (near, far) =
            (begun(&ledger, Fault::None), ledger.begin(Way::Linked, 2, Fault::None, (0, 0), Allowed::NOTHING));
        ledger.end(near, Verdict::Broken, b"");
        assert!(broken(&ledger).is_empty());
        ledger.end(far.number, Verdict::Broken, b"");
        assert_eq!(broken(&ledger), ["no wrong answer"]);
        ledger.end(begun(&ledger, Fault::None), Verdict::Cut, b"");
        assert_eq!(broken(&ledger).len(), 2, "a cut is no consequence");
    }

    #[test]
    fn a_late_answer_is_the_gateways_fault_unless_there_was_no_core() {
        let ledger = Ledger::default();
        ledger.end(begun(&ledger, Fault::None), Verdict::Late, b"");
        assert_eq!((broken(&ledger), ledger.starved.get()), (vec!["no wrong answer"], 0));
        for (lost, starved) in [(PAUSE, 0), (PAUSE * 2, 1)] {
            let ledger = Ledger::default();
            let number = begun(&ledger, Fault::None);
            ledger.pauses.borrow_mut().note(Instant::now(), lost);
            ledger.end(number, Verdict::Late, b"");
            assert_eq!((broken(&ledger).len() as u64, ledger.starved.get()), (1 - starved, starved), "{lost:?}");
            // Anything else is wrong on any machine.
            ledger.end(begun(&ledger, Fault::None), Verdict::Broken, b"");
            assert_eq!(broken(&ledger).len() as u64, 2 - starved);
        }
    }

    #[test]
    fn a_kill_cuts_what_is_open_and_excuses_nothing_else() {
        let ledger = Ledger::default();
        ledger.is_killed.set(true);
        ledger.end(begun(&ledger, Fault::None), Verdict::Cut, b"");
        assert!(broken(&ledger).is_empty());
        ledger.end(begun(&ledger, Fault::None), Verdict::Wrong, b"");
        ledger.is_killed.set(false);
        ledger.end(begun(&ledger, Fault::None), Verdict::Cut, b"");
        assert_eq!(broken(&ledger), ["no wrong answer", "no wrong answer"]);
    }

    #[test]
    fn a_cap_refuses_what_it_has_no_room_for_and_nothing_before() {
        let ledger = Ledger::default();
        ledger.price(vec![1], 2);
        let calls: Vec<u64> = (0..4).map(|_| begun(&ledger, Fault::None)).collect();
        let free = ledger.begin(Way::Linked, 2, Fault::None, (0, 0), Allowed::NOTHING).number;
        assert_eq!(ledger.priced(), calls);
        // Of four there is room for two.
        for (number, broken_by_then) in calls.into_iter().zip([0, 0, 1, 2]) {
            ledger.end(number, Verdict::Capped, b"");
            assert_eq!(broken(&ledger).len(), broken_by_then);
        }
        ledger.end(free, Verdict::Capped, b"");
        assert_eq!(broken(&ledger).len(), 3, "it costs nothing");
    }

    #[test]
    fn unrecorded_calls_are_refused_only_while_they_may_be() {
        let ledger = Ledger::default();
        ledger.may_refuse_unrecorded.set(true);
        ledger.end(begun(&ledger, Fault::None), Verdict::Unrecorded, b"");
        assert!(broken(&ledger).is_empty());
        ledger.may_refuse_unrecorded.set(false);
        ledger.end(begun(&ledger, Fault::None), Verdict::Unrecorded, b"");
        assert_eq!(broken(&ledger), ["no wrong answer"]);
    }
}
