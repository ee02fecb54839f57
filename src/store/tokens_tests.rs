#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::state::lifecycle::Lifecycle;
use crate::store::StoreThreads;

fn store() -> (tempfile::TempDir, Store, StoreThreads) {
    let dir = tempfile::tempdir().unwrap();
    let (store, threads) = Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    (dir, store, threads)
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn new(number: u32, agent: &str, expires_ms: Option<u64>) -> NewToken {
    NewToken {
        id: TokenId::new(u64::from(number), number.to_be_bytes()),
        sha256: [u8::try_from(number % 251).unwrap(); 32],
        agent: agent.to_owned(),
        label: format!("token {number}"),
        issued_ms: 1_000,
        expires_ms,
    }
}

fn by(number: u32, now_ms: u64, grace_until_ms: u64) -> Replacement {
    let NewToken { id, sha256, .. } = new(number, "", None);
    Replacement { id, sha256, issued_ms: now_ms, lifetime_ms: None, grace_until_ms }
}

#[test]
fn a_token_lives_and_ends() {
    let (_dir, store, _threads) = store();
    run(async {
        let first = new(1, "alpha", None);
        assert_eq!(store.issue_token(first.clone()).await.unwrap(), Issued::Done);
        let known = store.token(first.id).await.unwrap().unwrap();
        assert_eq!((known.sha256, known.agent.as_str(), known.label.as_str()), (first.sha256, "alpha", "token 1"));
        assert_eq!(
            (known.issued_ms, known.expires_ms, known.revoked_ms, known.last_used_ms),
            (1_000, None, None, None)
        );
        assert!(matches!(store.issue_token(first.clone()).await, Err(StoreError::Refused(_))), "a name is taken once");
        store.note_tokens_used(vec![(first.id, 1_500), (new(9, "", None).id, 1)]).await.unwrap();
        store.note_tokens_used(vec![(first.id, 1_200)]).await.unwrap();
        assert_eq!(store.token(first.id).await.unwrap().unwrap().last_used_ms, Some(1_500), "it never goes back");
        let revoked = store.revoke_token(first.id, 2_000).await.unwrap().unwrap();
        assert_eq!(
            (revoked.first, revoked.token.revoked_ms, revoked.token.is_valid(2_000)),
            (true, Some(2_000), false)
        );
        let again = store.revoke_token(first.id, 3_000).await.unwrap().unwrap();
        assert_eq!((again.first, again.token.revoked_ms), (false, Some(2_000)));
        assert_eq!(store.revoke_token(new(9, "", None).id, 1).await.unwrap(), None);
    });
    assert_eq!(valid(&store, 0), []);
}

/// The tokens that are valid at this time, by name.
fn valid(store: &Store, now_ms: u64) -> Vec<TokenId> {
    store.fold_valid_tokens(now_ms, Vec::new(), |all, token| all.push(token.id)).unwrap()
}

#[test]
fn a_rotated_token_stays_for_its_grace_and_is_rotated_once() {
    let (_dir, store, _threads) = store();
    run(async {
        for (number, expires) in [(1, None), (2, Some(4_000)), (3, Some(50_000))] {
            store.issue_token(new(number, "alpha", expires)).await.unwrap();
        }
        for (number, end, lives) in [(1, 10_000, None), (2, 4_000, Some(6_000)), (3, 10_000, Some(52_000))] {
            let id = new(number, "", None).id;
            let Rotated::Done(both) = store.rotate_token(id, by(number + 10, 3_000, 10_000)).await.unwrap() else {
                panic!("not rotated")
            };
            let (old, fresh) = *both;
            assert_eq!(
                (old.expires_ms, old.replaced_by),
                (Some(end), Some(fresh.id)),
                "{number}: it never lives longer"
            );
            assert_eq!(
                (fresh.agent, fresh.label, fresh.expires_ms),
                ("alpha".into(), format!("token {number}"), lives)
            );
            assert_eq!(store.rotate_token(id, by(number + 20, 3_000, 10_000)).await.unwrap(), Rotated::Ended);
        }
        assert_eq!(store.rotate_token(new(77, "", None).id, by(78, 0, 0)).await.unwrap(), Rotated::Unknown);
        store.issue_token(new(4, "alpha", Some(2_000))).await.unwrap();
        assert_eq!(store.rotate_token(new(4, "", None).id, by(40, 2_000, 9_000)).await.unwrap(), Rotated::Ended);
        assert_eq!(store.tokens(TokenFilter::default(), None, 100).await.unwrap().len(), 7, "what failed left nothing");
    });
    assert_eq!(valid(&store, 5_000).len(), 5);
    assert_eq!(valid(&store, 10_000).len(), 2);
}

#[test]
fn lists_are_filtered_and_paged() {
    let (_dir, store, _threads) = store();
    run(async {
        for number in 0..30 {
            let agent = if number % 3 == 0 { "alpha" } else { "beta" };
            store.issue_token(new(number, agent, (number % 2 == 0).then_some(5_000))).await.unwrap();
        }
        for number in [0, 1, 5] {
            store.revoke_token(new(number, "", None).id, 2_000).await.unwrap();
        }
        let valid = |agent: Option<&str>, wanted: bool| TokenFilter {
            agent: agent.map(str::to_owned),
            valid: Some((wanted, 6_000)),
        };
        let everyone = |agent: Option<&str>| TokenFilter { agent: agent.map(str::to_owned), valid: None };
        for (filter, expected) in [
            (everyone(None), 30),
            (everyone(Some("alpha")), 10),
            (everyone(Some("nobody")), 0),
            (valid(None, true), 13),
            (valid(None, false), 17),
            (valid(Some("alpha"), true), 5),
            (valid(Some("beta"), false), 12),
        ] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let page = store.tokens(filter.clone(), after, 4).await.unwrap();
                after = page.last().map(|token| token.id);
                seen.extend(page.into_iter().map(|token| token.id));
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), expected, "{filter:?}");
            assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]));
        }
        store.note_tokens_used(vec![(new(3, "", None).id, 7_000)]).await.unwrap();
        let owners = store.token_owners(None, 10, 6_000).await.unwrap();
        let owner = |agent: &str, valid, last_used_ms| TokenOwner { agent: agent.into(), valid, last_used_ms };
        assert_eq!(owners, [owner("alpha", 5, Some(7_000)), owner("beta", 8, None)]);
        assert_eq!(store.token_owners(Some("alpha".into()), 10, 6_000).await.unwrap(), [owner("beta", 8, None)]);
        assert_eq!(store.token_owner("alpha".into(), 6_000).await.unwrap(), Some(owner("alpha", 5, Some(7_000))));
        assert_eq!(store.token_owner("gamma".into(), 6_000).await.unwrap(), None);
        // What ended long ago goes, what is valid stays.
        assert_eq!(store.forget_tokens(5_001 + KEPT_MS).await.unwrap(), 17);
        assert_eq!(store.tokens(TokenFilter::default(), None, 100).await.unwrap().len(), 13);
    });
}

#[test]
fn an_agent_has_a_bounded_number_of_valid_tokens() {
    let (_dir, store, _threads) = store();
    run(async {
        let many = (0..MAX_VALID_PER_AGENT).map(|number| store.issue_token(new(number, "alpha", None)));
        for issued in futures_util::future::join_all(many).await {
            assert_eq!(issued.unwrap(), Issued::Done);
        }
        assert_eq!(store.issue_token(new(5_000, "alpha", None)).await.unwrap(), Issued::TooMany);
        assert_eq!(store.issue_token(new(5_000, "beta", None)).await.unwrap(), Issued::Done);
        store.revoke_token(new(3, "", None).id, 2_000).await.unwrap();
        assert_eq!(store.issue_token(new(5_001, "alpha", None)).await.unwrap(), Issued::Done);
    });
}
