//! What a request may hold, read strictly, and how it is told that it holds something else: as problem details (RFC 9457), never with a value
//! of the request in them.
//!
//! | what is wrong | status, code |
//! |---|---|
//! | the query is not as it may be | 400 `invalid_filter` |
//! | the body is not JSON | 400 `invalid_json` |
//! | a part of the path cannot name anything | 404 `not_found` |
//! | the body is longer than it may be | 413 `too_large` |
//! | the body says that it is something else | 415 `unsupported_media_type` |
//! | the body is JSON, and not as it may be | 422 `invalid_body` |

use std::fmt;
use std::str::FromStr;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::control::http::{MAX_BODY, problem};
use crate::guard::jwt::is_agent_id;

/// An answer to a request that is not taken.
#[derive(Debug)]
pub(crate) struct Refused(Box<Response>);

impl Refused {
    pub(crate) fn new(status: u16, code: &str, detail: &str) -> Self {
        Self(Box::new(problem(status, code, detail)))
    }

    fn too_large() -> Self {
        Self::new(413, "too_large", "A body of at most 64 KiB is taken.")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// What is said of a query or a body that is not as it may be.
pub(crate) trait Told {
    /// A sentence that names all that is allowed.
    const ALLOWED: &'static str;
}

/// The query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Told> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(_) => Err(Refused::new(400, "invalid_filter", T::ALLOWED)),
        }
    }
}

/// The one name in the path.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Named<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let name = Path::<String>::from_request_parts(parts, state).await.ok();
        let found = name.and_then(|Path(name)| name.parse().ok()).map(Self);
        found.ok_or_else(|| Refused::new(404, "not_found", "There is nothing of this name."))
    }
}

/// The body.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Told> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        // Who says so is told before it is sent.
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > MAX_BODY as u64) {
            return Err(Refused::too_large());
        }
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(_)) => Err(Refused::new(422, "invalid_body", T::ALLOWED)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                let detail = "Send a body of application/json.";
                Err(Refused::new(415, "unsupported_media_type", detail))
            }
            Err(other) if other.status() == 413 => Err(Refused::too_large()),
            Err(_) => Err(Refused::new(400, "invalid_json", "The body is not whole, or not JSON.")),
        }
    }
}

/// A number of a bounded range. `5.0` is a whole number to JSON Schema (2020-12, 4.2.3), and so it is here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<const MIN: u64, const MAX: u64>(u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(Whole::<MIN, MAX>)
    }
}

/// Reads a [`Within`].
struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for Whole<MIN, MAX> {
    type Value = Within<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Within::try_from(number).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        // Whole numbers up to there are exact.
        let whole = (number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number)).then_some(number);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative, and below 2^53"
        )]
        whole.map(|number| number as u64).ok_or_else(|| E::custom("not a whole number")).and_then(|n| self.visit_u64(n))
    }
}

impl<const MIN: u64, const MAX: u64> Within<MIN, MAX> {
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Within<MIN, MAX> {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if (MIN..=MAX).contains(&number) { Ok(Self(number)) } else { Err("out of range") }
    }
}

/// Rows of a page.
pub(crate) type Limit = Within<1, 500>;

/// Rows of a page when the client does not say.
pub(crate) const DEFAULT_LIMIT: usize = 100;

/// How many rows are wanted.
pub(crate) fn rows(limit: Option<Limit>) -> usize {
    limit.and_then(|limit| usize::try_from(limit.get()).ok()).unwrap_or(DEFAULT_LIMIT)
}

/// An agent's id: 1 to 128 letters, digits and `_ - . : @`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct AgentId(pub(crate) String);

impl TryFrom<String> for AgentId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_agent_id(&text) { Ok(Self(text)) } else { Err("not an agent's id") }
    }
}

impl FromStr for AgentId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

/// What a token is for, in an operator's words: at most 100 characters, none of which controls anything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Label(pub(crate) String);

impl TryFrom<String> for Label {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = text.chars().count() <= 100 && !text.chars().any(char::is_control);
        if fits { Ok(Self(text)) } else { Err("not a label") }
    }
}

/// 1 to `MAX` characters, none of which controls anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Phrase<const MAX: usize>(pub(crate) String);

impl<const MAX: usize> TryFrom<String> for Phrase<MAX> {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = (1..=MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text)) } else { Err("not a phrase") }
    }
}
