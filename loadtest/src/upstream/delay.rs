//! Answers that wait for their time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::super::generate::Random;

/// Answers that may wait. More are refused, which closes the connection that asks for one more.
const MAX_WAITING: usize = 1_000_000;

/// Answers by the time at which they are due.
pub(super) struct Delayed {
    start: Instant,
    mean_ns: f64,
    random: Option<Random>,
    /// Due time and number: what is due at the same time leaves in the order in which it came.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    given: u64,
    places: Vec<Answer>,
    vacant: Vec<usize>,
}

/// An answer, and whom it is for.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) client: usize,
    /// Which of the clients that have had this number.
    pub(super) generation: u64,
    pub(super) bytes: Vec<u8>,
}

impl Delayed {
    pub(super) fn new(mean: Duration, exponential: bool) -> Self {
        Self {
            start: Instant::now(),
            mean_ns: mean.as_nanos() as f64,
            random: exponential.then(|| Random::new(1)),
            order: BinaryHeap::new(),
            given: 0,
            places: Vec::new(),
            vacant: Vec::new(),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets an answer wait, and returns when it is due; never before `not_before_ns`. `None` if too many wait.
    pub(super) fn put(&mut self, answer: Answer, not_before_ns: u64) -> Option<u64> {
        if self.order.len() >= MAX_WAITING {
            return None;
        }
        let delay = self.random.as_mut().map_or(self.mean_ns, |random| random.exponential() * self.mean_ns);
        let due_ns = self.now_ns().saturating_add(delay as u64).max(not_before_ns);
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Answer::default());
            self.places.len() - 1
        });
        if let Some(vacant) = self.places.get_mut(place) {
            *vacant = answer;
        }
        self.given += 1;
        self.order.push(Reverse((due_ns, self.given, place)));
        Some(due_ns)
    }

    /// An answer whose time has come.
    pub(super) fn take(&mut self) -> Option<Answer> {
        let Reverse((due_ns, _, place)) = *self.order.peek()?;
        if due_ns > self.now_ns() {
            return None;
        }
        self.order.pop();
        self.vacant.push(place);
        self.places.get_mut(place).map(std::mem::take)
    }

    /// How long until the next one is due.
    pub(super) fn patience(&self) -> Option<Duration> {
        let Reverse((due_ns, ..)) = self.order.peek()?;
        Some(Duration::from_nanos(due_ns.saturating_sub(self.now_ns())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_their_times_and_not_before() {
        let mut delayed = Delayed::new(Duration::from_millis(2), true);
        let mut dues: Vec<(u64, usize)> = Vec::new();
        for client in 0..200 {
            // Every tenth must not overtake the one before.
            let not_before = if client % 10 == 9 { dues.last().map_or(0, |last| last.0) } else { 0 };
            let due = delayed.put(Answer { client, ..Answer::default() }, not_before).unwrap_or_default();
            assert!(due >= not_before);
            dues.push((due, client));
        }
        dues.sort_unstable();
        for (due, client) in dues {
            let answer = loop {
                if let Some(answer) = delayed.take() {
                    break answer;
                }
                std::thread::park_timeout(delayed.patience().unwrap_or_default());
            };
            assert!(delayed.now_ns() >= due);
            assert_eq!(answer.client, client);
        }
        assert!(delayed.take().is_none() && delayed.patience().is_none());
    }
}
