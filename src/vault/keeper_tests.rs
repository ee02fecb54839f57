#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use super::*;
use crate::settings::CredentialAs;
use crate::state::events::Bell;
use crate::state::lifecycle::Lifecycle;
use crate::store::StoreThreads;
use crate::vault::line::Unfit;

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

/// A vault in a folder, with an upstream for each way to carry a credential: `bearer` and `basic` both of credential `a`.
struct Kept {
    vault: Vault,
    events: Arc<EventQueue>,
    states: Vec<Arc<UpstreamState>>,
    threads: StoreThreads,
}

impl Kept {
    fn open(dir: &Path, keys: &[[u8; 32]]) -> Self {
        let (store, threads) = Store::open(&dir.join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
        let events = Arc::new(EventQueue::new(Arc::<Bell>::default()));
        let ways = [
            ("bearer", "a", CredentialAs::Bearer),
            ("key", "a", CredentialAs::Header("X-Key".into())),
            ("basic", "b", CredentialAs::Basic),
        ];
        let user = |(upstream, name, how): (&str, &str, CredentialAs)| User {
            upstream: Arc::new(UpstreamState::new(upstream).with_credential()),
            credential: UpstreamCredential { name: name.into(), how },
        };
        let users: Vec<User> = ways.into_iter().map(user).collect();
        let states = users.iter().map(|user| user.upstream.clone()).collect();
        let keys = keys.iter().map(Key::new).collect();
        let vault = Vault::open(store, keys, users, events.clone(), || 5_000).unwrap();
        Self { vault, events, states, threads }
    }

    /// What each upstream is shown.
    fn shown(&self) -> Vec<Option<String>> {
        let one = |state: &Arc<UpstreamState>| {
            let mut line = Vec::new();
            state.credential.append(&mut line).ok().map(|()| String::from_utf8(line).unwrap())
        };
        self.states.iter().map(one).collect()
    }

    fn reads(&self) -> Vec<String> {
        std::iter::from_fn(|| self.events.pop()).map(|event| event.details.to_string()).collect()
    }

    fn close(self) {
        drop(self.vault);
        self.threads.stop();
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn some(line: &str) -> Option<String> {
    Some(line.to_owned())
}

#[test]
fn a_credential_is_in_the_calls_as_soon_as_it_is_on_disk_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), &[OLD]);
    assert_eq!(kept.shown(), [None, None, None]);
    run(async {
        assert_eq!(kept.vault.put("a", "first").await, Ok(1));
        assert_eq!(kept.shown(), [some("Authorization: Bearer first\r\n"), some("X-Key: first\r\n"), None]);
        assert_eq!(kept.vault.put("a", "second").await, Ok(2));
        assert_eq!(kept.vault.put("b", "user:pass").await, Ok(1));
        let (key, listed) = kept.vault.list().await.unwrap();
        assert_eq!(key, Key::new(&OLD).id());
        assert_eq!(
            (listed[0].name.as_str(), listed[0].revision, listed[0].updated_ms, listed[0].readable),
            ("a", 2, 5_000, true)
        );
        assert_eq!(
            (&listed[0].used_by, &listed[1].used_by),
            (&vec!["bearer".to_owned(), "key".to_owned()], &vec!["basic".to_owned()])
        );
    });
    let shown = [
        some("Authorization: Bearer second\r\n"),
        some("X-Key: second\r\n"),
        some("Authorization: Basic dXNlcjpwYXNz\r\n"),
    ];
    assert_eq!(kept.shown(), shown);
    kept.close();
    let kept = Kept::open(dir.path(), &[OLD]);
    assert_eq!(kept.shown(), shown);
    assert_eq!(kept.reads(), ["a for upstream bearer", "a for upstream key", "b for upstream basic"]);
    run(async {
        assert_eq!(kept.vault.delete("a").await, Ok(true));
        assert_eq!(kept.vault.delete("a").await, Ok(false));
    });
    assert_eq!(kept.shown()[..2], [None, None]);
    kept.close();
    // Nothing of it is in the files in clear.
    for file in std::fs::read_dir(dir.path().join("data")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            memchr::memmem::find(&bytes, b"second").is_none() && memchr::memmem::find(&bytes, b"user:pass").is_none()
        );
    }
}

#[test]
fn what_cannot_be_carried_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), &[OLD]);
    run(async {
        kept.vault.put("b", "user:pass").await.unwrap();
        let unfit = |upstream: &str, why| Err(VaultError::Unfit { upstream: upstream.into(), why });
        assert_eq!(kept.vault.put("b", "nobody").await, unfit("basic", Unfit::NoColon));
        assert_eq!(kept.vault.put("a", "é").await, unfit("bearer", Unfit::Character));
        assert_eq!(kept.vault.put("nobody-uses-it", "é").await, Ok(1));
    });
    assert_eq!(kept.shown(), [None, None, some("Authorization: Basic dXNlcjpwYXNz\r\n")]);
    kept.close();
}

