//! [`Parser`]: checks one message at a time, reusing its memory.
//!
//! simd-json unescapes strings in place, and what is forwarded must stay as it came, so the parser works on a copy: a tape over a
//! padded scratch buffer. The copy stays until the next message, so that decoded strings can be read from it ([`Parser::text`]).

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::bounds::{KEEP_SCRATCH_BYTES, MAX_BATCH_MEMBERS};
use super::envelope::{Envelope, Kind};
use super::malformed::{Fault, Malformed};
use super::read;
use super::scan::{self, skip_blanks};
use super::tape::Doc;
use super::text::Text;
use crate::span::Span;
use simd_json::{Buffers, INPUT_PADDING, Node, Tape, tape::Value};

/// Parses messages, one at a time. One a worker is enough.
pub struct Parser {
    max_depth: usize,
    /// The message, its strings decoded in place, and the padding that simd-json reads over.
    scratch: Vec<u8>,
    buffers: Buffers,
    /// Empty between calls: kept for its memory.
    tape: Tape<'static>,
    /// Scratch for sorting the keys of large objects.
    order: Vec<(u64, u32)>,
}

impl std::fmt::Debug for Parser {
    /// Without the message: it may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").field("max_depth", &self.max_depth).finish_non_exhaustive()
    }
}

impl Parser {
    /// A parser that refuses nesting deeper than `max_depth` (1 = an object or array of scalars).
    #[must_use]
    pub fn new(max_depth: usize) -> Self {
        Self {
            max_depth,
            scratch: Vec::new(),
            buffers: Buffers::with_max_depth(0, max_depth),
            tape: Tape(Vec::new()),
            order: Vec::new(),
        }
    }

    /// Checks one message and finds its parts. Linear in its length (n log n in the keys of one object).
    ///
    /// # Errors
    /// What is wrong with it, see [`Fault`].
    pub fn parse(&mut self, raw: &[u8]) -> Result<Envelope, Malformed> {
        let mut envelope = Envelope::empty(Kind::Notification);
        self.tape_of(raw, |doc, _, order| read::message(doc, order, &mut envelope))?;
        Ok(envelope)
    }

    /// Like [`Parser::parse`], and lets `look` see the whole message, parsed, before the tape is dropped.
    ///
    /// # Errors
    /// As [`Parser::parse`]; `look` is not called then.
    pub fn parse_with<R>(
        &mut self,
        raw: &[u8],
        look: impl FnOnce(&Envelope, Value<'_, '_>) -> R,
    ) -> Result<(Envelope, R), Malformed> {
        self.tape_of(raw, |doc, tape, order| {
            let mut envelope = Envelope::empty(Kind::Notification);
            read::message(doc, order, &mut envelope)?;
            let seen = look(&envelope, tape.as_value());
            Ok((envelope, seen))
        })
    }

    /// Splits a batch into its members' spans, appended to `out`. Each is then to be parsed by itself, as a message of its own:
    /// only here it is checked that the whole is JSON, not what the members are.
    ///
    /// # Errors
    /// Not JSON, not an array, empty, or more than [`MAX_BATCH_MEMBERS`].
    pub fn parse_batch(&mut self, raw: &[u8], out: &mut Vec<Span>) -> Result<(), Malformed> {
        let len = self.tape_of(raw, |doc, _, _| match doc.nodes.first() {
            Some(Node::Array { len, .. }) => Ok(*len),
            _ => Err(Malformed::new(Fault::NotBatch, 0)),
        })?;
        if len == 0 {
            return Err(Malformed::new(Fault::EmptyBatch, 0));
        }
        if len > MAX_BATCH_MEMBERS {
            return Err(Malformed::new(Fault::LargeBatch, 0));
        }
        out.extend(scan::elements(raw, Span::from_usize(skip_blanks(raw, 0), raw.len())));
        Ok(())
    }

