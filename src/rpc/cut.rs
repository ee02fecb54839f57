//! What is to be cut out of an answer to `tools/list` so that some of its tools are left: spans of the received bytes. What is left is as
//! it came.
//!
//! It errs to one side only. A member without one plain name is cut, since nobody could say whose it is; an answer in which the list itself
//! could be read in two ways is [`Unclear`] and should go to nobody.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::envelope::Envelope;
use super::lookalike::is_lookalike;
use super::scan;
use super::splice;
use super::text::Text;
use crate::span::Span;

/// What stands for a cached list that is one principal's.
const PRIVATE: &[u8] = b"\"private\"";

/// What is to be replaced, and by what: nothing, but for a list that becomes private.
pub type Cut = (Span, &'static [u8]);

/// The list is no array, or a key stands there that some parsers take for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list of tools cannot be read")]
pub struct Unclear;

/// Leaves the tools in a checked response that `keep` says yes to, by their decoded names and their bytes: the edits are appended to `edits`, for
/// [`splice::splice`], in order. A list that others may be given from a cache (`cacheScope`, MCP 2026-07-28) becomes private.
///
/// A response without a list, and an error, needs no edits. `raw` is what `envelope` was parsed from.
///
/// # Errors
/// [`Unclear`].
pub fn keep_tools(
    envelope: &Envelope,
    raw: &[u8],
    keep: impl FnMut(&str, &[u8]) -> bool,
    edits: &mut Vec<Cut>,
) -> Result<(), Unclear> {
    let Some(result) = envelope.result else { return Ok(()) };
    let (mut list, mut scope) = (None, None);
    for (key, value) in scan::members(raw, result) {
        match &*key.decode(raw) {
            "tools" => list = Some(value),
            "cacheScope" => scope = Some(value),
            other if is_lookalike(other, "tools") => return Err(Unclear),
            _ => {}
        }
    }
    let Some(list) = list else { return Ok(()) };
    if list.of(raw).first() != Some(&b'[') {
        return Err(Unclear);
    }
    cut_members(raw, list, keep, edits);
    if let Some(scope) = scope.filter(|scope| scope.of(raw) != PRIVATE) {
        edits.push((scope, PRIVATE));
    }
    splice::sort(edits);
    Ok(())
}

/// Cuts whole runs of members, each with the comma that it no longer needs.
fn cut_members(raw: &[u8], list: Span, mut keep: impl FnMut(&str, &[u8]) -> bool, edits: &mut Vec<Cut>) {
    let mut last_kept_end = None;
    let mut run: Option<Span> = None;
    for member in scan::elements(raw, list) {
        if name(raw, member).is_some_and(|name| keep(&name.decode(raw), member.of(raw))) {
            if let Some(cut) = run.take() {
                edits.push((Span::new(cut.start, member.start), b""));
            }
            last_kept_end = Some(member.end);
        } else {
            run = Some(Span::new(run.map_or(member.start, |cut| cut.start), member.end));
        }
    }
    if let Some(cut) = run {
        edits.push((Span::new(last_kept_end.unwrap_or(cut.start), cut.end), b""));
    }
}

/// The name of a tool; `None` where it has none, or a second one for parsers that fold case.
fn name(raw: &[u8], member: Span) -> Option<Text> {
    let mut name = None;
    for (key, value) in scan::members(raw, member) {
        if key.equals(raw, b"name") {
            name = Some(scan::text(raw, value)?);
        } else if is_lookalike(&key.decode(raw), "name") {
            return None;
        }
    }
    name
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
