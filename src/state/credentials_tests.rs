#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;

use super::*;
use proptest::prelude::*;

fn id(number: u32) -> TokenId {
    TokenId::new(1_700_000_000_000, number.to_be_bytes())
}

fn hash(number: u8) -> [u8; 32] {
    // Few first bytes, so that shards are shared.
    let mut hash = [number; 32];
    hash[0] = number % 3;
    hash
}

#[test]
fn ids_are_what_they_print_and_sort_by_time() {
    let early = TokenId::new(1, [0xff; 4]);
    assert_eq!(early.to_string(), "000000000001ffffffff");
    assert!(early < TokenId::new(2, [0; 4]));
    assert_eq!(early.to_string().parse(), Ok(early));
    assert_eq!(TokenId::new(u64::MAX, [0; 4]).as_str().len(), 20);
    for wrong in [
        "",
        "000000000001fffffff",
        "000000000001fffffffff",
        "000000000001FFFFFFFF",
        "00000000000 ffffffff",
        "ä00000000001ffffff",
    ] {
        assert_eq!(wrong.parse::<TokenId>(), Err(NotAnId), "{wrong}");
    }
}

#[test]
fn a_token_ends_at_its_end_and_keeps_its_last_use() {
    let view: Credentials = [(hash(1), TokenEntry::new(id(1), "alpha".into(), 5_000, 0))].into_iter().collect();
    assert!(view.token(&hash(1), 4_999).is_some());
    assert!(view.token(&hash(1), 5_000).is_none(), "the end is no part of it");
    let entry = view.token(&hash(1), 0).unwrap();
    entry.note_use(1_000);
    entry.note_use(1_999);
    assert_eq!(entry.last_used_ms(), 1_000, "it is exact to a second");
    assert_eq!(entry.unstored_use(), Some(1_000));
    entry.note_stored(1_000);
    assert_eq!(entry.unstored_use(), None);
    entry.note_use(2_000);
    entry.note_use(500);
    assert_eq!((entry.last_used_ms(), entry.unstored_use()), (2_000, Some(2_000)));
    // Its end is one for all who hold it, in whatever view, and only ever comes nearer.
    let (held, older) = (entry.clone(), view.clone());
    let newer = view.with(hash(2), Arc::new(TokenEntry::new(id(2), "beta".into(), u64::MAX, 0)));
    newer.get(&hash(1)).unwrap().end_at(3_000);
    held.end_at(4_000);
    assert!(held.is_valid(2_999) && !held.is_valid(3_000));
    assert!(older.token(&hash(1), 3_000).is_none() && older.get(&hash(1)).is_some());
}

proptest! {
    /// A view is a map that never changes: every older one still holds what it held.
    #[test]
    fn views_are_maps_that_stay_as_they_are(changes in prop::collection::vec((0u8..12, 1u64..50, any::<bool>()), 0..60)) {
        let mut views = vec![(Credentials::default(), HashMap::<[u8; 32], u64>::new())];
        for (number, at_ms, put) in changes {
            let (view, map) = views.last().unwrap();
            let mut map = map.clone();
            let next = if put {
                map.insert(hash(number), at_ms);
                view.with(hash(number), Arc::new(TokenEntry::new(id(u32::from(number)), "a".into(), at_ms, 0)))
            } else {
                map.retain(|_, end_ms| at_ms < *end_ms);
                view.without_ended(at_ms)
            };
            views.push((next, map));
        }
        for (view, map) in &views {
            prop_assert_eq!((view.len(), view.is_empty()), (map.len(), map.is_empty()));
            prop_assert_eq!(view.iter().count(), map.len());
            for number in 0..12 {
                let (hash, end_ms) = (hash(number), map.get(&hash(number)).copied());
                prop_assert_eq!(view.get(&hash).is_some(), end_ms.is_some());
                if let Some(end_ms) = end_ms {
                    prop_assert!(view.token(&hash, end_ms - 1).is_some() && view.token(&hash, end_ms).is_none());
                }
            }
        }
    }
}
