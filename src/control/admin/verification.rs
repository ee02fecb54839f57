//! `/admin/audit/verification`: whether the audit trail is as it was written.
//!
//! | request | answer |
//! |---|---|
//! | `POST /admin/audit/verification` | 202: one has begun; 409: one is running |
//! | `GET /admin/audit/verification` | 200: the one that is running, or what the last one since the start came to |
//!
//! A verification reads the whole trail, which can take minutes, on a thread of its own; so it is begun and asked after, and there is one at a time. It is held
//! against the checkpoint and begins with the first line, as `ringwall audit verify` does, and with the oldest line that there is where `fromOldest` says so.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::accept::{Body, Refused, Told};
use super::audit::{AuditPlace, off};
use super::document::{BadBody, Conflict, Guarded};
use crate::control::audit::checkpoint::{self, Noted};
use crate::control::audit::line;
use crate::control::audit::verify::{self, Expected, Fault, From as Beginning, VerifyError, Whole};
use crate::control::http::{json, rfc3339};
use crate::control::keys;

/// The one verification that there can be, and what the last one came to.
#[derive(Default)]
pub(crate) struct Verifications {
    is_running: AtomicBool,
    last: ArcSwap<VerificationShown>,
}

/// How a verification is begun.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct BeginVerification {
    /// The trail may begin with any line, because older files were given away; that they are missing does not show
    from_oldest: Option<bool>,
}

impl Told for BeginVerification {
    const ALLOWED: &'static str = "An object, as you like with fromOldest (true or false).";
}

/// A verification as it is told.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Verification)]
pub struct VerificationShown {
    /// `none` (since the start), `running`, `whole`, `faulty`, or `failed` (it could not be found out).
    #[schema(pattern = "^(none|running|whole|faulty|failed)$")]
    pub state: String,
    /// When it was begun.
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    /// When it was over.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// What is whole.
    pub whole: Option<WholeShown>,
    /// What is wrong.
    pub fault: Option<FaultShown>,
    /// Why it could not be found out.
    pub problem: Option<String>,
}

/// A trail that is as it was written.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WholeShown {
    /// How many lines.
    pub lines: u64,
    /// The number of its first line; 0 when there is none.
    pub first: u64,
    /// The number of its last line.
    pub last: u64,
    /// That line's `mac`: noted elsewhere, it shows later that nothing before it was changed.
    pub mac: String,
    /// In how many files.
    pub files: u64,
    /// How many bytes, decompressed.
    pub bytes: u64,
    /// The number of the line that the checkpoint vouches for.
    pub checkpoint: u64,
}

/// The first fault of a trail.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultShown {
    /// What was done: `changed`, `removed`, `swapped`, `inserted`, `truncated`, `foreign-key` or `forked`.
    pub kind: String,
    /// The file in which it shows.
    pub file: String,
    /// The line in that file; 0 before the first.
    pub line: u64,
    /// The number of the line that was to be there.
    pub seq: u64,
    /// What was found.
    pub text: String,
}

/// Begin to verify the audit trail
#[utoipa::path(post, path = "/admin/audit/verification", operation_id = "beginVerification", request_body = BeginVerification,
    responses((status = 202, description = "It has begun", body = VerificationShown), BadBody, Conflict, Guarded))]
