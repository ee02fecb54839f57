//! Which tools are told apart in metrics: a bounded table of names for the whole process.
//!
//! A call is counted in a [`Row`]: one for each upstream and tool. A tool gets a row of its own on its first call after an upstream has listed
//! it, or after a call to it has succeeded; so a client that makes names up fills nothing. There are [`MAX_TOOLS`] rows for tools, and no upstream
//! may take more than its share, so that one that lists without end leaves room for the others. What has no row counts as
//! [`OTHER`] of its upstream.
//!
//! Rows are given once and stay. Reading takes no lock; a new name copies the table, which happens a bounded number of times.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Tools that are told apart: with three doors and seven outcomes 5,376 series at most.
pub const MAX_TOOLS: usize = 256;
/// Names that are remembered as listed, over all upstreams.
pub const MAX_LISTED: usize = 4096;
/// The longest name that gets a row, bytes: the length that MCP allows tools.
pub const MAX_NAME: usize = 128;
/// The name under which all others are counted. A tool that is called so gets no row.
pub const OTHER: &str = "other";

/// Where a call is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(u16);

impl Row {
    /// Its number; below [`ToolNames::rows`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    fn new(index: usize) -> Self {
        Self(u16::try_from(index).unwrap_or(0))
    }
}

/// What is counted in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    /// The upstream's number; `None` where the gateway answered by itself, asked several, or refused before it knew.
    pub upstream: Option<usize>,
    /// The tool; empty for requests that call none.
    pub tool: &'a str,
}

/// The names, and their rows.
#[derive(Debug)]
pub struct ToolNames {
    upstreams: usize,
    names: ArcSwap<Names>,
}

#[derive(Clone, Debug, Default)]
struct Names {
    /// By upstream: the row, or `None` for a name that was listed and never called.
    known: Vec<HashMap<Box<str>, Option<Row>>>,
    /// The tools that have rows, in their order.
    rows: Vec<(usize, Box<str>)>,
}

/// Rows that no tool has: for each upstream and for no upstream, those for other methods and for other tools.
const FIXED: usize = 2;

impl ToolNames {
    /// No names yet.
    #[must_use]
    pub fn new(upstreams: usize) -> Self {
        let names = Names { known: vec![HashMap::new(); upstreams], rows: Vec::new() };
        Self { upstreams, names: ArcSwap::from_pointee(names) }
    }

    /// How many rows there can be for `upstreams`.
    #[must_use]
    pub const fn rows(upstreams: usize) -> usize {
        FIXED * (upstreams + 1) + MAX_TOOLS
    }

    /// The row of requests that call no tool.
    #[must_use]
    pub fn no_tool(&self, upstream: Option<usize>) -> Row {
        self.fixed(upstream, 0)
    }

    /// The row of all tools that have none of their own.
    #[must_use]
    pub fn other(&self, upstream: Option<usize>) -> Row {
        self.fixed(upstream, 1)
    }

    fn fixed(&self, upstream: Option<usize>, which: usize) -> Row {
        let place = upstream.filter(|index| *index < self.upstreams).unwrap_or(self.upstreams);
        Row::new(FIXED * place + which)
    }

    /// Takes note of what an upstream lists.
    pub fn list<'a, N: AsRef<str> + 'a>(&self, upstream: usize, listed: impl Iterator<Item = N> + Clone) {
        let current = self.names.load();
        let share = MAX_LISTED / self.upstreams.max(1);
        let Some(known) = current.known.get(upstream).filter(|known| known.len() < share) else { return };
        if listed.clone().all(|name| known.contains_key(name.as_ref()) || !may_have_row(name.as_ref())) {
            return;
        }
        self.names.rcu(|names| {
            let mut names = Names::clone(names);
            if let Some(known) = names.known.get_mut(upstream) {
                for name in listed.clone() {
                    let name = name.as_ref();
                    if known.len() < share && may_have_row(name) && !known.contains_key(name) {
                        known.insert(name.into(), None);
                    }
                }
            }
            names
        });
    }

    /// The row of a tool that is called; `None` as long as it has none. `succeeded`: the upstream has carried the call out.
    #[must_use]
    pub fn find(&self, upstream: usize, name: &str, succeeded: bool) -> Option<Row> {
        let names = self.names.load();
        match names.known.get(upstream)?.get(name) {
            Some(Some(row)) => return Some(*row),
            None if !succeeded => return None,
            Some(None) | None => {}
        }
        if !self.has_room(&names, upstream) || !may_have_row(name) {
            return None;
        }
        drop(names);
        self.names.rcu(|names| self.with_row(names, upstream, name));
        self.names.load().known.get(upstream)?.get(name).copied().flatten()
    }

    /// Whether an upstream may have another row.
    #[must_use]
    pub fn is_full(&self, upstream: usize) -> bool {
        !self.has_room(&self.names.load(), upstream)
    }

    fn has_room(&self, names: &Names, upstream: usize) -> bool {
        // A few upstreams share the rows evenly; of many, each may have an eighth.
        let share = MAX_TOOLS / self.upstreams.clamp(1, 8);
        names.rows.len() < MAX_TOOLS && names.rows.iter().filter(|(of, _)| *of == upstream).count() < share
    }

    fn with_row(&self, names: &Arc<Names>, upstream: usize, name: &str) -> Arc<Names> {
        // Another worker may have been first.
        let has_row = names.known.get(upstream).and_then(|known| known.get(name)).is_some_and(Option::is_some);
        if has_row || !self.has_room(names, upstream) {
            return Arc::clone(names);
        }
        let mut names = Names::clone(names);
        let row = Row::new(FIXED * (self.upstreams + 1) + names.rows.len());
        if let Some(known) = names.known.get_mut(upstream) {
            known.insert(name.into(), Some(row));
            names.rows.push((upstream, name.into()));
        }
        Arc::new(names)
    }

    /// All rows that may have been counted in, with what they mean.
    pub fn each(&self, mut see: impl FnMut(Row, Labels<'_>)) {
        for place in 0..=self.upstreams {
            let upstream = (place < self.upstreams).then_some(place);
            see(self.no_tool(upstream), Labels { upstream, tool: "" });
            see(self.other(upstream), Labels { upstream, tool: OTHER });
        }
        for (n, (upstream, tool)) in self.names.load().rows.iter().enumerate() {
            let row = Row::new(FIXED * (self.upstreams + 1) + n);
            see(row, Labels { upstream: Some(*upstream), tool });
        }
    }
}

/// A name that would make no good label, or could be taken for all others, gets no row.
fn may_have_row(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name != OTHER && !name.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "tools_tests.rs"]
mod tests;
