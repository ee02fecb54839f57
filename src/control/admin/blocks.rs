//! `/admin/blocks`: who may not come in, on any listener.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/blocks?kind=&limit=&cursor=` | 200 and a page, in the order of addresses |
//! | `POST /admin/blocks` | 201: it holds, and is on disk; 409 where it would block who asks |
//! | `DELETE /admin/blocks/{network}` | 200: it is lifted, and what was counted of its address is forgotten |
//!
//! There is one block a network: another one takes its place. What `IP_DENYLIST` says stands in the settings and is not listed here. Each change
//! leaves a line in the audit trail that says who has made it.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::accept::{Asked, Body, Label, Limit, Named, Refused, Told, Within, rows};
use super::document::{BadBody, BadQuery, Conflict, Guarded, Missing};
use super::{Admin, Peer};
use crate::control::blocks::{BlockError, NewBlock};
use crate::control::http::{json, rfc3339};
use crate::state::blocks::view::{end_of, shown};
use crate::state::blocks::{Block, BlockKind};
use crate::state::networks::canonical;

/// Ten years.
type Lifetime = Within<1, 315_360_000>;

/// An address or a CIDR, IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<std::net::IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
        network.map(|network| Self(canonical(network))).map_err(|_| "neither an address nor a CIDR")
    }
}

/// What is accepted, for the OpenAPI document; an IPv4 address inside of an IPv6 one is, too, and not told.
impl PartialSchema for Network {
    fn schema() -> RefOr<Schema> {
        const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
        const GROUP: &str = "[0-9a-fA-F]{1,4}";
        let v4 = format!("{BYTE}(\\.{BYTE}){{3}}(/(3[0-2]|[12]?[0-9]))?");
        // `::` stands for one group at least: so many before it, at most so many behind.
        let short: String =
            (1..=6).map(|before| format!("|({GROUP}:){{{before}}}(:{GROUP}){{1,{}}}", 7 - before)).collect();
        let v6 = format!("({GROUP}:){{7}}{GROUP}|({GROUP}:){{1,7}}:|:(:{GROUP}){{1,7}}|::{short}");
        let pattern = format!("^({v4}|({v6})(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("An address or a CIDR, IPv4 or IPv6"))
            .min_length(Some(2))
            .max_length(Some(43))
            .pattern(Some(pattern))
            .examples(["203.0.113.0/24"])
            .into()
    }
}

impl ToSchema for Network {}

/// Which blocks are wanted; nothing: all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of one kind
    #[param(inline)]
    kind: Option<Kind>,
    /// Blocks of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(inline)]
    cursor: Option<Network>,
}

impl Told for Filter {
    const ALLOWED: &'static str =
        "Filters are kind=operator|lockout|abuse, limit=1 to 500, cursor=the next of the page before, each once.";
}

/// Why an address or network is blocked.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An operator has said so.
    Operator,
    /// Failed authentications.
    Lockout,
    /// Rate limits, broken again and again.
    Abuse,
}

impl Kind {
    fn of(kind: BlockKind) -> Self {
        match kind {
            BlockKind::DenyList | BlockKind::Operator => Self::Operator,
            BlockKind::Lockout => Self::Lockout,
            BlockKind::Abuse => Self::Abuse,
        }
    }
}

/// A block that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct AddBlock {
    // Described by its own schema: with a second description it would be told as two that contradict each other.
    #[schema(inline)]
    network: Network,
    /// Why, for whoever reads the list
    #[schema(value_type = Option<String>, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<Label>,
    /// Seconds until it ends; without this it holds until it is lifted
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 315_360_000)]
    expires_in_seconds: Option<Lifetime>,
}

impl Told for AddBlock {
    const ALLOWED: &'static str = "An object with network (an IPv4 or IPv6 address or CIDR), and as you like reason (at most 100 characters) and \
                                   expiresInSeconds (1 to 315360000).";
}

/// A block as it is told; also what `ringwall block` reads.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Block)]
pub struct BlockShown {
    /// Its name: a CIDR, or an address alone.
    pub network: String,
    /// Why it is blocked.
    pub kind: Kind,
    /// What is known of the cause.
    pub reason: String,
    /// When it began.
    #[schema(format = DateTime)]
    pub since: String,
    /// From then on it does not hold; `null`: until it is lifted.
    #[schema(format = DateTime)]
    pub until: Option<String>,
}

