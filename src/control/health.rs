//! The health listener: `GET /health` and `GET /health/ready`, without authentication, limits or secrets.
//!
//! Bodies come from `state::health`, the same functions that the bridge port uses.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::http;
use crate::state::health::{HealthFacts, ready_answer, write_health};
use crate::state::lifecycle::Lifecycle;

/// What the answers are made of.
#[derive(Clone)]
pub(crate) struct HealthSource {
    pub(crate) facts: Arc<HealthFacts>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) clock: fn() -> u64,
}

/// The two routes; any other path is 404, any other method 405.
pub(crate) fn router(source: HealthSource) -> Router {
    Router::new().route("/health", get(health)).route("/health/ready", get(ready)).with_state(source)
}

async fn health(State(source): State<HealthSource>) -> Response {
    let mut body = Vec::with_capacity(512);
    write_health(&mut body, &source.facts, &source.lifecycle, (source.clock)());
    http::answer(200, "application/json", body)
}

async fn ready(State(source): State<HealthSource>) -> Response {
    let (status, text) = ready_answer(&source.lifecycle);
    http::answer(status, "text/plain; charset=utf-8", text)
}