#[test]
fn without_a_key_the_vault_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), &[]);
    run(async {
        assert_eq!(kept.vault.put("a", "x").await, Err(VaultError::Locked));
        assert_eq!(kept.vault.list().await, Err(VaultError::Locked));
        assert_eq!(kept.vault.delete("a").await, Err(VaultError::Locked));
        assert_eq!(kept.vault.rotate(Some(Key::new(&NEW))).await, Err(VaultError::Locked));
    });
    assert_eq!(kept.shown(), [None, None, None]);
    kept.close();
}

#[test]
fn another_key_opens_nothing_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), &[OLD]);
    run(async { kept.vault.put("a", "secret").await.unwrap() });
    kept.close();
    let kept = Kept::open(dir.path(), &[NEW]);
    assert_eq!(kept.shown(), [None, None, None]);
    assert!(kept.reads().is_empty());
    run(async {
        let told = VaultError::Unreadable { name: "a".into(), why: OpenError::OtherKey(Key::new(&OLD).id()) };
        assert_eq!(kept.vault.put("a", "mine").await, Err(told.clone()));
        assert_eq!(kept.vault.put("b", "u:p").await, Err(told.clone()));
        assert_eq!(kept.vault.rotate(None).await, Err(told.clone()));
        assert_eq!(kept.vault.rotate(Some(Key::new(&[3; 32]))).await, Err(told));
        let (_, listed) = kept.vault.list().await.unwrap();
        assert_eq!((listed.len(), listed[0].readable, listed[0].revision), (1, false, 1));
    });
    kept.close();
    let kept = Kept::open(dir.path(), &[OLD]);
    assert_eq!(kept.shown()[0], some("Authorization: Bearer secret\r\n"));
    kept.close();
}

#[test]
fn a_rotation_is_noticed_by_nobody_and_holds_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), &[OLD]);
    run(async {
        kept.vault.put("a", "secret").await.unwrap();
        kept.vault.put("b", "u:p").await.unwrap();
    });
    let shown = kept.shown();
    kept.close();
    // Restarted with both keys before anything was rotated.
    let kept = Kept::open(dir.path(), &[NEW, OLD]);
    assert_eq!(kept.shown(), shown);
    kept.close();
    // Rotated while it runs under the old key.
    let kept = Kept::open(dir.path(), &[OLD]);
    kept.reads();
    run(async {
        assert_eq!(kept.vault.rotate(Some(Key::new(&NEW))).await, Ok((Key::new(&NEW).id(), 2)));
        assert_eq!(kept.vault.rotate(Some(Key::new(&NEW))).await, Ok((Key::new(&NEW).id(), 0)), "once is enough");
        let (key, listed) = kept.vault.list().await.unwrap();
        assert!(listed.iter().all(|one| one.key_id == key && one.revision == 2 && one.updated_ms == 5_000));
        assert_eq!(kept.vault.put("b", "u:new").await, Ok(3), "what comes is under the new key");
    });
    assert_eq!(kept.shown()[..2], shown[..2]);
    assert_eq!(kept.reads().len(), 2);
    kept.close();
    // The new key alone opens it, also with the old one beside; the old one alone does not.
    for (keys, opens) in [(&[NEW][..], true), (&[NEW, OLD], true), (&[OLD], false)] {
        let kept = Kept::open(dir.path(), keys);
        assert_eq!(kept.shown()[0].is_some(), opens);
        kept.close();
    }
}

#[test]
fn a_record_that_was_tampered_with_is_sent_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let change = |sql: &str| {
        let conn = rusqlite::Connection::open(dir.path().join("data/ringwall.db")).unwrap();
        conn.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        assert_eq!(conn.execute(sql, []).unwrap(), 1, "{sql}");
    };
    for sql in [
        "UPDATE credentials SET revision = revision + 1 WHERE name = 'a'",
        "UPDATE credentials SET updated_ms = 1 WHERE name = 'a'",
        "UPDATE credentials SET nonce = zeroblob(12) WHERE name = 'a'",
        "UPDATE credentials SET sealed = zeroblob(22) WHERE name = 'a'",
        "UPDATE credentials SET sealed = x'' WHERE name = 'a'",
        "UPDATE credentials SET sealed = (SELECT sealed FROM credentials WHERE name = 'b') WHERE name = 'a'",
        "UPDATE credentials SET key_id = x'0011223344556677' WHERE name = 'a'",
        "DELETE FROM credentials WHERE name = 'a'",
    ] {
        let kept = Kept::open(dir.path(), &[OLD]);
        run(async {
            let _ = kept.vault.delete("a").await;
            kept.vault.put("a", "secret").await.unwrap();
            kept.vault.put("b", "u:secret").await.unwrap();
        });
        kept.close();
        change(sql);
        let kept = Kept::open(dir.path(), &[OLD]);
        assert_eq!(kept.shown()[..2], [None, None], "{sql}");
        assert!(kept.shown()[2].is_some(), "{sql}: the others are not touched");
        kept.close();
    }
}