pub(super) async fn begin(State(admin): State<Admin>, Body(how): Body<BeginVerification>) -> Result<Response, Refused> {
    let place = admin.config.audit.clone().ok_or_else(off)?;
    let verifications = Arc::clone(&admin.verifications);
    if verifications.is_running.swap(true, Ordering::AcqRel) {
        return Err(Refused::new(
            409,
            "verification_running",
            "A verification is running; ask after it, or wait for it.",
        ));
    }
    let begun = VerificationShown {
        state: "running".to_owned(),
        started_at: Some(rfc3339(admin.now_ms())),
        ..VerificationShown::default()
    };
    verifications.last.store(Arc::new(begun.clone()));
    let (shown, clock) = (begun.clone(), admin.health.clock);
    let from = if how.from_oldest == Some(true) { Beginning::Oldest } else { Beginning::First };
    let work = tokio::task::spawn_blocking(move || outcome(&place, from));
    tokio::spawn(async move {
        let ended = work.await.unwrap_or_else(|_| failed("the verification ended unexpectedly; the log says why"));
        let ended = VerificationShown { started_at: shown.started_at, ended_at: Some(rfc3339(clock())), ..ended };
        verifications.last.store(Arc::new(ended));
        verifications.is_running.store(false, Ordering::Release);
    });
    Ok(json(202, &begun))
}

/// The verification that is running, or what the last one came to
#[utoipa::path(get, path = "/admin/audit/verification", operation_id = "readVerification",
    responses((status = 200, description = "What is known", body = VerificationShown), Guarded))]
pub(super) async fn read(State(admin): State<Admin>) -> Result<Response, Refused> {
    admin.config.audit.as_ref().ok_or_else(off)?;
    let last = admin.verifications.last.load_full();
    if last.state.is_empty() {
        return Ok(json(200, &VerificationShown { state: "none".to_owned(), ..VerificationShown::default() }));
    }
    Ok(json(200, &*last))
}

/// Reads the trail: blocks the thread, for as long as that takes.
fn outcome(place: &AuditPlace, beginning: Beginning) -> VerificationShown {
    let key = match keys::load_existing(&place.state, line::KEY_FILE) {
        Ok(key) => key,
        Err(error) => return failed(&error.to_string()),
    };
    // Before the files are listed: all it vouches for is in them by then.
    let checkpoint = match checkpoint::read(&place.state, &key) {
        Ok(Noted::At(checkpoint)) => checkpoint,
        Ok(Noted::Nothing) => return failed("there is no checkpoint, so a cut-off end would not show"),
        Ok(Noted::Unreadable) => return failed("the checkpoint is damaged, or was signed with another audit.key"),
        Err(error) => return failed(&format!("the checkpoint cannot be read: {error}")),
    };
    let vouched = checkpoint.end.seq;
    let expected = Expected { key: &key, checkpoint: Some(checkpoint), beginning, anchor: None };
    match verify::verify(&place.trail, &expected) {
        Ok(whole) => VerificationShown {
            state: "whole".to_owned(),
            whole: Some(WholeShown::of(&whole, vouched)),
            ..VerificationShown::default()
        },
        Err(VerifyError::Fault(fault)) => {
            tracing::error!(%fault, "the audit trail is not as it was written");
            let fault = Some(FaultShown::of(&fault));
            VerificationShown { state: "faulty".to_owned(), fault, ..VerificationShown::default() }
        }
        Err(error @ VerifyError::Io { .. }) => {
            failed(&format!("{error}. If the file has just been rotated, try again"))
        }
    }
}

fn failed(why: &str) -> VerificationShown {
    tracing::warn!(why, "the audit trail was not verified");
    VerificationShown { state: "failed".to_owned(), problem: Some(why.to_owned()), ..VerificationShown::default() }
}

impl WholeShown {
    fn of(whole: &Whole, checkpoint: u64) -> Self {
        Self {
            lines: whole.lines,
            first: whole.first,
            last: whole.end.seq,
            mac: String::from_utf8_lossy(&whole.end.mac).into_owned(),
            files: whole.files as u64,
            bytes: whole.bytes,
            checkpoint,
        }
    }
}

impl FaultShown {
    fn of(fault: &Fault) -> Self {
        let file = fault.file.file_name().unwrap_or(Path::new("").as_os_str());
        Self {
            kind: fault.kind.name().to_owned(),
            file: file.to_string_lossy().into_owned(),
            line: fault.line,
            seq: fault.seq,
            text: fault.text.clone(),
        }
    }
}
