//! The OpenAPI document: what is common to all routes. The rest is read off the handlers ([`utoipa::path`]), so that neither can be without the
//! other.

use std::collections::BTreeMap;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OneOfBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::{IntoResponses, Modify, OpenApi};

use crate::control::http::Problem;
use crate::state::events::EventKind;

/// The document before any route.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringwall admin API",
        description = "What the running gateway is doing, and what an operator may change. Errors are RFC 9457 problem details; \
                       times are RFC 3339 in UTC.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem)),
    security(("orchestrator" = [])),
    modifiers(&Orchestrator)
)]
pub(super) struct Document;

/// `Authorization: Bearer` with the orchestrator token.
struct Orchestrator;

impl Modify for Orchestrator {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("orchestrator", SecurityScheme::Http(scheme));
    }
}

/// What any route can answer.
pub(super) struct Guarded;

impl IntoResponses for Guarded {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ("401", "No token, or a wrong one"),
            ("403", "The address is blocked or not in ADMIN_IP_ALLOWLIST, or the token is an agent's"),
            ("429", "Too many wrong tokens from this address"),
            ("503", "No orchestrator token is set, or what is asked for cannot be done now"),
        ])
    }
}

/// A query that is not as it may be.
pub(super) struct BadQuery;

impl IntoResponses for BadQuery {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[("400", "The query is not as it may be")])
    }
}

/// A name in the path that nothing has.
pub(super) struct Missing;

impl IntoResponses for Missing {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[("404", "There is nothing of this name")])
    }
}

/// A body that is not as it may be.
pub(super) struct BadBody;

impl IntoResponses for BadBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ("400", "The body is not JSON"),
            ("413", "The body is longer than 64 KiB"),
            ("415", "The body is not application/json"),
            ("422", "The body is JSON, and not as it may be"),
        ])
    }
}

/// A change that what is there does not allow.
pub(super) struct Conflict;

impl IntoResponses for Conflict {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[("409", "What is there does not allow it")])
    }
}

fn problems(all: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let one = |(status, description): &(&str, &str)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(*description).content("application/problem+json", content);
        ((*status).to_owned(), RefOr::T(response.build()))
    };
    all.iter().map(one).collect()
}

/// An address of either family.
pub(super) fn address() -> RefOr<Schema> {
    let of = |format| ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)));
    let both = OneOfBuilder::new().item(of(KnownFormat::Ipv4)).item(of(KnownFormat::Ipv6));
    RefOr::T(Schema::OneOf(both.build()))
}

/// The kinds of audit lines.
pub(super) fn event() -> RefOr<Schema> {
    let names = EventKind::ALL.iter().map(|kind| kind.wire_name());
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()))
}
