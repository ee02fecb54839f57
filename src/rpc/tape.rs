//! A view of simd-json's tape that knows where things stand in the received bytes.
//!
//! The tape has no positions, but a string on it is a slice of the scratch copy that begins at the same offset as in the received
//! bytes (unescaping only shortens it). So a key says where it stands; its value begins behind the key's closing quote and colon,
//! and ends before the next key or the closing brace, less the comma and the whitespace between. Only the few members of the
//! protocol are located so; whatever lies deeper is skipped by the tape's counts.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::bounds::MAX_ID_BYTES;
use super::envelope::{Id, IdKind, Member, Presence};
use super::keys::{Duplicate, after};
use super::malformed::{Fault, Malformed};
use super::reply::decimal;
use super::scan::{is_blank, skip_blanks, string_end};
use super::text::Text;
use crate::span::Span;
use simd_json::{Node, StaticNode};

/// A parsed message: the received bytes, the tape, and where the tape's scratch begins in memory.
#[derive(Clone, Copy)]
pub(super) struct Doc<'t, 'i> {
    pub(super) raw: &'t [u8],
    pub(super) nodes: &'t [Node<'i>],
    pub(super) base: usize,
}

/// A member of an object.
#[derive(Clone, Copy)]
pub(super) struct Entry<'i> {
    pub(super) key: &'i str,
    /// Its opening quote in the received bytes.
    pub(super) key_at: usize,
    /// Its value on the tape.
    pub(super) node: usize,
    /// The next key's opening quote, or the closing brace.
    limit: usize,
}

/// The members of one object, in order.
pub(super) struct Entries<'t, 'i> {
    doc: Doc<'t, 'i>,
    at: usize,
    left: usize,
    close: usize,
}

impl<'i> Iterator for Entries<'_, 'i> {
    type Item = Entry<'i>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'i>> {
        self.left = self.left.checked_sub(1)?;
        let (key, key_at) = self.doc.key(self.at)?;
        let node = self.at.saturating_add(1);
        self.at = after(self.doc.nodes, node);
        let limit = if self.left == 0 { self.close } else { self.doc.key(self.at)?.1 };
        Some(Entry { key, key_at, node, limit })
    }
}

impl<'t, 'i> Doc<'t, 'i> {
    /// The whole value without the whitespace around it.
    pub(super) fn whole(&self) -> Span {
        let start = skip_blanks(self.raw, 0);
        Span::from_usize(start, self.trim_end(start, self.raw.len()))
    }

    fn trim_end(&self, start: usize, mut end: usize) -> usize {
        while end > start && self.raw.get(end.saturating_sub(1)).is_some_and(|&b| is_blank(b)) {
            end = end.saturating_sub(1);
        }
        end
    }

