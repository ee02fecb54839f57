//! Duplicate keys, anywhere in a message.
//!
//! JSON parsers differ in which of two equal keys they believe, so a message that has any is one message to us and another to the
//! server behind us. Keys are compared decoded. The work stays near linear for any input: objects of up to [`SMALL`] keys are
//! compared pairwise behind a 64-bit filter, larger ones are sorted by hash (equal hashes by the keys themselves, so that crafted
//! collisions gain nothing).

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use arrayvec::ArrayVec;
use simd_json::Node;

/// Up to so many keys are compared pairwise.
const SMALL: usize = 16;

/// A duplicate: the tape positions of the object and of the later of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) object: usize,
    pub(super) key: usize,
}

/// The tape position after the value at `at`.
#[inline]
pub(super) fn after(nodes: &[Node<'_>], at: usize) -> usize {
    match nodes.get(at) {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => at.saturating_add(*count).saturating_add(1),
        _ => at.saturating_add(1),
    }
}

/// The first object on the tape that has a key twice. `order` is scratch.
pub(super) fn find_duplicate(nodes: &[Node<'_>], order: &mut Vec<(u64, u32)>) -> Option<Duplicate> {
    for (object, node) in nodes.iter().enumerate() {
        if let Node::Object { len, .. } = *node
            && len > 1
        {
            let key = if len <= SMALL { small(nodes, object, len) } else { large(nodes, object, len, order) };
            if let Some(key) = key {
                return Some(Duplicate { object, key });
            }
        }
    }
    None
}

/// Most small objects end after one pass: keys with different marks in the filter are different keys.
#[inline]
fn small(nodes: &[Node<'_>], object: usize, len: usize) -> Option<usize> {
    let mut filter = 0u64;
    let mut clash = false;
    let mut at = object.saturating_add(1);
    for _ in 0..len {
        let Some(Node::String(key)) = nodes.get(at) else {
            return None;
        };
        let (first, last) = match key.as_bytes() {
            [] => (0, 0),
            [one] => (*one, *one),
            [first, .., last] => (*first, *last),
        };
        let print =
            (key.len() as u64).wrapping_mul(7) ^ u64::from(first).wrapping_mul(3) ^ u64::from(last).wrapping_mul(5);
        let bit = 1u64 << (print & 63);
        clash |= filter & bit != 0;
        filter |= bit;
        at = after(nodes, at.saturating_add(1));
    }
    if clash { pairwise(nodes, object, len) } else { None }
}

fn pairwise(nodes: &[Node<'_>], object: usize, len: usize) -> Option<usize> {
    let mut seen: ArrayVec<&str, SMALL> = ArrayVec::new();
    let mut at = object.saturating_add(1);
    for _ in 0..len {
        let Some(Node::String(key)) = nodes.get(at) else {
            return None;
        };
        if seen.contains(key) {
            return Some(at);
        }
        if seen.try_push(key).is_err() {
            return None;
        }
        at = after(nodes, at.saturating_add(1));
    }
    None
}

/// Not keyed, and need not be: see the module's text.
fn hash(key: &[u8]) -> u64 {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut state = key.len() as u64;
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        state = (state.rotate_left(5) ^ word).wrapping_mul(MIX);
    }
    for &byte in words.remainder() {
        state = (state.rotate_left(5) ^ u64::from(byte)).wrapping_mul(MIX);
    }
    state ^ (state >> 32)
}

#[cold]
fn large(nodes: &[Node<'_>], object: usize, len: usize, order: &mut Vec<(u64, u32)>) -> Option<usize> {
    let key_at = |at: u32| match nodes.get(at as usize) {
        Some(Node::String(key)) => *key,
        _ => "",
    };
    order.clear();
    order.reserve(len);
    let mut at = object.saturating_add(1);
    for _ in 0..len {
        let Some(Node::String(key)) = nodes.get(at) else {
            return None;
        };
        order.push((hash(key.as_bytes()), u32::try_from(at).ok()?));
        at = after(nodes, at.saturating_add(1));
    }
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key_at(a.1).cmp(key_at(b.1))));
    let duplicates = order.windows(2).filter_map(|pair| match pair {
        [a, b] if a.0 == b.0 && key_at(a.1) == key_at(b.1) => Some(a.1.max(b.1) as usize),
        _ => None,
    });
    duplicates.min()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has_duplicate(json: &str) -> bool {
        let mut bytes = json.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).expect(json);
        find_duplicate(&tape.0, &mut Vec::new()).is_some()
    }

    #[test]
    fn named_cases() {
        for (json, want) in [
            (r"{}", false),
            (r#"{"a":1,"b":1}"#, false),
            (r#"{"a":1,"a":1}"#, true),
            (r#"{"a":1,"\u0061":2}"#, true),
            (r#"{"a":{"a":{"a":1}}}"#, false),
            (r#"[{"a":1},{"a":1}]"#, false),
            (r#"[[[{"x":[{"b":{},"b":{}}]}]]]"#, true),
            (r#"{"a":{"x":1,"y":[1,{"q":1}]},"a":1}"#, true),
            (r#"{"":1,"":2}"#, true),
            ("{\"\u{e9}\":1,\"e\u{301}\":2}", false), // composed and decomposed are two keys
            (r#"{"a":1,"A":2}"#, false),
        ] {
            assert_eq!(has_duplicate(json), want, "{json}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(keys in prop::collection::vec("[a-c]{0,3}", 0..60)) {
            let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\":[{{\"k\":0}}]")).collect();
            let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
            prop_assert_eq!(has_duplicate(&format!("{{{}}}", members.join(","))), distinct.len() != keys.len());
        }

        #[test]
        fn large_objects_without_duplicates_pass(n in 17usize..400, dup in any::<Option<prop::sample::Index>>()) {
            let mut members: Vec<String> = (0..n).map(|i| format!("\"key{i:012}\":{i}")).collect();
            if let Some(dup) = dup {
                let again = members[dup.index(n)].clone();
                members.push(again);
            }
            prop_assert_eq!(has_duplicate(&format!("{{{}}}", members.join(","))), dup.is_some());
        }
    }
}
