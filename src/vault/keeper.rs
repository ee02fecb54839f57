//! [`Vault`]: the vault as the control plane keeps it. What is changed is sealed, on disk, and in the calls of all workers, in this order.
//!
//! Changes come one after the other. The keys are in memory for as long as the process lives; the credentials only as the header lines that the
//! upstreams of this gateway are shown.

use std::sync::Arc;

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::line::line;
use super::seal::{Key, KeyId, NoRandomness, OpenError, Record};
use crate::settings::{Secret, UpstreamCredential};
use crate::state::events::{Event, EventKind, EventQueue};
use crate::state::lifecycle::UpstreamState;
use crate::store::credentials::Changed;
use crate::store::{Store, StoreError};

/// Why the vault did not do what it was asked for. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No key is set.
    #[error("CREDENTIALS_ENCRYPTION_KEY is not set; the vault is locked")]
    Locked,
    /// Records are under another key.
    #[error("{name} cannot be read: {why}")]
    Unreadable {
        /// The first of them.
        name: String,
        /// What is wrong with it.
        why: OpenError,
    },
    /// Someone else was faster.
    #[error("it was changed meanwhile; look again")]
    Outdated,
    /// There are as many as there may be.
    #[error("there are as many credentials as there may be: {}", super::MAX_CREDENTIALS)]
    TooMany,
    /// It cannot be carried as an upstream's `credential_as` says.
    #[error("upstream {upstream} cannot be shown it: {why}")]
    Unfit {
        /// The upstream.
        upstream: String,
        /// Why not.
        why: super::line::Unfit,
    },
    /// The system has no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An upstream that is shown a credential.
pub struct User {
    /// Where it is put.
    pub upstream: Arc<UpstreamState>,
    /// Which, and how it is carried.
    pub credential: UpstreamCredential,
}

/// What may be told of a credential: everything but the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// How often it was written.
    pub revision: u64,
    /// When it was last changed, milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// The key that it is under.
    pub key_id: KeyId,
    /// Whether that key is at hand.
    pub readable: bool,
    /// The upstreams that are shown it.
    pub used_by: Vec<String>,
}

/// The keys. The first seals.
struct Ring(Vec<Key>);

impl Ring {
    fn current(&self) -> Result<&Key, VaultError> {
        self.0.first().ok_or(VaultError::Locked)
    }

    fn has(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id() == id)
    }

    fn open(&self, record: &Record) -> Result<Zeroizing<String>, OpenError> {
        let key = self.0.iter().find(|key| key.id() == record.key_id);
        key.ok_or(OpenError::OtherKey(record.key_id))?.open(record)
    }
}

struct Inner {
    store: Store,
    ring: Mutex<Ring>,
    users: Vec<User>,
    events: Arc<EventQueue>,
    clock: fn() -> u64,
}

/// A way to the vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

/// The keys that the settings have, 32 bytes each; the first seals.
#[must_use]
pub fn keys(settings: &crate::settings::Vault) -> Vec<Key> {
    let key = |secret: &Secret| secret.expose().try_into().ok().map(Key::new);
    // What is under the key before can be read for as long as there is a key to seal with.
    settings
        .key
        .iter()
        .chain(settings.key.is_some().then_some(settings.previous.as_ref()).flatten())
        .filter_map(key)
        .collect()
}

/// The upstreams that will be sent nothing with these settings and records, and why: by upstream and credential. Nothing where the vault is locked, which is
/// said by the settings themselves.
#[must_use]
pub fn lacking<'a>(
    settings: &'a crate::settings::Settings,
    records: &[Record],
) -> Vec<(&'a str, &'a str, &'static str)> {
    let keys = keys(&settings.vault);
    if keys.is_empty() {
        return Vec::new();
    }
    let why = |name: &str| match records.iter().find(|record| record.name == name) {
        None => Some("the vault does not hold it"),
        Some(record) if !keys.iter().any(|key| key.id() == record.key_id) => Some("it is sealed under another key"),
        Some(_) => None,
    };
    let credentials = settings
        .policy
        .upstreams
        .iter()
        .filter_map(|upstream| Some((upstream.name.as_str(), upstream.credential.as_ref()?.name.as_str())));
    credentials.filter_map(|(upstream, name)| Some((upstream, name, why(name)?))).collect()
}

impl Vault {
    /// Reads what the upstreams are to be shown, and publishes it. What cannot be read is said in the log, and its upstreams are sent nothing.
    ///
    /// Blocks the thread: for the start.
    ///
    /// # Errors
    /// The store's.
    pub fn open(
        store: Store,
        keys: Vec<Key>,
        users: Vec<User>,
        events: Arc<EventQueue>,
        clock: fn() -> u64,
    ) -> Result<Self, StoreError> {
        let records = store.credentials_now()?;
        let ring = Ring(keys);
        let vault = Inner { store, ring: Mutex::new(Ring(Vec::new())), users, events, clock };
        for user in &vault.users {
            let (upstream, name) = (user.upstream.name(), user.credential.name.as_str());
            let record = records.iter().find(|record| record.name == name);
            match record.map(|record| ring.open(record)) {
                Some(Ok(value)) => {
                    vault.tell_read(name, format_args!("{name} for upstream {upstream}"));
                    if let Err(unfit) = user.show(Some(&value)) {
                        tracing::error!(upstream, credential = name, %unfit, "calls are refused: the credential cannot be carried");
                    }
                }
                Some(Err(why)) => {
                    tracing::error!(upstream, credential = name, %why, "calls are refused: the credential cannot be read");
                }
                None => tracing::error!(
                    upstream,
                    credential = name,
                    "calls are refused: the vault has no such credential; ringwall vault put {name}"
                ),
            }
        }
        Ok(Self(Arc::new(Inner { ring: Mutex::new(ring), ..vault })))
    }

