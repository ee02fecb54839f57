//! A map that is published whole and changed a part at a time.
//!
//! What workers look things up in is an immutable view that the control plane replaces. A copy of a view shares all of its 256 shards with it; a change
//! copies the one shard that it touches, so that it costs a 256th of the table, and leaves older views as they were.
//!
//! Keys must be spread by whoever makes them, and not chosen by clients: hashes, and random names.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

const SHARDS: usize = 256;

/// A key that says by itself where it belongs.
pub trait ShardKey: Clone + Eq + Hash {
    /// A byte of which all values are as likely.
    fn shard(&self) -> u8;
}

impl ShardKey for [u8; 32] {
    fn shard(&self) -> u8 {
        self[0]
    }
}

/// The map. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shards<K, V> {
    shards: Box<[Arc<HashMap<K, V>>]>,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Arc::default()).collect(), len: 0 }
    }
}

impl<K: ShardKey, V: Clone> Extend<(K, V)> for Shards<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: ShardKey, V: Clone> Shards<K, V> {
    /// What belongs to the key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.shards.get(usize::from(key.shard()))?.get(key)
    }

    /// Puts it in, in the place of what was there.
    pub fn insert(&mut self, key: K, value: V) {
        if let Some(shard) = self.shards.get_mut(usize::from(key.shard())) {
            let is_new = Arc::make_mut(shard).insert(key, value).is_none();
            self.len += usize::from(is_new);
        }
    }

    /// Takes it out, if it is there; if it is not, nothing is copied.
    pub fn remove(&mut self, key: &K) {
        let shard = self.shards.get_mut(usize::from(key.shard())).filter(|shard| shard.contains_key(key));
        if let Some(shard) = shard {
            Arc::make_mut(shard).remove(key);
            self.len -= 1;
        }
    }

    /// Takes out what is not to be kept. Shards of which all is kept are not copied.
    pub fn retain(&mut self, is_kept: impl Fn(&V) -> bool) {
        for shard in &mut self.shards {
            let before = shard.len();
            if !shard.values().all(&is_kept) {
                Arc::make_mut(shard).retain(|_, value| is_kept(value));
            }
            self.len -= before - shard.len();
        }
    }

    /// All of it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> [u8; 32] {
        // Few first bytes, so that shards are shared.
        let mut key = [number; 32];
        key[0] = number % 3;
        key
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u32),
        Remove(u8),
        Keep(u32),
        Fork,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12u8, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            2 => (0..12u8).prop_map(Step::Remove),
            1 => any::<u32>().prop_map(Step::Keep),
            1 => Just(Step::Fork),
        ]
    }

    proptest! {
        #[test]
        fn every_view_is_a_map_of_its_own(steps in proptest::collection::vec(step(), 0..60)) {
            let mut views = vec![(Shards::<[u8; 32], u32>::default(), HashMap::<[u8; 32], u32>::new())];
            for step in steps {
                let (view, map) = views.last_mut().unwrap();
                match step {
                    Step::Insert(number, value) => {
                        view.insert(key(number), value);
                        map.insert(key(number), value);
                    }
                    Step::Remove(number) => {
                        view.remove(&key(number));
                        map.remove(&key(number));
                    }
                    Step::Keep(most) => {
                        view.retain(|value| *value <= most);
                        map.retain(|_, value| *value <= most);
                    }
                    Step::Fork => {
                        let copy = (view.clone(), map.clone());
                        views.push(copy);
                    }
                }
            }
            for (view, map) in &views {
                prop_assert_eq!((view.len(), view.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(view.iter().map(|(key, value)| (*key, *value)).collect::<HashMap<_, _>>(), map.clone());
                prop_assert!((0..12).all(|number| view.get(&key(number)) == map.get(&key(number))));
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard_and_no_change_copies_none() {
        let mut first = Shards::default();
        first.extend((0..=255u8).map(|number| ([number; 32], number)));
        let mut second = first.clone();
        let shared = |first: &Shards<_, _>, second: &Shards<_, _>| {
            first.shards.iter().zip(&second.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count()
        };
        second.remove(&[7; 32]);
        assert_eq!(shared(&first, &second), 255);
        second.remove(&[7; 32]);
        second.retain(|_| true);
        assert_eq!(shared(&first, &second), 255);
        second.retain(|value| *value != 9);
        assert_eq!((shared(&first, &second), second.len(), first.len()), (254, 254, 256));
    }
}
