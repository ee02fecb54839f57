//! Calls by door, upstream, tool and outcome, counted without a lock, a clock or a hash function.
//!
//! A worker has one counter for each [`Row`], door and outcome, in one block ([`CallCounters`]); counting is a load and a store. Which row a tool
//! has, the worker remembers in a small table of its own ([`ToolRows`]): its place is a multiplication over the name's first and last
//! bytes, and the name is compared. Only what is not there is looked for in the process's table.

use std::sync::Arc;

use crate::observe::metrics::Counter;
use crate::state::events::Outcome;
use crate::state::lifecycle::Door;
use crate::state::tools::{Row, ToolNames};

const DOORS: usize = Door::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

/// One worker's counters; 43 KiB with one upstream.
#[derive(Debug)]
pub struct CallCounters(Box<[Counter]>);

impl CallCounters {
    /// All zero.
    #[must_use]
    pub fn new(upstreams: usize) -> Self {
        Self((0..ToolNames::rows(upstreams) * DOORS * OUTCOMES).map(|_| Counter::default()).collect())
    }

    /// Counts a call that has ended. Only the owning thread may call this.
    pub fn count(&self, row: Row, door: Door, outcome: Outcome) {
        if let Some(counter) = self.0.get(place(row, door, outcome)) {
            counter.inc();
        }
    }

    /// Calls that ended so.
    #[must_use]
    pub fn get(&self, row: Row, door: Door, outcome: Outcome) -> u64 {
        self.0.get(place(row, door, outcome)).map_or(0, Counter::get)
    }

    /// All calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

fn place(row: Row, door: Door, outcome: Outcome) -> usize {
    (row.index() * DOORS + door.index()) * OUTCOMES + outcome.index()
}

/// Places of the table, as a power of two.
const PLACE_BITS: u32 = 6;

/// The rows that one worker has looked up. A name that takes another's place displaces it.
pub(crate) struct ToolRows {
    names: Arc<ToolNames>,
    places: Vec<Option<Known>>,
}

struct Known {
    upstream: usize,
    /// As the client spells it.
    name: Box<[u8]>,
    row: Row,
}

impl ToolRows {
    pub(crate) fn new(names: Arc<ToolNames>) -> Self {
        Self { names, places: std::iter::repeat_with(|| None).take(1 << PLACE_BITS).collect() }
    }

    /// The row of a call of a tool. `own_name` gives the upstream's own name for it, and is asked only for names that are not known yet.
    pub(crate) fn of_tool<'n>(
        &mut self,
        upstream: Option<usize>,
        name: &'n [u8],
        succeeded: bool,
        own_name: impl FnOnce(&'n str) -> &'n str,
    ) -> Row {
        let Some(index) = upstream else { return self.names.other(None) };
        let place = self.places.get_mut(place_of(index, name));
        if let Some(Some(known)) = place.as_deref()
            && known.upstream == index
            && *known.name == *name
        {
            return known.row;
        }
        let Ok(text) = std::str::from_utf8(name) else { return self.names.other(upstream) };
        let Some(row) = self.names.find(index, own_name(text), succeeded) else {
            return self.names.other(upstream);
        };
        if let Some(place) = place {
            *place = Some(Known { upstream: index, name: name.into(), row });
        }
        row
    }

    /// The row of a request that calls no tool.
    pub(crate) fn of_method(&self, upstream: Option<usize>) -> Row {
        self.names.no_tool(upstream)
    }
}

/// Spreads names well enough: what meets is compared, and costs a look into the process's table.
fn place_of(upstream: usize, name: &[u8]) -> usize {
    let eight = |bytes: &[u8]| bytes.iter().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
    let head = name.first_chunk::<8>().map_or_else(|| eight(name), |first| u64::from_le_bytes(*first));
    let tail = name.last_chunk::<8>().map_or(0, |last| u64::from_le_bytes(*last));
    let mixed = head ^ tail.rotate_left(29) ^ ((name.len() as u64) << 40) ^ ((upstream as u64) << 52);
    let spread = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(spread >> (64 - PLACE_BITS)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_counted_as_other_until_it_is_known_and_then_by_its_name() {
        let names = Arc::new(ToolNames::new(2));
        let mut rows = ToolRows::new(names.clone());
        let mut row = |name: &'static str, succeeded| rows.of_tool(Some(0), name.as_bytes(), succeeded, |name| name);
        assert_eq!(row("echo", false), names.other(Some(0)));
        let echo = row("echo", true);
        assert_ne!(echo, names.other(Some(0)));
        assert_eq!(row("echo", false), echo);
        // Under a prefix it is the same tool.
        let prefixed = rows.of_tool(Some(0), b"up__echo", false, |name| name.strip_prefix("up__").unwrap());
        assert_eq!(prefixed, echo);
        assert_eq!(rows.of_tool(None, b"echo", true, |name| name), names.other(None));
        assert_eq!(rows.of_tool(Some(0), b"\xff", true, |name| name), names.other(Some(0)));
    }

    #[test]
    fn names_that_meet_in_one_place_are_told_apart() {
        let names = Arc::new(ToolNames::new(2));
        let mut rows = ToolRows::new(names.clone());
        // Far more than there are places.
        let all: Vec<String> = (0..120).map(|n| format!("tool_{n}")).collect();
        for round in 0..2 {
            for (upstream, name) in (0..2).flat_map(|upstream| all.iter().map(move |name| (upstream, name))) {
                let row = rows.of_tool(Some(upstream), name.as_bytes(), round == 0, |name| name);
                assert_eq!(Some(row), names.find(upstream, name, false), "{upstream} {name}");
            }
        }
    }

    #[test]
    fn names_are_spread_over_the_places() {
        let names = ["echo", "add", "get_weather", "send_email", "send_sms", "search_files", "read_file", "write_file"];
        let numbered: Vec<String> = (0..56).map(|n| format!("list_items_{n:02}")).collect();
        let all = names.iter().copied().chain(numbered.iter().map(String::as_str));
        let used: std::collections::HashSet<_> = all.map(|name| place_of(0, name.as_bytes())).collect();
        assert!(used.len() >= 32, "{} of 64 places", used.len());
    }

    #[test]
    fn counters_do_not_meet() {
        let names = ToolNames::new(1);
        let counters = CallCounters::new(1);
        let echo = names.find(0, "echo", true).unwrap();
        let all: Vec<_> = [names.other(None), names.no_tool(Some(0)), echo]
            .into_iter()
            .flat_map(|row| Door::ALL.iter().flat_map(move |door| Outcome::ALL.iter().map(move |o| (row, *door, *o))))
            .collect();
        for (n, (row, door, outcome)) in all.iter().enumerate() {
            (0..=n).for_each(|_| counters.count(*row, *door, *outcome));
        }
        for (n, (row, door, outcome)) in all.iter().enumerate() {
            assert_eq!(counters.get(*row, *door, *outcome), n as u64 + 1);
        }
        assert_eq!(counters.total(), (1..=all.len() as u64).sum::<u64>());
    }
}