    /// What there is.
    ///
    /// # Errors
    /// [`VaultError::Locked`], and the store's.
    pub async fn list(&self) -> Result<(KeyId, Vec<Listed>), VaultError> {
        let ring = self.0.ring.lock().await;
        let key = ring.current()?.id();
        let listed = self.0.store.credentials().await?.into_iter().map(|record| Listed {
            used_by: self.0.users_of(&record.name).map(|user| user.upstream.name().to_owned()).collect(),
            readable: ring.has(record.key_id),
            name: record.name,
            revision: record.revision,
            updated_ms: record.updated_ms,
            key_id: record.key_id,
        });
        Ok((key, listed.collect()))
    }

    /// Stores a credential under a name, in the place of the one that is there.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn put(&self, name: &str, value: &str) -> Result<u64, VaultError> {
        let ring = self.0.ring.lock().await;
        let key = ring.current()?;
        let records = self.0.store.credentials().await?;
        // A key that is not the records' own is a mistake: with it, one vault would have two.
        if let Some(foreign) = records.iter().find(|record| !ring.has(record.key_id)) {
            let why = OpenError::OtherKey(foreign.key_id);
            return Err(VaultError::Unreadable { name: foreign.name.clone(), why });
        }
        for user in self.0.users_of(name) {
            let unfit = |why| VaultError::Unfit { upstream: user.upstream.name().to_owned(), why };
            line(&user.credential.how, value).map_err(unfit)?;
        }
        let revision = records.iter().find(|record| record.name == name).map_or(0, |record| record.revision);
        let record = key.seal(name, revision.saturating_add(1), (self.0.clock)(), value)?;
        let revision = record.revision;
        done(self.0.store.put_credential(record).await?)?;
        self.0.publish(name, Some(value));
        Ok(revision)
    }

    /// Forgets a credential; its upstreams are sent nothing any more. Returns whether it was there.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn delete(&self, name: &str) -> Result<bool, VaultError> {
        let ring = self.0.ring.lock().await;
        ring.current()?;
        let was_there = self.0.store.forget_credential(name.to_owned()).await?;
        self.0.publish(name, None);
        Ok(was_there)
    }

    /// Seals everything anew under `key`, or under the one in force where none is given: all of it, or nothing. The keys before stay at hand
    /// until the process ends. Returns how many records were sealed anew.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn rotate(&self, key: Option<Key>) -> Result<(KeyId, usize), VaultError> {
        let mut ring = self.0.ring.lock().await;
        let current = ring.current()?;
        let new = key.as_ref().unwrap_or(current);
        let (id, mut anew) = (new.id(), Vec::new());
        for record in self.0.store.credentials().await? {
            if record.key_id == id {
                continue;
            }
            let unreadable = |why| VaultError::Unreadable { name: record.name.clone(), why };
            let value = ring.open(&record).map_err(unreadable)?;
            self.0.tell_read(&record.name, format_args!("{} to be sealed under another key", record.name));
            anew.push(new.seal(&record.name, record.revision.saturating_add(1), record.updated_ms, &value)?);
        }
        let count = anew.len();
        if count > 0 {
            done(self.0.store.put_credentials(anew).await?)?;
        }
        if let Some(key) = key.filter(|key| !ring.0.first().is_some_and(|current| current.id() == key.id())) {
            ring.0.retain(|known| known.id() != key.id());
            ring.0.insert(0, key);
        }
        Ok((id, count))
    }
}

fn done(changed: Changed) -> Result<(), VaultError> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Outdated => Err(VaultError::Outdated),
        Changed::TooMany => Err(VaultError::TooMany),
    }
}

impl Inner {
    fn users_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a User> {
        self.users.iter().filter(move |user| user.credential.name == name)
    }

    fn publish(&self, name: &str, value: Option<&str>) {
        for user in self.users_of(name) {
            // It was looked at before it was stored.
            let _ = user.show(value);
        }
    }

    fn tell_read(&self, name: &str, details: std::fmt::Arguments<'_>) {
        let event = Event::new(EventKind::CredentialRead, (self.clock)()).with_rule("vault");
        if self.events.push(event.with_details(details)).is_err() {
            tracing::warn!(credential = name, "the audit queue is full: that a credential was read is not recorded");
        }
    }
}

impl User {
    fn show(&self, value: Option<&str>) -> Result<(), super::line::Unfit> {
        let line = value.map(|value| line(&self.credential.how, value)).transpose();
        self.upstream.credential.publish(line.as_ref().ok().cloned().flatten());
        line.map(drop)
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
