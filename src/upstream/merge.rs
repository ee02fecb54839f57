//! Several upstreams' answers made into one.
//!
//! Members of lists are spliced byte for byte; only a name that several upstreams have is replaced. What the gateway must
//! compose itself (capabilities, instructions) is small and goes through serde_json.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::Upstreams;
use super::outgoing::Edits;
use crate::door::shown::View;
use crate::rpc::list::{self, Item, ListKind};
use crate::rpc::{Envelope, Era, Kind, Parser, reply};
use crate::worker::Worker;

/// One upstream's pages of a list, each a checked response.
pub(crate) struct Listing {
    pub(crate) upstream: usize,
    pub(crate) pages: Vec<Vec<u8>>,
}

/// The list that is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) kind: ListKind,
    pub(crate) era: Era,
    /// What whoever asks may be shown, and the worker that notes what is found; `None`: all.
    pub(crate) view: Option<(&'a View, &'a Worker)>,
}

/// A member of a list on its way into the merged one.
struct Member<'a> {
    upstream: usize,
    raw: &'a [u8],
    item: Item,
    own: String,
}

/// The member of a result under which a list stands.
pub(crate) fn list_key(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Tools => "tools",
        ListKind::Prompts => "prompts",
        ListKind::Resources => "resources",
        ListKind::ResourceTemplates => "resourceTemplates",
    }
}

/// Merges listings into a result (raw JSON), and publishes whose each name is.
pub(crate) fn merge_lists(
    upstreams: &Upstreams,
    parser: &mut Parser,
    wanted: &Wanted<'_>,
    listings: &[Listing],
) -> Vec<u8> {
    let kind = wanted.kind;
    let view = wanted.view.filter(|_| kind == ListKind::Tools);
    let mut changed = HashSet::new();
    let mut members = Vec::new();
    let mut hints = CacheHints::default();
    for listing in listings {
        for page in &listing.pages {
            let Ok(envelope) = parser.parse(page) else { continue };
            if kind == ListKind::Tools {
                upstreams.learn_tools(listing.upstream, &envelope, page);
            }
            if let Some((view, worker)) = view {
                let upstream = upstreams.get(listing.upstream).map_or("", |upstream| &upstream.name);
                let names = view.changed_tools(worker, upstream, &envelope, page);
                changed.extend(names.into_iter().map(|name| (listing.upstream, name)));
            }
            let mut items = Vec::new();
            if let Some(split) = list::split(&envelope, page, kind, &mut items) {
                hints.add(split.ttl_ms.map(|span| span.of(page)), split.cache_scope.map(|text| text.decode(page)));
            }
            members.extend(items.into_iter().map(|item| Member {
                upstream: listing.upstream,
                raw: page,
                own: item.key.decode(page).into_owned(),
                item,
            }));
        }
    }
    let names: Vec<String> = upstreams.iter().map(|(_, upstream)| upstream.name.clone()).collect();
    for listing in listings {
        let own_names = members.iter().filter(|member| member.upstream == listing.upstream).map(|m| m.own.clone());
        upstreams.directory.learn(kind, listing.upstream, own_names);
    }
    upstreams.directory.publish(kind, &names);
    let mut result = Vec::with_capacity(members.iter().map(|m| m.item.span.len() as usize + 32).sum::<usize>() + 64);
    result.extend_from_slice(b"{\"");
    result.extend_from_slice(list_key(kind).as_bytes());
    result.extend_from_slice(b"\":[");
    let mut first = true;
    for listing in listings {
        let shown = upstreams.directory.shown(kind, listing.upstream);
        let upstream = names.get(listing.upstream).map_or("", String::as_str);
        for member in members.iter().filter(|member| member.upstream == listing.upstream) {
            if let Some((view, _)) = view.filter(|(view, _)| view.restricts())
                && (member.item.is_ambiguous
                    || !view.allows(upstream, &member.own)
                    || changed.contains(&(listing.upstream, member.own.as_str().into())))
            {
                continue;
            }
            // What is not shown is another upstream's: a resource that was listed before.
            let shown = match shown.get(member.own.as_str()) {
                Some(shown) => shown.as_ref(),
                None if kind == ListKind::ResourceTemplates => member.own.as_str(),
                None => continue,
            };
            if !std::mem::take(&mut first) {
                result.push(b',');
            }
            put_member(member, shown, &mut result);
        }
    }
    result.push(b']');
    if wanted.era == Era::Modern {
        hints.private |= view.is_some_and(|(view, _)| view.restricts());
        hints.put(&mut result, listings.len() == names.len());
        put_modern(&mut result);
    }
    result.push(b'}');
    result
}

fn put_member(member: &Member<'_>, shown: &str, out: &mut Vec<u8>) {
    let span = member.item.span;
    let whole = span.of(member.raw);
    if shown == member.own {
        out.extend_from_slice(whole);
        return;
    }
    let mut spelled = Vec::new();
    reply::push_string(&mut spelled, shown);
    let key = member.item.key.span;
    let mut edits = Edits::default();
    edits.replace(crate::rpc::Span::new(key.start - span.start, key.end - span.start), spelled);
    if edits.apply(whole, out).is_err() {
        out.extend_from_slice(whole);
    }
}

/// `ttlMs` and `cacheScope` of a merged list (2026-07-28): the shortest life, and private if any part is.
#[derive(Default)]
struct CacheHints {
    ttl_ms: Option<u64>,
    private: bool,
    any: bool,
}

