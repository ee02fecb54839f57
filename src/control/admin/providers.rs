//! Credentials of providers: what there is, never what it is. Putting one, taking one away, sealing all under another key.
//!
//! `GET /admin/providers?limit=&cursor=`, `PUT` and `DELETE /admin/providers/{name}`, `POST /admin/vault/rotate`. Without
//! `CREDENTIALS_ENCRYPTION_KEY` all answer 503 `vault_locked`. What has changed is in the audit trail, with the address that asked for it.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroizing;

use super::super::http::{json, problem, rfc3339};
use super::accept::{Asked, Told, Within};
use super::document::{BadBody, BadQuery, Conflict, Guarded, Missing};
use super::{Admin, Peer};
use crate::state::events::{Event, EventKind};
use crate::store::StoreError;
use crate::vault::seal::Key;
use crate::vault::{VaultError, is_name, is_value};

const DEFAULT_LIMIT: usize = 100;

/// Which credentials are wanted; nothing: the first of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Credentials of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Within<1, 1000>>,
    /// The `next` of the page before
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    cursor: Option<CredentialName>,
}

/// A credential's name.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct CredentialName(String);

impl TryFrom<String> for CredentialName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_name(&text) { Ok(Self(text)) } else { Err("not a name") }
    }
}

impl Told for Filter {
    const ALLOWED: &'static str = "Filters are limit=1 to 1000, cursor=the next of the page before, each once.";
}

/// The credential in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "a part of the document")]
struct ProviderName {
    /// What it is called, in the policy as well
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    name: String,
}

/// A page of the list.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ProvidersPage)]
pub struct ListedPage {
    /// The key that new ones are sealed under.
    pub key: String,
    /// By name.
    pub providers: Vec<Listed>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// What is told of a credential.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Provider)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// How often it was written.
    pub revision: u64,
    /// When it was last changed, RFC 3339.
    #[schema(format = DateTime)]
    pub updated: String,
    /// The key that it is under.
    pub key: String,
    /// Whether that key is at hand.
    pub readable: bool,
    /// The upstreams that are shown it.
    pub used_by: Vec<String>,
}

/// The credentials in the vault, a page at a time; never their values
#[utoipa::path(get, path = "/admin/providers", operation_id = "listProviders", params(Filter),
    responses((status = 200, description = "A page", body = ListedPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Response {
    let limit = filter.limit.and_then(|limit| usize::try_from(limit.get()).ok()).unwrap_or(DEFAULT_LIMIT);
    let (key, all) = match admin.vault.list().await {
        Ok(listed) => listed,
        Err(error) => return refusal(&error),
    };
    let after = filter.cursor.map(|name| name.0).unwrap_or_default();
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
    json(200, &ListedPage { key: key.to_string(), providers: providers.collect(), next })
}

/// A credential that is to be stored. Not `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutProvider)]
pub(super) struct Put {
    /// What upstreams are shown; it is told to nobody again
    #[schema(
        min_length = 1,
        max_length = 4096,
        pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]([^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f])?$",
        format = Password
    )]
    credential: String,
}

/// What was stored.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredProvider {
    /// What it is called.
    name: String,
    /// How often it was written.
    revision: u64,
}

/// What is not there any more.
#[derive(Serialize, ToSchema)]
pub(super) struct DeletedProvider {
    /// What it was called.
    name: String,
}

/// Store a credential, in the place of one of that name
#[utoipa::path(put, path = "/admin/providers/{name}", operation_id = "putProvider", params(ProviderName), request_body = Put,
    responses((status = 200, description = "Stored, and in force", body = StoredProvider), BadBody, Conflict, Guarded))]
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
            json(200, &StoredProvider { name, revision })
        }
        Err(error) => refusal(&error),
    }
}

/// Delete a credential
#[utoipa::path(delete, path = "/admin/providers/{name}", operation_id = "deleteProvider", params(ProviderName),
    responses((status = 200, description = "It is gone", body = DeletedProvider), Missing, Conflict, Guarded))]
pub(super) async fn remove(State(admin): State<Admin>, Path(name): Path<String>, peer: Peer) -> Response {
    match admin.vault.delete(&name).await {
        Ok(true) => {
            admin.note_change(&peer, format_args!("credential {name} deleted"));
            json(200, &DeletedProvider { name })
        }
        Ok(false) => problem(404, "not_found", "The vault has no credential of this name."),
        Err(error) => refusal(&error),
    }
}

/// Under which key all is to be sealed anew. Not `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateVault)]
pub(super) struct Rotate {
    /// 64 hexadecimal digits; without it the key of the settings
    #[schema(min_length = 64, max_length = 64, pattern = "^[0-9A-Fa-f]{64}$", format = Password)]
    key: Option<String>,
}

/// What came of a rotation.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = RotatedVault)]
pub struct Rotated {
    /// The key that everything is under now.
    pub key: String,
    /// Credentials that were sealed anew.
    pub resealed: usize,
}

/// Seal all credentials under another key
#[utoipa::path(post, path = "/admin/vault/rotate", operation_id = "rotateVault", request_body = Rotate,
    responses((status = 200, description = "All are under it", body = Rotated), BadBody, Conflict, Guarded))]
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
            json(200, &Rotated { key: key.to_string(), resealed })
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
            Err(Box::new(problem(413, "too_large", "A body of at most 64 KiB is taken.")))
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
        // The value would do, were it not for the upstreams that there are.
        VaultError::Unfit { .. } => (409, "unfit_credential"),
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
