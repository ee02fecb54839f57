#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::state::lifecycle::Lifecycle;
use crate::vault::seal::Key;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn record(name: &str, revision: u64) -> Record {
    Key::new(&[1; 32]).seal(name, revision, 1_000 + revision, "value").unwrap()
}

#[test]
fn a_record_takes_the_place_of_the_one_that_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (store, threads) = Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    run(async {
        let (first, second, other) = (record("b", 1), record("b", 2), record("a", 1));
        assert_eq!(store.put_credential(second.clone()).await, Ok(Changed::Outdated), "there is none yet");
        assert_eq!(store.put_credential(first.clone()).await, Ok(Changed::Done));
        assert_eq!(store.put_credential(record("b", 1)).await, Ok(Changed::Outdated), "there is one");
        assert_eq!(store.put_credential(second.clone()).await, Ok(Changed::Done));
        assert_eq!(store.put_credential(other.clone()).await, Ok(Changed::Done));
        assert_eq!(store.credentials().await.unwrap(), [other.clone(), second.clone()]);

        let all_or_none = vec![record("a", 2), record("b", 7)];
        assert_eq!(store.put_credentials(all_or_none).await, Ok(Changed::Outdated));
        assert_eq!(store.credentials().await.unwrap(), [other, second]);
        let both = vec![record("a", 2), record("b", 3)];
        assert_eq!(store.put_credentials(both.clone()).await, Ok(Changed::Done));
        assert_eq!(store.credentials().await.unwrap(), both);

        assert_eq!(store.forget_credential("a".into()).await, Ok(true));
        assert_eq!(store.forget_credential("a".into()).await, Ok(false));
    });
    drop(store);
    threads.stop();
    // What was answered is there after a restart.
    let (store, _threads) = Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    let left = store.credentials_now().unwrap();
    assert_eq!(left.iter().map(|record| (record.name.as_str(), record.revision)).collect::<Vec<_>>(), [("b", 3)]);
    assert_eq!(*Key::new(&[1; 32]).open(&left[0]).unwrap(), "value");
}

#[test]
fn there_are_only_so_many() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _threads) = Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    run(async {
        for number in 0..MAX_CREDENTIALS {
            assert_eq!(store.put_credential(record(&format!("n{number}"), 1)).await, Ok(Changed::Done));
        }
        assert_eq!(store.put_credential(record("one-more", 1)).await, Ok(Changed::TooMany));
        assert_eq!(store.put_credential(record("n7", 2)).await, Ok(Changed::Done), "what is there can be changed");
    });
}
