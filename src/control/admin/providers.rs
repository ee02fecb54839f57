//! Credentials of providers: what there is, never what it is. Putting one, taking one away, sealing all under another key.
//!
//! `GET /admin/providers?limit=&after=`, `PUT` and `DELETE /admin/providers/{name}`, `POST /admin/vault/rotate`. Without
//! `CREDENTIALS_ENCRYPTION_KEY` all answer 503 `vault_locked`. What has changed is in the audit trail, with the address that asked for it.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::http::{answer, problem};
use super::{Admin, Peer};
use crate::state::events::{Event, EventKind};
use crate::store::StoreError;
use crate::vault::seal::Key;
use crate::vault::{MAX_CREDENTIALS, VaultError, is_name, is_value};

const DEFAULT_LIMIT: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

/// A page of the list.
#[derive(Serialize, Deserialize)]
pub struct ListedPage {
    /// The key that new ones are sealed under.
    pub key: String,
    /// By name.
    pub providers: Vec<Listed>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// What is told of a credential.
#[derive(Serialize, Deserialize)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// How often it was written.
    pub revision: u64,
    /// When it was last changed, RFC 3339.
    pub updated: String,
    /// The key that it is under.
    pub key: String,
    /// Whether that key is at hand.
    pub readable: bool,
    /// The upstreams that are shown it.
    pub used_by: Vec<String>,
}

pub(super) async fn list(State(admin): State<Admin>, page: Result<Query<Page>, QueryRejection>) -> Response {
    let Ok(Query(page)) = page else { return bad_query() };
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_CREDENTIALS).contains(&limit) {
        return bad_query();
    }
    let (key, all) = match admin.vault.list().await {
        Ok(listed) => listed,
        Err(error) => return refusal(&error),
    };
    let after = page.after.unwrap_or_default();
    let mut wanted: Vec<_> = all.into_iter().filter(|one| one.name > after).take(limit + 1).collect();
    let more = wanted.len() > limit;
    wanted.truncate(limit);
    let next = wanted.last().filter(|_| more).map(|last| last.name.clone());
    let providers = wanted.into_iter().map(|one| Listed {
        name: one.name,
        revision: one.revision,
        updated: rfc3339(one.updated_ms),
        key: one.key_id.to_string(),
        readable: one.readable,
        used_by: one.used_by,
    });
    json(&ListedPage { key: key.to_string(), providers: providers.collect(), next })
}

/// Not `Debug`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    credential: String,
}

pub(super) async fn put(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    peer: Peer,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match whole(body) {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    if !is_name(&name) {
        return problem(
            422,
            "invalid_name",
            "A name has 1 to 64 letters, digits and _ - . and does not begin with a dot.",
        );
    }
    // The error of a parser may repeat what it read.
    let Ok(Put { credential }) = serde_json::from_slice(&body) else {
        return problem(400, "invalid_body", "The body must be {\"credential\": \"...\"}.");
    };
    let credential = Zeroizing::new(credential);
    if !is_value(&credential) {
        let detail = "A credential has 1 to 4096 bytes of text, without control characters and blanks around it.";
        return problem(422, "invalid_credential", detail);
    }
    match admin.vault.put(&name, &credential).await {
        Ok(revision) => {
            admin.note_change(&peer, format_args!("credential {name}: revision {revision} stored"));
            json(&serde_json::json!({ "name": name, "revision": revision }))
        }
        Err(error) => refusal(&error),
    }
}

pub(super) async fn remove(State(admin): State<Admin>, Path(name): Path<String>, peer: Peer) -> Response {
    match admin.vault.delete(&name).await {
        Ok(true) => {
            admin.note_change(&peer, format_args!("credential {name} deleted"));
            json(&serde_json::json!({ "name": name }))
        }
        Ok(false) => problem(404, "not_found", "The vault has no credential of this name."),
        Err(error) => refusal(&error),
    }
}

/// Not `Debug`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    key: Option<String>,
}

/// What came of a rotation.
#[derive(Serialize, Deserialize)]
pub struct Rotated {
    /// The key that everything is under now.
    pub key: String,
    /// Credentials that were sealed anew.
    pub resealed: usize,
}

pub(super) async fn rotate(State(admin): State<Admin>, peer: Peer, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match whole(body) {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let invalid = || problem(400, "invalid_body", "The body must be {\"key\": \"64 hexadecimal digits\"}, or {}.");
    let Ok(Rotate { key }) = serde_json::from_slice(&body) else { return invalid() };
    let key = match key.map(Zeroizing::new) {
        None => None,
        Some(text) => match crate::settings::table::hex32(&text).map(Zeroizing::new) {
            Some(bytes) => Some(Key::new(&bytes)),
            None => return invalid(),
        },
    };
    match admin.vault.rotate(key).await {
        Ok((key, resealed)) => {
            admin.note_change(&peer, format_args!("vault: {resealed} credentials sealed under key {key}"));
            json(&Rotated { key: key.to_string(), resealed })
        }
        Err(error) => refusal(&error),
    }
}

impl Admin {
    /// Records a change of the vault. A full queue is counted by the queue itself.
    fn note_change(&self, peer: &Peer, details: std::fmt::Arguments<'_>) {
        let event = Event::new(EventKind::ConfigReloaded, (self.health.clock)());
        let event = event.with_ip(peer.0.0.ip().to_canonical()).with_rule("vault");
        let _ = self.events.push(event.with_details(details));
    }
}

/// The body, or why there is none; the buffer is wiped.
fn whole(body: Result<Bytes, BytesRejection>) -> Result<Zeroizing<Vec<u8>>, Box<Response>> {
    match body {
        // Where nobody else has the buffer it becomes ours, and there is no second one.
        Ok(bytes) => Ok(Zeroizing::new(Vec::from(bytes))),
        Err(rejection) if rejection.status().as_u16() == 413 => {
            Err(Box::new(problem(413, "body_too_large", "The body is too large.")))
        }
        Err(_) => Err(Box::new(problem(400, "invalid_body", "The body could not be read."))),
    }
}

fn refusal(error: &VaultError) -> Response {
    let (status, code) = match error {
        VaultError::Locked => (503, "vault_locked"),
        VaultError::Unreadable { .. } => (409, "vault_unreadable"),
        VaultError::Outdated => (409, "outdated"),
        VaultError::TooMany => (409, "too_many"),
        VaultError::Unfit { .. } => (422, "invalid_credential"),
        VaultError::NoRandomness(_) => (503, "no_randomness"),
        VaultError::Store(StoreError::Busy) => (503, "store_busy"),
        VaultError::Store(_) => (503, "store_failed"),
    };
    let mut detail = error.to_string();
    if let Some(first) = detail.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    problem(status, code, &format!("{detail}."))
}

fn bad_query() -> Response {
    problem(400, "invalid_query", "Accepted are limit (1 to 1000) and after (a name).")
}

fn json(body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => answer(200, "application/json", text),
        Err(_) => problem(500, "encoding_failed", "The answer could not be encoded."),
    }
}

fn rfc3339(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().to_string()
}