/// A page of blocks.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct BlocksPage {
    /// In the order of addresses, IPv4 first.
    pub blocks: Vec<BlockShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// Who is blocked, a page at a time
#[utoipa::path(get, path = "/admin/blocks", operation_id = "listBlocks", params(Filter),
    responses((status = 200, description = "A page", body = BlocksPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Result<Response, Refused> {
    let (now_ms, limit) = (admin.now_ms(), rows(filter.limit));
    let wanted =
        |block: &Block| !block.has_ended(now_ms) && filter.kind.is_none_or(|kind| Kind::of(block.kind) == kind);
    let view = admin.blocking.blocks().view();
    // One more tells whether there are more.
    let mut found = view.page(filter.cursor.map(|network| network.0), limit.saturating_add(1), wanted);
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|block| block.shown());
    Ok(json(200, &BlocksPage { blocks: found.iter().map(BlockShown::of).collect(), next }))
}

/// Block an address or a network
#[utoipa::path(post, path = "/admin/blocks", operation_id = "addBlock", request_body = AddBlock,
    responses((status = 201, description = "It holds from now on", body = BlockShown), BadBody, Conflict, Guarded))]
pub(super) async fn add(
    State(admin): State<Admin>,
    peer: Peer,
    Body(wanted): Body<AddBlock>,
) -> Result<Response, Refused> {
    let lifetime = wanted.expires_in_seconds.map(|seconds| Duration::from_secs(seconds.get()));
    let reason = wanted.reason.unwrap_or_default().0;
    let new = NewBlock { network: wanted.network.0, reason, lifetime };
    let block = admin.blocking.add(new, peer.0.0.ip().to_canonical()).await.map_err(|error| refused(error, true))?;
    let mut response = json(201, &BlockShown::of(&block));
    if let Ok(place) = HeaderValue::try_from(format!("/admin/blocks/{}", block.shown().replace('/', "%2F"))) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Lift the block of exactly this network
#[utoipa::path(delete, path = "/admin/blocks/{network}", operation_id = "liftBlock", params(NetworkName),
    responses((status = 200, description = "It was lifted; what it was", body = BlockShown), Missing, Guarded))]
pub(super) async fn lift(
    State(admin): State<Admin>,
    peer: Peer,
    Named(network): Named<Network>,
) -> Result<Response, Refused> {
    let lifted = admin.blocking.lift(network.0, peer.0.0.ip().to_canonical()).await;
    lifted.map(|block| json(200, &BlockShown::of(&block))).map_err(|error| refused(error, false))
}

/// The network in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "a part of the document")]
struct NetworkName {
    /// As the list shows it
    #[param(inline)]
    network: Network,
}

impl BlockShown {
    fn of(block: &Arc<Block>) -> Self {
        Self {
            network: shown(block.network),
            kind: Kind::of(block.kind),
            reason: block.reason.to_string(),
            since: rfc3339(block.since_ms),
            until: end_of(block.until_ms).map(rfc3339),
        }
    }
}

fn refused(error: BlockError, adding: bool) -> Refused {
    match error {
        BlockError::NotLasting(error) => {
            tracing::warn!(%error, "a block could not be written down, or forgotten");
            let detail = if adding {
                "The network is blocked from now on, but that could not be written down: after a restart it would not be, unless it can be \
                 written down before. Try again."
            } else {
                "The block is lifted, but that could not be written down: after a restart it would be back. Try again."
            };
            Refused::new(503, "not_lasting", detail)
        }
        BlockError::TooMany => Refused::new(
            409,
            "too_many_blocks",
            "There are as many blocks as there may be; lift some, or block a wider network.",
        ),
        BlockError::Own => Refused::new(
            409,
            "own_address",
            "The network has the address in it that you ask from; nothing was blocked.",
        ),
        BlockError::Unknown => Refused::new(404, "block_not_found", "Exactly this network is not blocked."),
        BlockError::Unrecorded => Refused::new(
            503,
            "audit_unavailable",
            "The audit trail has no room for this; nothing was changed. Try again.",
        ),
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
