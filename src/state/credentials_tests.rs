#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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
    let shorter = entry.ending_at(3_000);
    assert_eq!((shorter.last_used_ms(), shorter.unstored_use(), shorter.valid_until_ms), (2_000, Some(2_000), 3_000));
}

#[test]
fn no_credential_is_taken_for_none() {
    assert_eq!(Credential::of(&[0; 32]).bits(), 1);
    assert_eq!(Credential::NONE.bits(), 0);
    assert_ne!(Credential::of(&hash(1)), Credential::of(&hash(2)));
}

proptest! {
    /// A view is a map that never changes: every older one still says what it said.
    #[test]
    fn views_are_maps_that_stay_as_they_are(changes in prop::collection::vec((0u8..12, any::<bool>()), 0..60)) {
        let mut views = vec![(Credentials::default(), HashMap::<[u8; 32], u64>::new())];
        for (step, (number, put)) in changes.into_iter().enumerate() {
            let (view, map) = views.last().unwrap();
            let (mut map, end) = (map.clone(), step as u64 + 1);
            let next = if put {
                map.insert(hash(number), end);
                view.with(hash(number), TokenEntry::new(id(u32::from(number)), "a".into(), end, 0))
            } else {
                map.remove(&hash(number));
                view.without(&hash(number))
            };
            views.push((next, map));
        }
        for (view, map) in &views {
            prop_assert_eq!((view.len(), view.is_empty()), (map.len(), map.is_empty()));
            let found: HashMap<[u8; 32], u64> = view.iter().map(|(hash, entry)| (*hash, entry.valid_until_ms)).collect();
            prop_assert_eq!(&found, map);
            for number in 0..12 {
                let expected = map.get(&hash(number)).copied();
                prop_assert_eq!(view.token(&hash(number), 0).map(|entry| entry.valid_until_ms), expected);
            }
        }
    }
}