impl CacheHints {
    fn add(&mut self, ttl_ms: Option<&[u8]>, scope: Option<std::borrow::Cow<'_, str>>) {
        let ttl = ttl_ms.and_then(|raw| std::str::from_utf8(raw).ok()?.parse().ok()).unwrap_or(0);
        self.ttl_ms = Some(self.ttl_ms.map_or(ttl, |least| least.min(ttl)));
        // Without a word about it a list may be of this principal alone.
        self.private |= scope.is_none_or(|scope| scope != "public");
        self.any = true;
    }

    /// A list that lacks an upstream's part is good for this once.
    fn put(&self, out: &mut Vec<u8>, complete: bool) {
        out.extend_from_slice(b",\"ttlMs\":");
        reply::push_u64(out, self.ttl_ms.filter(|_| complete).unwrap_or(0));
        let private = self.private || !self.any || !complete;
        out.extend_from_slice(if private { b",\"cacheScope\":\"private\"" } else { b",\"cacheScope\":\"public\"" });
    }
}

/// What every result of 2026-07-28 says of its kind and its author.
pub(crate) fn put_modern(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
    out.extend_from_slice(server_info().to_string().as_bytes());
    out.push(b'}');
}

fn server_info() -> Value {
    json!({"name": "ringwall", "title": "Ringwall", "version": env!("CARGO_PKG_VERSION")})
}

/// Joins the results of `initialize`: the lowest protocol version, all capabilities, all instructions. `None` without any.
pub(crate) fn merge_initialize(results: &[Value]) -> Option<Value> {
    let version = results.iter().filter_map(|result| result.get("protocolVersion")?.as_str()).min()?;
    let mut merged = json!({
        "protocolVersion": version,
        "capabilities": join_capabilities(results),
        "serverInfo": server_info(),
    });
    put_instructions(&mut merged, results);
    Some(merged)
}

/// Joins the results of `server/discover`: the versions that all speak, all capabilities, all instructions.
pub(crate) fn merge_discover(results: &[Value]) -> Option<Value> {
    let versions_of = |result: &Value| -> Vec<String> {
        let versions = result.get("supportedVersions").and_then(Value::as_array);
        versions.into_iter().flatten().filter_map(|version| version.as_str().map(str::to_owned)).collect()
    };
    let mut versions = versions_of(results.first()?);
    for result in results {
        let these = versions_of(result);
        versions.retain(|version| these.contains(version));
    }
    let mut merged = json!({
        "supportedVersions": versions,
        "capabilities": join_capabilities(results),
        "resultType": "complete",
        "ttlMs": results.iter().map(|result| result.get("ttlMs").and_then(Value::as_u64).unwrap_or(0)).min(),
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": server_info()},
    });
    put_instructions(&mut merged, results);
    Some(merged)
}

fn put_instructions(merged: &mut Value, results: &[Value]) {
    let instructions: Vec<&str> = results.iter().filter_map(|result| result.get("instructions")?.as_str()).collect();
    if let (false, Some(merged)) = (instructions.is_empty(), merged.as_object_mut()) {
        merged.insert("instructions".into(), Value::String(instructions.join("\n\n")));
    }
}

fn join_capabilities(results: &[Value]) -> Value {
    let mut joined = Map::new();
    for capabilities in results.iter().filter_map(|result| result.get("capabilities")?.as_object()) {
        for (name, value) in capabilities {
            match (joined.get_mut(name), value) {
                (Some(Value::Object(known)), Value::Object(more)) => {
                    for (key, value) in more {
                        // One server that can is enough to say that it can be done.
                        if known.get(key) != Some(&Value::Bool(true)) {
                            known.insert(key.clone(), value.clone());
                        }
                    }
                }
                (Some(_), _) => {}
                (None, value) => {
                    joined.insert(name.clone(), value.clone());
                }
            }
        }
    }
    Value::Object(joined)
}

/// The result object of a checked response; `None` for an error.
pub(crate) fn result_of(envelope: &Envelope, raw: &[u8]) -> Option<Value> {
    if envelope.kind != Kind::Response {
        return None;
    }
    serde_json::from_slice(envelope.result?.of(raw)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_takes_the_lowest_version_and_all_that_anyone_can() {
        let merged = merge_initialize(&[
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}, "logging": {}}, "instructions": "A."}),
            json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": false}, "prompts": {}}}),
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "instructions": "C."}),
        ]);
        let merged = merged.unwrap_or_default();
        assert_eq!(merged["protocolVersion"], "2025-06-18");
        assert_eq!(merged["capabilities"], json!({"tools": {"listChanged": true}, "logging": {}, "prompts": {}}));
        assert_eq!(merged["instructions"], "A.\n\nC.");
        assert_eq!(merge_initialize(&[]), None);
    }

    #[test]
    fn discover_offers_only_versions_that_all_speak() {
        let merged = merge_discover(&[
            json!({"supportedVersions": ["2026-07-28", "2027-01-01"], "capabilities": {}, "ttlMs": 5000}),
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 1000}),
        ])
        .unwrap_or_default();
        assert_eq!(merged["supportedVersions"], json!(["2026-07-28"]));
        assert_eq!(merged["ttlMs"], 1000);
        assert_eq!(merged["cacheScope"], "private");
    }
}
