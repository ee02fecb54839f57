//! Serving axum routers with bounds: connections, header size and time, lifetime.
//!
//! The control plane's listeners are for health checks, scrapes and a few people. Each has a cap on connections ([`MAX_CONNECTIONS`]);
//! one over it is closed at once. A client that sends its header slowly is cut after [`HEADER_TIMEOUT`], and no connection
//! lives longer than [`MAX_LIFETIME`], so whoever holds all places holds them for a moment only. Bodies over [`MAX_BODY`]
//! are refused by axum before a handler sees them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::gatekeeper::{Gatekeeper, Refusals};

/// Connections open at once on one control listener.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// Time to send a request's header section; also the longest pause between two requests.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Header section, bytes.
pub(crate) const MAX_HEADER: usize = 16 * 1024;
/// Request body, bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;
/// A connection's life, seconds; what it is doing then has [`GRACE`] to end.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(60);
/// Time for the last answer of a connection whose life is over.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often attempts of blocked clients are recorded that came again.
const REPEATS_EVERY: Duration = Duration::from_millis(200);

/// Accepts and serves for ever; with a keeper, whom he lets in. Handlers find the client's address as `ConnectInfo<SocketAddr>`.
pub(crate) async fn serve(listener: TcpListener, router: Router, keeper: Option<Gatekeeper>) {
    let router = router.layer(DefaultBodyLimit::max(MAX_BODY));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut refusals = keeper.clone().map(Refusals::new);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(REPEATS_EVERY), if refusals.as_ref().is_some_and(Refusals::is_waiting) => {
                refusals.iter_mut().for_each(Refusals::record_due);
                continue;
            }
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept failed on a control listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let client = peer.ip().to_canonical();
        if let Some(refusals) = &mut refusals
            && let Some(denial) = refusals.keeps_out(client)
        {
            refusals.refuse(stream, peer, &denial);
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(%peer, "a control listener has no place left");
            continue;
        };
        let router = router.clone().layer(axum::Extension(ConnectInfo(peer)));
        let keeper = keeper.clone();
        tokio::spawn(async move {
            match keeper {
                None => serve_one(stream, router).await,
                // Who is blocked while it is open is put out in the middle of whatever it does.
                Some(keeper) => tokio::select! {
                    () = serve_one(stream, router) => {}
                    () = keeper.blocked(client) => {}
                },
            }
            drop(place);
        });
    }
}

async fn serve_one(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // Errors here are the client's: a bad request, a reset. They were answered as far as they can be.
    if tokio::time::timeout(MAX_LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(GRACE, connection).await;
    }
}

/// An answer with a media type.
pub(crate) fn answer(status: u16, media_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body.into()).into_response()
}

/// An answer as JSON.
pub(crate) fn json<T: serde::Serialize>(status: u16, body: &T) -> Response {
    match serde_json::to_string(body) {
        Ok(body) => answer(status, "application/json", body),
        Err(_) => problem(500, "encoding_failed", "The answer could not be encoded."),
    }
}

/// A time as answers have it: RFC 3339, UTC, to the millisecond.
pub(crate) fn rfc3339(epoch_ms: u64) -> String {
    let time = i64::try_from(epoch_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or_default())
}

/// Problem details (RFC 9457).
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Problem<'a> {
    /// `urn:ringwall:problem:CODE`.
    r#type: String,
    /// What the status means.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, for programs.
    code: &'a str,
    /// What is wrong and what to do, for people.
    detail: &'a str,
}

/// Problem details (RFC 9457) as text.
pub(crate) fn problem_text(status: u16, code: &str, detail: &str) -> String {
    let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    let problem = Problem { r#type: format!("urn:ringwall:problem:{code}"), title, status, code, detail };
    serde_json::to_string(&problem).unwrap_or_default()
}

/// An error as RFC 9457 problem details.
pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Response {
    answer(status, "application/problem+json", problem_text(status, code, detail))
}