    /// The decoded string of a [`Text`] of the message parsed last; empty for a text of another message.
    #[must_use]
    pub fn text(&self, text: Text) -> &str {
        let start = (text.span.start as usize).saturating_add(1);
        let bytes = self.scratch.get(start..start.saturating_add(text.len as usize));
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// What stands in a span of the message parsed last, its strings decoded in place: each begins where it began in the message, and what is
    /// behind a string that had escapes is left from those. For a look at all strings at once.
    #[must_use]
    pub fn decoded(&self, span: Span) -> &[u8] {
        self.scratch.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Parses `raw` to a tape, shows it to `read`, and takes the tape's memory back.
    fn tape_of<R>(
        &mut self,
        raw: &[u8],
        read: impl FnOnce(&Doc<'_, '_>, &Tape<'_>, &mut Vec<(u64, u32)>) -> Result<R, Malformed>,
    ) -> Result<R, Malformed> {
        if u32::try_from(raw.len()).is_err() {
            return Err(Malformed::new(Fault::Syntax, 0)); // the settings bound messages far below
        }
        self.load(raw);
        let base = self.scratch.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = simd_json::fill_tape_padded(&mut self.scratch, raw.len(), &mut self.buffers, &mut tape);
        let outcome = match filled {
            Ok(()) => read(&Doc { raw, nodes: &tape.0, base }, &tape, &mut self.order),
            Err(error) => Err(diagnose(raw, error.index(), self.max_depth)),
        };
        self.tape = tape.reset();
        outcome
    }

    /// Copies the message to scratch, padded. Memory that a giant left behind is given back first.
    fn load(&mut self, raw: &[u8]) {
        if self.scratch.capacity() > KEEP_SCRATCH_BYTES && raw.len() <= KEEP_SCRATCH_BYTES / 2 {
            *self = Self::new(self.max_depth);
        }
        self.scratch.clear();
        self.scratch.reserve(raw.len().saturating_add(INPUT_PADDING));
        self.scratch.extend_from_slice(raw);
        self.scratch.extend_from_slice(&[b' '; INPUT_PADDING]);
    }
}

/// Does this body look like a batch: is its first byte, after whitespace, `[`?
#[must_use]
pub fn is_batch(raw: &[u8]) -> bool {
    raw.get(skip_blanks(raw, 0)) == Some(&b'[')
}

/// What is wrong with bytes that did not parse, and where. `index` is where the parser stopped; 0 when it did not say.
#[cold]
fn diagnose(raw: &[u8], index: usize, max_depth: usize) -> Malformed {
    if raw.starts_with(b"\xEF\xBB\xBF") {
        return Malformed::new(Fault::ByteOrderMark, 0);
    }
    if let Err(error) = std::str::from_utf8(raw) {
        return Malformed::new(Fault::Utf8, error.valid_up_to());
    }
    let mut at = skip_blanks(raw, 0);
    if at == raw.len() {
        return Malformed::new(Fault::Empty, 0);
    }
    let mut depth = 0usize;
    while let Some(&byte) = raw.get(at) {
        if index > 0 && at > index {
            break;
        }
        match byte {
            b'"' => match string_fault(raw, at) {
                Ok(end) => {
                    at = end;
                    if depth > 0 {
                        continue;
                    }
                }
                Err(at) => return Malformed::new(Fault::Syntax, at.max(index)),
            },
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                if depth > max_depth {
                    return Malformed::new(Fault::TooDeep { max: u32::try_from(max_depth).unwrap_or(u32::MAX) }, at);
                }
            }
            b'}' | b']' if depth == 0 => break,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at = at.saturating_add(1);
        if depth == 0 && matches!(byte, b'}' | b']') {
            let rest = skip_blanks(raw, at);
            // The parser stops at the last byte that it could place, or says nothing.
            if rest < raw.len() && (index == 0 || index.saturating_add(1) >= at) {
                return Malformed::new(Fault::TrailingBytes, rest);
            }
        }
    }
    Malformed::new(Fault::Syntax, if index == 0 && depth > 0 { raw.len() } else { index })
}

/// One past the string that begins at `at`; `Err` with the place of a control character or of the missing end.
fn string_fault(raw: &[u8], at: usize) -> Result<usize, usize> {
    let end = scan::string_end(raw, at);
    let inside = raw.get(at..end.unwrap_or(raw.len())).unwrap_or(&[]);
    match inside.iter().position(|&byte| byte < 0x20) {
        Some(control) => Err(at.saturating_add(control)),
        None => end.ok_or(raw.len()),
    }
}