    #[inline]
    pub(super) fn node(&self, at: usize) -> Option<Node<'i>> {
        self.nodes.get(at).copied()
    }

    /// The key at `at` on the tape, and its opening quote in the received bytes.
    #[inline]
    fn key(&self, at: usize) -> Option<(&'i str, usize)> {
        match self.node(at)? {
            Node::String(key) => Some((key, key.as_ptr().addr().checked_sub(self.base)?.checked_sub(1)?)),
            _ => None,
        }
    }

    /// The members of the object at `node`, which stands at `span`; none for another type.
    #[inline]
    pub(super) fn entries(&self, node: usize, span: Span) -> Entries<'t, 'i> {
        let left = match self.node(node) {
            Some(Node::Object { len, .. }) => len,
            _ => 0,
        };
        Entries { doc: *self, at: node.saturating_add(1), left, close: (span.end as usize).saturating_sub(1) }
    }

    /// Where the value of a member stands.
    #[inline]
    pub(super) fn span(&self, entry: &Entry<'i>) -> Span {
        let inner = entry.key_at.saturating_add(1);
        let guess = inner.saturating_add(entry.key.len());
        // A quote inside of a key as written would be one in the decoded key, and none of those asked for has any: so a quote at
        // the key's decoded length closes it. With escapes there is none, and its end is looked for.
        let plain = self.raw.get(guess) == Some(&b'"');
        let key_end =
            if plain { guess.saturating_add(1) } else { string_end(self.raw, entry.key_at).unwrap_or(entry.limit) };
        let colon = skip_blanks(self.raw, key_end);
        let start = skip_blanks(self.raw, colon.saturating_add(1));
        let mut end = self.trim_end(start, entry.limit);
        if self.raw.get(entry.limit) == Some(&b'"') && self.raw.get(end.saturating_sub(1)) == Some(&b',') {
            end = self.trim_end(start, end.saturating_sub(1));
        }
        Span::from_usize(start, end)
    }

    pub(super) fn member(&self, entry: &Entry<'i>) -> Member {
        let span = self.span(entry);
        match self.node(entry.node) {
            Some(Node::String(text)) => Member::Text(Text { span, len: u32::try_from(text.len()).unwrap_or(u32::MAX) }),
            _ => Member::OtherType(span),
        }
    }

    pub(super) fn is_object(&self, entry: &Entry<'i>) -> bool {
        matches!(self.node(entry.node), Some(Node::Object { .. }))
    }

    pub(super) fn presence(&self, entry: &Entry<'i>) -> Presence {
        let span = self.span(entry);
        if self.is_object(entry) { Presence::Object(span) } else { Presence::OtherType(span) }
    }

    /// A token or a request's id: a string or a number.
    pub(super) fn scalar(&self, entry: &Entry<'i>) -> Option<Span> {
        match self.node(entry.node)? {
            Node::String(_) | Node::Static(StaticNode::I64(_) | StaticNode::U64(_) | StaticNode::F64(_)) => {
                Some(self.span(entry))
            }
            _ => None,
        }
    }

    pub(super) fn id(&self, entry: &Entry<'i>) -> Result<Id, Fault> {
        let span = self.span(entry);
        let kind = match self.node(entry.node) {
            Some(Node::String(_)) => IdKind::String,
            Some(Node::Static(StaticNode::Null)) => IdKind::Null,
            // The tape rounds what does not fit 64 bits, so the bytes decide.
            Some(Node::Static(StaticNode::I64(_) | StaticNode::U64(_) | StaticNode::F64(_)))
                if span.of(self.raw).iter().all(|b| b.is_ascii_digit() || *b == b'-') =>
            {
                IdKind::Integer
            }
            _ => return Err(Fault::IdType),
        };
        if span.len() > MAX_ID_BYTES { Err(Fault::IdTooLong) } else { Ok(Id { span, kind }) }
    }

    /// A fault at a member: the pointer is the path given.
    pub(super) fn fault(fault: Fault, entry: &Entry<'_>, path: &[&str]) -> Malformed {
        let mut malformed = Malformed::new(fault, entry.key_at);
        for token in path {
            malformed.push_token(token);
        }
        malformed
    }
}

/// Where the duplicate stands: the pointer of its object, the offset of its key, and the message's id if that is not what is
/// doubled.
#[cold]
pub(super) fn duplicate_key(doc: &Doc<'_, '_>, whole: Span, duplicate: Duplicate) -> Malformed {
    let at = doc.key(duplicate.key).map_or(0, |(_, at)| at);
    let mut malformed = Malformed::new(Fault::DuplicateKey, at);
    let mut node = 0usize;
    // Down from the root, always into the child that holds the object.
    while node != duplicate.object {
        let Some((token, child)) = child_towards(doc, node, duplicate.object) else {
            break;
        };
        match token {
            Token::Key(key) => malformed.push_token(key),
            Token::Index(index) => malformed.push_token(decimal(index as u64, &mut [0; 20])),
        }
        node = child;
    }
    let mut ids = doc.entries(0, whole).filter(|entry| entry.key == "id");
    if let (Some(entry), None) = (ids.next(), ids.next()) {
        malformed.id = doc.id(&entry).ok().filter(|id| id.kind != IdKind::Null);
    }
    malformed
}

enum Token<'i> {
    Key(&'i str),
    Index(usize),
}

fn child_towards<'i>(doc: &Doc<'_, 'i>, node: usize, target: usize) -> Option<(Token<'i>, usize)> {
    let mut at = node.saturating_add(1);
    match doc.node(node)? {
        Node::Object { len, .. } => {
            for _ in 0..len {
                let (key, _) = doc.key(at)?;
                let child = at.saturating_add(1);
                at = after(doc.nodes, child);
                if target < at {
                    return Some((Token::Key(key), child));
                }
            }
        }
        Node::Array { len, .. } => {
            for index in 0..len {
                let child = at;
                at = after(doc.nodes, child);
                if target < at {
                    return Some((Token::Index(index), child));
                }
            }
        }
        _ => {}
    }
    None
}
